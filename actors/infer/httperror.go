package infer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// RetryAfterOf returns the pause that the engine asked for, 0 when it asked for none, and never
// more than backoff.RetryAfterMax.
func RetryAfterOf(err error) time.Duration { return backoff.AskedBy(err) }

// statusKind is the policy for a status other than 200; context length is looked at before it.
func statusKind(status int) fault.Kind {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fault.Overloaded
	case http.StatusRequestTimeout:
		return fault.Timeout
	case http.StatusRequestEntityTooLarge:
		return fault.TooLarge
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Refused
	case http.StatusNotFound:
		return fault.NotFound
	}
	if status >= 400 && status < 500 {
		return fault.Invalid
	}
	return fault.Unavailable // 5xx, and what no engine should send
}

// tooLong are the words by which engines that send no code say that a prompt does not fit.
var tooLong = []string{"context_length_exceeded", "exceed_context_size", "maximum context length", "context length", "context window"}

func statusFault(name string, resp *http.Response, body []byte, now time.Time) error {
	e := decodeError(body)
	kind := statusKind(resp.StatusCode)
	if kind == fault.Invalid && e.isTooLong() {
		kind = fault.TooLarge
	}
	msg := e.message
	if msg == "" {
		msg = "no message"
	}
	err := fault.New(kind, "infer.http", name, "the engine answered %d: %s", resp.StatusCode, msg)
	switch {
	case kind == fault.Refused:
		err = err.WithRemedy("check the engine's API key")
	case kind == fault.NotFound:
		err = err.WithRemedy("check the model's name and the engine's URL")
	case kind == fault.TooLarge:
		err = err.WithRemedy("shorten the prompt or its data, or use a model with a longer context")
	case resp.StatusCode/100 == 3:
		err = err.WithRemedy("redirects are not followed: give the engine's final URL (%s)", cut(resp.Header.Get("Location")))
	}
	if kind == fault.Overloaded {
		return backoff.Asked(err, backoff.RetryAfter(resp.Header, now))
	}
	return err
}

// errorInAnswer is for an error object that came with status 200.
func errorInAnswer(name string, body []byte) error {
	e := decodeError(body)
	kind := fault.Unavailable
	if e.isTooLong() {
		kind = fault.TooLarge
	}
	return fault.New(kind, "infer.http", name, "the engine answered 200 with an error: %s", e.message)
}

func (e engineError) isTooLong() bool {
	all := strings.ToLower(e.code + " " + e.message)
	for _, words := range tooLong {
		if strings.Contains(all, words) {
			return true
		}
	}
	return false
}

// transportFault classes what happened below HTTP. The outcome of the request is unknown.
func (h *HTTP) transportFault(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the URL; the engine's name says enough
	}
	if cause := ctx.Err(); cause != nil {
		return ctxFault(cause, "infer.http", h.o.Name)
	}
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &ne) && ne.Timeout()) {
		return fault.New(fault.Timeout, "infer.http", h.o.Name, "%w", err)
	}
	f := fault.New(fault.Unavailable, "infer.http", h.o.Name, "%w", err)
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns):
		f = f.WithRemedy("check the host name in the engine's URL")
	case errors.As(err, &cert):
		f = f.WithRemedy("check the engine's certificate, or trust its issuer on this machine")
	}
	return f
}
