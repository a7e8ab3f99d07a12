package infer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// HTTPOptions say where an engine is and how far it is trusted.
type HTTPOptions struct {
	Name   string   // the URL's host:port, or the socket's file name, when empty
	URL    string   // http(s)://host[:port][/v1], a longer path as it is, or unix:///path/to.sock
	APIKey string   // sent as a bearer token; empty sends none
	Models []string // what it serves; empty: ask it

	Timeout     time.Duration // of one request, under the caller's own deadline; HTTPTimeout when 0
	DialTimeout time.Duration // of one connection; HTTPDialTimeout when 0
	Concurrency int           // connections kept open; HTTPConcurrency when 0
	MaxBody     int64         // bytes of one answer; HTTPMaxBody when 0

	dial func(ctx context.Context) (net.Conn, error) // in place of the URL's address
}

// Defaults of HTTPOptions.
const (
	HTTPTimeout     = 10 * time.Minute
	HTTPDialTimeout = 5 * time.Second
	HTTPConcurrency = 64
	HTTPMaxBody     = 8 << 20
)

// idleMax is how long an unused connection is kept: below the 5 s after which uvicorn (vLLM,
// SGLang) closes its end, so that a request rarely meets a connection which is just dying.
const idleMax = 4 * time.Second

// HTTP is an engine behind an OpenAI-compatible API. It is safe for any number of goroutines.
type HTTP struct {
	o        HTTPOptions
	base     string // with the version: "http://host/v1"
	root     string // without it: health and tokenize live there
	client   *http.Client
	tokenize atomic.Int32 // the dialect of /tokenize that it understood, or noTokenize
}

var versionPath = regexp.MustCompile(`/v[0-9]+[a-z0-9]*$`)

// NewHTTP checks the options; it does not call the engine. Close lets its idle connections go.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	bad := func(format string, args ...any) (*HTTP, error) {
		return nil, fault.New(fault.Invalid, "infer.http", o.Name, format, args...).WithRemedy("give http(s)://host[:port][/v1] or unix:///path/to.sock")
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return bad("engine URL: %w", errors.Unwrap(err)) // the outer text would repeat a password
	}
	if o.Timeout < 0 || o.DialTimeout < 0 || o.Concurrency < 0 || o.MaxBody < 0 {
		return bad("engine limits cannot be negative")
	}
	setDefaults(&o)
	dial := (&net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	tr := &http.Transport{
		MaxIdleConns:        o.Concurrency,
		MaxIdleConnsPerHost: o.Concurrency,
		IdleConnTimeout:     idleMax,
		TLSHandshakeTimeout: o.DialTimeout,
		DialContext:         dial,
		DisableCompression:  true, // answers are short, and a compressed one would dodge MaxBody
	}
	h := &HTTP{client: &http.Client{Transport: tr, CheckRedirect: noRedirect}}
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" {
			return bad("engine URL %s names no host", u.Redacted())
		}
		tr.Proxy = http.ProxyFromEnvironment // an operator named this URL, no task did
		tr.ForceAttemptHTTP2 = true
		u.RawQuery, u.Fragment = "", ""
		u.Path = strings.TrimRight(u.Path, "/")
		if u.Path == "" {
			u.Path = "/v1"
		}
		h.base = u.String()
		h.root = versionPath.ReplaceAllString(h.base, "")
		if o.Name == "" {
			o.Name = u.Host
		}
	case "unix":
		path := u.Path
		if path == "" || u.Host != "" {
			return bad("engine URL %s: a socket needs three slashes and an absolute path", o.URL)
		}
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix", path) }
		tr.IdleConnTimeout = time.Minute // glm-worker closes them after two
		h.root, h.base = "http://localhost", "http://localhost/v1"
		if o.Name == "" {
			o.Name = path[strings.LastIndexByte(path, '/')+1:]
		}
	default:
		return bad("engine URL has scheme %q", u.Scheme)
	}
	if o.dial != nil {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return o.dial(ctx) }
	}
	h.o = o
	return h, nil
}

func setDefaults(o *HTTPOptions) {
	if o.Timeout == 0 {
		o.Timeout = HTTPTimeout
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = HTTPDialTimeout
	}
	if o.Concurrency == 0 {
		o.Concurrency = HTTPConcurrency
	}
	if o.MaxBody == 0 {
		o.MaxBody = HTTPMaxBody
	}
}

// noRedirect: following one would send prompt and API key to a host nobody configured.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Name returns the option's name, or host:port.
func (h *HTTP) Name() string { return h.o.Name }

// Close drops idle connections. Requests under way go on.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// Do sends one request, chat/completions unless it is a raw one, and waits for the whole answer. An Overloaded fault may
// carry a pause: see RetryAfterOf.
func (h *HTTP) Do(ctx context.Context, r *Request) (*Response, error) {
	if r.Raw != nil {
		return h.doRaw(ctx, r)
	}
	buf := getBuffer()
	defer putBuffer(buf)
	if err := encodeChat(buf, r); err != nil {
		return nil, fault.New(fault.Invalid, "infer.http", h.o.Name, "request of %s: %w", r.Key, err)
	}
	body := getBuffer()
	defer putBuffer(body)
	if err := h.call(ctx, http.MethodPost, h.base+"/chat/completions", r, buf.Bytes(), body); err != nil {
		return nil, err
	}
	return decodeChat(h.o.Name, r, body.Bytes())
}

// Health returns nil when the engine says it can serve: GET /health, or /v1/models where there
// is no /health. A worker that still loads its model answers 503: Overloaded.
func (h *HTTP) Health(ctx context.Context) error {
	body := getBuffer()
	defer putBuffer(body)
	err := h.call(ctx, http.MethodGet, h.root+"/health", nil, nil, body)
	if fault.KindOf(err) != fault.NotFound {
		return err
	}
	body.Reset()
	return h.call(ctx, http.MethodGet, h.base+"/models", nil, nil, body)
}

// Models returns the configured models, or asks the engine. The caller keeps the answer.
func (h *HTTP) Models(ctx context.Context) ([]string, error) {
	if len(h.o.Models) > 0 {
		return append([]string(nil), h.o.Models...), nil
	}
	body := getBuffer()
	defer putBuffer(body)
	if err := h.call(ctx, http.MethodGet, h.base+"/models", nil, nil, body); err != nil {
		return nil, err
	}
	return decodeModels(h.o.Name, body.Bytes())
}

// Known returns the configured models.
func (h *HTTP) Known() []string { return slices.Clone(h.o.Models) }

// TokenCounter is what an engine that can count exactly also implements. NotFound means that it
// turned out not to: estimate instead.
type TokenCounter interface {
	CountTokens(ctx context.Context, model string, ms []Message) (int, error)
}

// CountTokens asks /tokenize, in the words of vLLM, SGLang and glm-worker, or in llama-server's. It
// remembers which the engine understood; one that has no such path is not asked again, and the
// answer is NotFound at once.
func (h *HTTP) CountTokens(ctx context.Context, model string, ms []Message) (n int, err error) {
	for d := h.tokenize.Load(); d < noTokenize; d++ {
		n, err = h.countTokens(ctx, model, ms, d)
		switch fault.KindOf(err) {
		case fault.Invalid, fault.Malformed: // not its words
			continue
		case fault.NotFound:
			d = noTokenize
		}
		h.tokenize.Store(d)
		if d < noTokenize {
			return n, err
		}
	}
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return 0, err
	}
	return 0, fault.New(fault.NotFound, "infer.tokenize", h.o.Name, "the engine has no /tokenize")
}

func (h *HTTP) countTokens(ctx context.Context, model string, ms []Message, d int32) (int, error) {
	buf, body := getBuffer(), getBuffer()
	defer putBuffer(buf)
	defer putBuffer(body)
	if err := encodeTokenize(buf, model, ms, d); err != nil {
		return 0, fault.New(fault.Refused, "infer.tokenize", h.o.Name, "%w", err)
	}
	if err := h.call(ctx, http.MethodPost, h.root+"/tokenize", nil, buf.Bytes(), body); err != nil {
		return 0, err
	}
	return decodeTokenize(h.o.Name, body.Bytes())
}

// call sends one request and reads the whole answer into body, or returns the fault that status,
// transport and size say. r, when it is for a task, says whose it is.
func (h *HTTP) call(ctx context.Context, method, target string, r *Request, send []byte, body *bytes.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(send))
	if err != nil {
		return fault.New(fault.Invalid, "infer.http", h.o.Name, "%w", err)
	}
	if method == http.MethodPost {
		req.Header["Content-Type"] = jsonType
	}
	if h.o.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+h.o.APIKey)
	}
	if r != nil && r.Key != "" {
		req.Header.Set("X-Request-Id", headerSafe(r.Key))
	}
	if r != nil && r.Trace != "" {
		req.Header.Set(trace.Header, r.Trace)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return h.transportFault(ctx, err)
	}
	defer resp.Body.Close()
	n, err := body.ReadFrom(io.LimitReader(resp.Body, h.o.MaxBody+1))
	if err != nil {
		return h.transportFault(ctx, err)
	}
	if n > h.o.MaxBody {
		return fault.New(fault.Malformed, "infer.http", h.o.Name, "the answer has more than max_body = %d bytes", h.o.MaxBody)
	}
	if resp.StatusCode != http.StatusOK {
		return &answered{resp.StatusCode, statusFault(h.o.Name, resp, body.Bytes(), time.Now())}
	}
	return nil
}

var jsonType = []string{"application/json"}

// headerSafe drops what a header cannot hold: a task id may be any text.
func headerSafe(s string) string {
	clean := func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}
	return strings.Map(clean, s)
}

// buffers are shared by all engines: at 400 requests a second the bodies are most of the garbage.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// bufferKeep is the largest buffer worth keeping; one long answer must not pin its memory.
const bufferKeep = 256 << 10

func getBuffer() *bytes.Buffer {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	return b
}

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= bufferKeep {
		buffers.Put(b)
	}
}

// String tells where the engine is, without its key or a password.
func (h *HTTP) String() string {
	u, err := url.Parse(h.base)
	if err != nil {
		return h.o.Name
	}
	return fmt.Sprintf("%s at %s", h.o.Name, u.Redacted())
}
