package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// codes is what gRPC calls a fault's kind. Those that Unavailable names may pass by themselves.
var codes = map[fault.Kind]connect.Code{
	fault.Unknown:     connect.CodeInternal,
	fault.Invalid:     connect.CodeInvalidArgument,
	fault.NotFound:    connect.CodeNotFound,
	fault.Conflict:    connect.CodeFailedPrecondition,
	fault.Fenced:      connect.CodeUnavailable,
	fault.Unavailable: connect.CodeUnavailable,
	fault.Overloaded:  connect.CodeResourceExhausted,
	fault.NoSpace:     connect.CodeResourceExhausted,
	fault.TooLarge:    connect.CodeInvalidArgument,
	fault.Timeout:     connect.CodeDeadlineExceeded,
	fault.Corrupt:     connect.CodeDataLoss,
	fault.Refused:     connect.CodePermissionDenied,
	fault.Malformed:   connect.CodeUnavailable,
}

// actorError describes err to a client of ActorService.
func (s *Server) actorError(ctx context.Context, err error) *connect.Error {
	switch ctx.Err() {
	case context.Canceled:
		return connect.NewError(connect.CodeCanceled, err)
	case context.DeadlineExceeded:
		err = &fault.Error{Op: "api.actor", Kind: fault.Timeout, Err: err}
	}
	return connectError(s.problem(ctx, err).(*wire.Problem))
}

// connectError turns a problem into connect's form of it: the remedy is in the text for a person, all of it in a Fault for
// a program, and Retry-After where the same call may succeed later.
func connectError(p *wire.Problem) *connect.Error {
	code := codes[wire.KindNamed(p.Kind)]
	if p.Status == http.StatusUnauthorized {
		code = connect.CodeUnauthenticated
	}
	e := connect.NewError(code, errors.New(p.Error()))
	f := &actorv1.Fault{Kind: p.Kind, Key: p.Key, Remedy: p.Remedy}
	if p.RetryAfter > 0 {
		f.RetryAfter = durationpb.New(p.RetryAfter)
		for k, v := range p.GetHeaders() {
			e.Meta()[k] = v
		}
	}
	if d, err := connect.NewErrorDetail(f); err == nil { // a message of our own always has one
		e.AddDetail(d)
	}
	return e
}

// timed gives a request the time that it may take to arrive, and each piece of the answer the time to leave: connect knows
// no such limits.
func (s *Server) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(s.lim.ReadTimeout)) // a recorder in a test has none
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
		r.Body = &timedBody{ReadCloser: r.Body, rc: rc}
		next.ServeHTTP(&timedWriter{ResponseWriter: w, rc: rc, timeout: s.lim.WriteTimeout}, r)
	})
}

// timedBody takes the deadline off where the body ends: net/http reads on to see whether the client is there, and a
// deadline would end that, and with it a Watch.
type timedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

// Read is io.Reader's.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// timedWriter gives up on a client that does not take an answer.
type timedWriter struct {
	http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// Write is io.Writer's.
func (w *timedWriter) Write(b []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.timeout))
	defer func() { _ = w.rc.SetWriteDeadline(time.Time{}) }()
	return w.ResponseWriter.Write(b)
}

// Flush is http.Flusher's, which connect asks for.
func (w *timedWriter) Flush() {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.timeout))
	defer func() { _ = w.rc.SetWriteDeadline(time.Time{}) }()
	_ = w.rc.Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
