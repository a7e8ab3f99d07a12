package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a client.
const (
	answerMax  = 256 << 20 // bytes of one JSON answer
	retryFirst = 100 * time.Millisecond
	retryMax   = 5 * time.Second
	callMax    = time.Minute // one try of a short call
	dialMax    = 5 * time.Second
)

// Client is safe for any number of goroutines.
type Client struct {
	servers servers
	http    *http.Client
	key     string // shown with every request; "": none
	trust   *x509.CertPool
	tenant  string        // whose sinks; "": the caller's own
	retry   time.Duration // how long calls are repeated without any success
	patient bool          // also before the node was reached for the first time
	reached atomic.Bool   // it answered once
}

// Option changes a Client.
type Option func(*Client)

// WithRetry sets how long a call is repeated while the nodes are busy or away: 30 s by
// default, 0 for one try of each. A short call has ended by then, a stream goes on as long
// as it makes progress.
func WithRetry(d time.Duration) Option { return func(c *Client) { c.retry = d } }

// WithPatience also waits for a node that was never reached. Without it a connection that
// is refused the first time, or a host that there is not, is an error at once: most likely nothing runs there.
func WithPatience() Option { return func(c *Client) { c.patient = true } }

// WithAPIKey shows a key with every request.
func WithAPIKey(key string) Option { return func(c *Client) { c.key = key } }

// WithTenant makes calls about sinks ones about a tenant's, as the operator may.
func WithTenant(name string) Option { return func(c *Client) { c.tenant = name } }

// WithTrust replaces the authorities that https servers may be certified by: a cluster has one of its own.
func WithTrust(pool *x509.CertPool) Option { return func(c *Client) { c.trust = pool } }

// WithHTTPClient replaces the HTTP client. It must have no overall time-out: streams last.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New makes a client of the node at server, like "http://127.0.0.1:8080", or of a cluster:
// several of its nodes, separated by commas, are asked one after the other when they fail.
// Nothing is called yet.
func New(server string, opts ...Option) (*Client, error) {
	bases, err := parseServers(server)
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.DialContext = (&net.Dialer{Timeout: dialMax, KeepAlive: 30 * time.Second}).DialContext
	c := &Client{servers: servers{bases: bases}, http: &http.Client{Transport: t, CheckRedirect: stay}, retry: 30 * time.Second}
	for _, opt := range opts {
		opt(c)
	}
	if c.trust != nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.trust}
	}
	return c, nil
}

// stay follows no redirect: a node sends none, and whoever does would get the key.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Server returns the address of the node that is asked now.
func (c *Client) Server() string { return c.servers.current() }

// call makes a short request, repeated while that may help; body is sent as JSON unless
// nil, and a good answer is decoded into out unless nil.
func (c *Client) call(ctx context.Context, op, method, path string, body, out any) error {
	return c.ask(ctx, op, method, path, waitOf(path), body, out)
}

// ask is call for what a node may take extra time for, or what wants headers: names and values in turn.
func (c *Client) ask(ctx context.Context, op, method, path string, extra time.Duration, body, out any, headers ...string) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return fault.New(fault.Invalid, op, "", "%w", err)
		}
	}
	return c.repeat(ctx, extra, func(ctx context.Context, base string) error {
		var rd io.Reader
		if raw != nil {
			rd = bytes.NewReader(raw)
		}
		resp, err := c.send(ctx, base, op, method, path, "application/json", rd, headers...)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if out == nil {
			return nil
		}
		if err := json.NewDecoder(io.LimitReader(resp.Body, answerMax)).Decode(out); err != nil {
			return fault.New(fault.Unavailable, op, "", "the answer could not be read: %w", err)
		}
		return nil
	})
}

// waitOf gives a long poll its time on top.
func waitOf(path string) time.Duration {
	u, err := url.Parse(path)
	if err != nil {
		return 0
	}
	d, _ := time.ParseDuration(u.Query().Get("wait")) // 0 when there is none
	return d
}

// send makes one request. A status of 400 and more is an error, with the body closed.
func (c *Client) send(ctx context.Context, base, op, method, path, contentType string, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, path, "%w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "autoglm")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, away(ctx, base, op, err)
	}
	c.reached.Store(true)
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return nil, fault.New(fault.Refused, op, base, "the server sends to %s instead of answering", resp.Header.Get("Location")).WithRemedy("name the node itself, or the address behind the redirect")
	}
	return nil, refusal(op, resp)
}

// away classes an error of the connection to base.
func away(ctx context.Context, base, op string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, which is in Key
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
			err = cause // says how long it was
		}
		return &fault.Error{Op: op, Key: base, Kind: fault.Timeout, Err: err}
	}
	if cause, ok := errors.AsType[*fault.Error](context.Cause(ctx)); ok && cause.Kind == fault.Timeout { // see patience
		return &fault.Error{Op: op, Key: base, Kind: fault.Timeout, Err: cause.Err}
	}
	f := &fault.Error{Op: op, Key: base, Kind: fault.Unavailable, Err: err}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		f.Kind, f.Remedy = fault.Refused, "trust the cluster's authority: --ca-file or AUTOGLM_CA_FILE names the ca.crt that autoglm init made"
	case errors.As(err, &name):
		f.Kind, f.Remedy = fault.Refused, "use a name that is in the certificate; autoglm init --api-names puts more into it"
	case noHost(err):
		f.Remedy = "check the address after --server or in AUTOGLM_SERVER"
	case errors.As(err, new(tls.RecordHeaderError)) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		f.Kind, f.Remedy = fault.Refused, "that server speaks plain HTTP: write http:// before its address"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Remedy = "no node listens there: start one with: autoglm serve"
	}
	return f
}

// noHost tells whether the name has no address; a resolver that is away for now is something else.
func noHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound && !dns.IsTemporary
}

// refusal reads a problem, or makes one of whatever a proxy said.
func refusal(op string, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	p := &wire.Problem{}
	if json.Unmarshal(b, p) != nil || p.Kind == "" {
		text := strings.TrimSpace(string(b[:min(len(b), 200)]))
		var of struct { // the routes of OpenAI's API refuse in its own words
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if json.Unmarshal(b, &of) == nil && of.Error.Message != "" {
			text = of.Error.Message
		}
		p = wire.NewProblem(resp.StatusCode, wire.KindOfStatus(resp.StatusCode), "", fmt.Sprintf("%s: %s", resp.Status, text))
		if strings.Contains(text, "HTTP request to an HTTPS server") {
			p = p.With("", "write https:// before its address")
		}
	}
	if sec, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && sec > 0 {
		p.RetryAfter = time.Duration(sec) * time.Second
	}
	return &fault.Error{Op: op, Kind: wire.KindNamed(p.Kind), Err: p}
}
