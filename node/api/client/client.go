package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
)

// Client is safe for any number of goroutines.
type Client struct {
	base    string
	http    *http.Client
	retry   time.Duration // how long calls are repeated without any success
	patient bool          // also before the node was reached for the first time
	reached atomic.Bool   // it answered once
}

// Option changes a Client.
type Option func(*Client)

// WithRetry sets how long a call is repeated while the node is busy or away: 30 s by
// default, 0 for one try.
func WithRetry(d time.Duration) Option { return func(c *Client) { c.retry = d } }

// WithPatience also waits for a node that was never reached. Without it a connection that
// is refused the first time is an error at once: most likely nothing runs there.
func WithPatience() Option { return func(c *Client) { c.patient = true } }

// WithHTTPClient replaces the HTTP client. It must have no overall time-out: streams last.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New makes a client of the node at server, like "http://127.0.0.1:8080"; nothing is
// called yet.
func New(server string, opts ...Option) (*Client, error) {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.New(fault.Invalid, "client.new", server, "is no server address").WithRemedy("write it like http://127.0.0.1:8080")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	c := &Client{base: strings.TrimRight(server, "/"), http: &http.Client{Transport: t}, retry: 30 * time.Second}
	for _, opt := range opts {
		opt(c)
	}
	return c, nil
}

// Server returns the address.
func (c *Client) Server() string { return c.base }

// call makes a short request, repeated while that may help; body is sent as JSON unless
// nil, and a good answer is decoded into out unless nil.
func (c *Client) call(ctx context.Context, op, method, path string, body, out any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return fault.New(fault.Invalid, op, "", "%w", err)
		}
	}
	return c.repeat(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, callMax+waitOf(path))
		defer cancel()
		var rd io.Reader
		if raw != nil {
			rd = bytes.NewReader(raw)
		}
		resp, err := c.send(ctx, op, method, path, "application/json", rd)
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
func (c *Client) send(ctx context.Context, op, method, path, contentType string, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fault.New(fault.Invalid, op, path, "%w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "autoglm")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.away(ctx, op, err)
	}
	c.reached.Store(true)
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(op, resp)
}

// away classes an error of the connection.
func (c *Client) away(ctx context.Context, op string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, which is in Key
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &fault.Error{Op: op, Key: c.base, Kind: fault.Timeout, Err: err}
	}
	f := &fault.Error{Op: op, Key: c.base, Kind: fault.Unavailable, Err: err}
	if errors.Is(err, syscall.ECONNREFUSED) {
		f.Remedy = "no node listens there: start one with: autoglm serve"
	}
	return f
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
	}
	if sec, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && sec > 0 {
		p.RetryAfter = time.Duration(sec) * time.Second
	}
	return &fault.Error{Op: op, Kind: wire.KindNamed(p.Kind), Err: p}
}

// repeat calls f until it succeeds, fails for good, or has been failing for c.retry.
func (c *Client) repeat(ctx context.Context, f func() error) error {
	b := c.newBackoff()
	for {
		err := f()
		if err == nil || !b.wait(ctx, err) {
			return err
		}
	}
}

// backoff spaces tries: doubling, with jitter, and as long as the server asks for.
type backoff struct {
	c     *Client
	next  time.Duration
	until time.Time
}

func (c *Client) newBackoff() *backoff {
	return &backoff{c: c, next: retryFirst, until: time.Now().Add(c.retry)}
}

// progress starts over: the node answers.
func (b *backoff) progress() { *b = *b.c.newBackoff() }

// wait sleeps before another try; false when there should be none.
func (b *backoff) wait(ctx context.Context, err error) bool {
	if !b.worth(err) || ctx.Err() != nil {
		return false
	}
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, retryMax)
	var p *wire.Problem
	if errors.As(err, &p) {
		d = max(d, p.RetryAfter)
	}
	if time.Now().Add(d).After(b.until) {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *backoff) worth(err error) bool {
	if errors.Is(err, syscall.ECONNREFUSED) && !b.c.patient && !b.c.reached.Load() {
		return false
	}
	kind := fault.KindOf(err)
	return kind.Retryable() && kind != fault.NoSpace // a full disk needs a person
}
