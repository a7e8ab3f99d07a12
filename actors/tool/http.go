package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	redirectsMax = 5
	saidMax      = 300 // bytes that are shown of what a server said in an error
	userAgent    = "autoglm"
)

// HTTPName names the engine of HTTP tools.
const HTTPName = "tools-http"

// KeyHeader carries the same value at each attempt of a step, so that the far side can know that it did it already.
const KeyHeader = "Idempotency-Key"

// HTTP makes the requests of steps. It is safe for many goroutines.
type HTTP struct {
	client *http.Client
	tr     *http.Transport
}

// NewHTTP reaches what the policy lets it. Close lets its idle connections go.
func NewHTTP(p egress.Policy) *HTTP {
	tr := p.Transport()
	return &HTTP{tr: tr, client: &http.Client{Transport: tr, CheckRedirect: checkRedirect}}
}

// Name is the same on every node.
func (h *HTTP) Name() string { return HTTPName }

// Models is one: whoever reaches one address reaches all.
func (h *HTTP) Models(context.Context) ([]string, error) { return []string{task.ToolHTTP}, nil }

// Close drops idle connections. Requests under way go on.
func (h *HTTP) Close() { h.tr.CloseIdleConnections() }

// Do makes one request; its answer's body is the output.
func (h *HTTP) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	c := r.Tool
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, refused(fault.Invalid, "http", "what its template made is no URL").WithRemedy("use urlquery for what is put into it")
	}
	if err := egress.CheckURL(u, "tool.http"); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, u.String(), bytes.NewReader(c.Input))
	if err != nil {
		return nil, refused(fault.Invalid, u.Host, "%w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	if len(c.Input) > 0 {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
		if c.InputJSON {
			req.Header.Set("Content-Type", "application/json")
		}
	}
	for k, v := range c.Headers {
		req.Header.Set(k, v)
	}
	req.Header.Set(KeyHeader, c.Key)
	if r.Trace != "" {
		req.Header.Set(trace.Header, r.Trace)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, sendFault(ctx, u, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, task.ToolOutputMax+1))
	if err != nil {
		return nil, sendFault(ctx, u, err)
	}
	if err := statusFault(c, u, resp, body); err != nil {
		return nil, err
	}
	if len(body) > task.ToolOutputMax {
		return nil, tooLong(u.Host)
	}
	if !utf8.Valid(body) {
		return nil, refused(fault.Invalid, u.Host, "the tool's answer is no UTF-8 text")
	}
	return &infer.Response{Text: string(body), FinishReason: "stop", Model: u.Host}, nil
}

// tooLong is final: it would be as long again.
func tooLong(who string) error {
	return refused(fault.TooLarge, who, "the tool's output has more than %d bytes, which is the limit", task.ToolOutputMax).WithRemedy("have the tool say less")
}

func refused(kind fault.Kind, key, format string, args ...any) *fault.Error {
	return fault.New(kind, "tool.run", key, format, args...)
}

// checkRedirect judges each hop's URL; its address is judged by the dialer. What the step sends in headers is for its own host only.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > redirectsMax:
		return refused(fault.Refused, first.URL.Host, "the tool redirects more than %d times", redirectsMax)
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http":
		return refused(fault.Refused, first.URL.Host, "the tool redirects from https to http")
	}
	if req.URL.Host != first.URL.Host {
		if req.Body != nil && req.Body != http.NoBody { // 307 and 308 send it again
			return refused(fault.Refused, first.URL.Host, "the tool redirects to another host, %s, which would get the body", req.URL.Host).WithRemedy("name that host in the step's url, if it is meant to get it")
		}
		req.Header.Del("Referer") // it has the whole URL, which an answer may have made
		for k := range first.Header {
			if !slices.Contains([]string{"User-Agent", "Content-Type", KeyHeader}, k) {
				req.Header.Del(k)
			}
		}
	}
	return egress.CheckURL(req.URL, "tool.http")
}

// sendFault classes what kept an answer from coming. Whether the tool has done its work nobody knows then.
func sendFault(ctx context.Context, u *url.URL, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f // a redirect's
	}
	var ue *url.Error
	var ne net.Error
	if egress.Refused(err) {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // the outer layers name an internal address
		}
		return refused(fault.Refused, u.Host, "the address is not allowed: %w", err).WithRemedy("if it is meant to be reached, allow its network on every node: tools.allowed_nets")
	}
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the URL, which an answer may have made
	}
	if ctx.Err() == context.DeadlineExceeded || errors.As(err, &ne) && ne.Timeout() {
		return refused(fault.Timeout, u.Host, "the tool did not answer in time")
	}
	return refused(fault.Unavailable, u.Host, "the tool cannot be asked: %w", err)
}

// statusFault is nil for 2xx alone.
func statusFault(c *task.Call, u *url.URL, resp *http.Response, body []byte) error {
	s := resp.StatusCode
	kind := fault.Unavailable // 5xx
	switch {
	case s >= 200 && s < 300:
		return nil
	case s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable:
		kind = fault.Overloaded
	case s == http.StatusRequestTimeout:
		kind = fault.Timeout
	case slices.Contains(c.RetryOn, s):
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		kind = fault.Refused
	case s == http.StatusNotFound || s == http.StatusGone:
		kind = fault.NotFound
	case s == http.StatusRequestEntityTooLarge:
		kind = fault.TooLarge
	case s < 500:
		kind = fault.Invalid
	}
	said := ""
	if t := strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), saidMax)]), "")); t != "" {
		said = ": " + t
	}
	err := refused(kind, u.Host, "%w", fmt.Errorf("the tool answered %d%s", s, said))
	if kind == fault.Overloaded {
		return backoff.Asked(err, backoff.RetryAfter(resp.Header, time.Now()))
	}
	return err
}
