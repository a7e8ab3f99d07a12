package source

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// checkRedirect judges each hop's URL; its address is judged by the dialer.
func (f *Fetcher) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > max(0, f.o.RedirectsMax) {
		return fault.New(fault.Refused, "source.fetch", via[0].URL.Redacted(), "more than redirects_max = %d redirects", max(0, f.o.RedirectsMax))
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http" {
		return fault.New(fault.Refused, "source.fetch", via[0].URL.Redacted(), "https redirects to http")
	}
	return egress.CheckURL(req.URL, "source.fetch")
}

func (f *Fetcher) get(ctx context.Context, u *url.URL) (body, error) {
	if err := egress.CheckURL(u, "source.fetch"); err != nil {
		return body{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return body{}, fault.New(fault.Invalid, "source.fetch", u.Redacted(), "%w", err)
	}
	req.Header.Set("User-Agent", f.o.UserAgent)
	req.Header.Set("Accept", "text/csv, application/json, application/x-ndjson, text/*;q=0.9, */*;q=0.1")
	resp, err := f.client.Do(req)
	if err != nil {
		return body{}, f.sendFault(ctx, u, err)
	}
	defer resp.Body.Close()
	if err := statusFault(u, resp); err != nil {
		return body{}, err
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return body{}, fault.New(fault.Invalid, "source.fetch", u.Redacted(), "the data came with content encoding %q, and none was asked for", enc)
	}
	if resp.ContentLength > f.o.SizeMax {
		return body{}, f.readFault(ctx, u, errTooLarge)
	}
	var b body
	if ct := resp.Header.Get("Content-Type"); ct != "" {
		mt, params, err := mime.ParseMediaType(ct)
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
			return body{}, fault.New(fault.Invalid, "source.fetch", u.Redacted(), "content type %q: %w", ct, err)
		}
		b.mediaType, b.charset = mt, params["charset"]
	}
	if err := acceptable(b.mediaType); err != nil { // before a film is read to its end
		return body{}, fault.New(fault.Invalid, "source.fetch", u.Redacted(), "%w", err)
	}
	if b.bytes, err = readAll(ctx, resp.Body, f.o.SizeMax); err != nil {
		return body{}, f.readFault(ctx, u, err)
	}
	return b, nil
}

// sendFault classes what kept an answer from coming.
func (f *Fetcher) sendFault(ctx context.Context, u *url.URL, err error) error {
	var ours *fault.Error
	var ue *url.Error
	var ne net.Error
	switch {
	case errors.As(err, &ours):
		return ours // a redirect's
	case egress.Refused(err):
		return fault.New(fault.Refused, "source.fetch", u.Redacted(), "the address is not allowed: %w", innermost(err)).
			WithRemedy("if it is meant to be reached, allow its network on every node: source.allowed_nets")
	case errors.As(err, &ue):
		err = ue.Err
	}
	if ctx.Err() == context.DeadlineExceeded || (errors.As(err, &ne) && ne.Timeout()) {
		return fault.New(fault.Timeout, "source.fetch", u.Redacted(), "%w", err)
	}
	return fault.New(fault.Unavailable, "source.fetch", u.Redacted(), "%w", err)
}

// innermost drops the dialer's layers: they name an internal address several times.
func innermost(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// statusFault is nil for 200 alone: every other status comes without the data that was asked for.
func statusFault(u *url.URL, resp *http.Response) error {
	kind := fault.Unavailable
	switch s := resp.StatusCode; {
	case s == http.StatusOK:
		return nil
	case s == http.StatusNotFound || s == http.StatusGone:
		kind = fault.NotFound
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		kind = fault.Refused
	case s == http.StatusTooManyRequests:
		kind = fault.Overloaded
	case s == http.StatusRequestTimeout:
		kind = fault.Timeout
	case s < 500:
		kind = fault.Invalid
	}
	err := fault.New(kind, "source.fetch", u.Redacted(), "%w", fmt.Errorf("the server answered %s", resp.Status))
	return backoff.Asked(err, backoff.RetryAfter(resp.Header, time.Now()))
}
