package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/node/api/openai"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	lastCall  = 20 * time.Millisecond  // of accepting, at a stop: what the kernel has completed and nobody accepted is reset when the port closes
	sweepMax  = 500 * time.Millisecond // of accepting more, while they keep coming
	sweepWait = time.Millisecond       // without a new one: the port closes now
	firstWord = time.Second            // that a connection may take for its first request when the port has closed
)

// Front is the port, from the start of the process to its end:
//
//	starting   /healthz 200; /readyz and all else 503, with what is waited for
//	open       the API
//	closing    /readyz 503, all else goes on, and each answer says Connection: close; for StopGrace, or until nobody is connected
//	closed     no new connection; streams end, what else is under way may
type Front struct {
	grace   time.Duration
	waiting func() string // what a node that starts waits for
	http    *http.Server
	api     atomic.Pointer[http.Handler] // nil while starting

	leaving   chan struct{} // closed when the node begins to stop
	closing   chan struct{} // closed with the port: streams end
	closeOnce sync.Once

	mu    sync.Mutex
	l     *closingListener // nil before Serve
	conns map[net.Conn]http.ConnState
	moved chan struct{} // holds one: a connection changed its state
}

// NewFront makes a port that is not listening yet; secure nil: without TLS. waiting says what the node waits for until Open.
func NewFront(lim Limits, log *slog.Logger, secure *tls.Config, waiting func() string) *Front {
	f := &Front{grace: lim.StopGrace, waiting: waiting, leaving: make(chan struct{}), closing: make(chan struct{}), conns: map[net.Conn]http.ConnState{}, moved: make(chan struct{}, 1)}
	f.http = &http.Server{
		Handler:           f,
		ReadHeaderTimeout: lim.ReadTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		TLSConfig:         secure,
		ConnState:         f.connected,
	}
	f.http.Protocols.SetHTTP1(true)
	f.http.Protocols.SetHTTP2(secure != nil)
	f.http.Protocols.SetUnencryptedHTTP2(secure == nil) // gRPC clients on loopback, and behind a proxy that ends TLS
	return f
}

// Open serves the API from now on.
func (f *Front) Open(api http.Handler) { f.api.Store(&api) }

// ServeHTTP answers for the API, or until there is one.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if api := f.api.Load(); api != nil {
		(*api).ServeHTTP(&lastWord{ResponseWriter: w, leaving: f.leaving}, r)
		return
	}
	f.starting(w, r)
}

// starting answers before there is an API.
func (f *Front) starting(w http.ResponseWriter, r *http.Request) {
	h, reason := w.Header(), f.waiting()
	h.Set("Connection", "close") // for HTTP/2, whose connections last, as well: each look may go to another node
	switch r.URL.Path {
	case "/healthz":
		h.Set("Content-Type", "application/json")
		writeJSON(w, wire.Health{Status: "ok"})
	case "/readyz":
		h.Set("Content-Type", "application/json")
		h.Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		writeJSON(w, wire.Health{Status: wire.HealthStarting, Reason: reason})
	default:
		p := wire.ProblemOf(fault.New(fault.Unavailable, "api.start", "", "the node is starting: %s", reason).
			WithRemedy("it answers by itself once that is there; /readyz and the node's log tell how far it is"))
		p.RequestID = uuid.Must(uuid.NewV7()).String()
		h.Set("X-Request-Id", p.RequestID)
		if openai.Owns(r.URL.Path) {
			openai.WriteError(w, r, p)
			return
		}
		for k, v := range p.GetHeaders() {
			h[k] = v
		}
		h.Set("Content-Type", wire.ProblemType)
		w.WriteHeader(p.Status)
		writeJSON(w, p)
	}
}

// Serve answers requests on l until Shutdown, and then returns nil.
func (f *Front) Serve(l net.Listener) error {
	cl := &closingListener{Listener: l, closed: make(chan struct{})}
	f.mu.Lock()
	f.l = cl
	f.mu.Unlock()
	var err error
	if f.http.TLSConfig != nil {
		err = f.http.ServeTLS(cl, "", "")
	} else {
		err = f.http.Serve(cl)
	}
	select {
	case <-f.leaving:
		return nil
	default:
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("api.serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown says first that the node goes away, and goes on serving for StopGrace, unless nobody is connected: a client that
// sends its next request on a connection that is closed in the same moment gets a reset, and cannot know whether it counted. Then
// it stops listening, and waits for requests under way until ctx ends; then it cuts them off. It is safe to call twice.
func (f *Front) Shutdown(ctx context.Context) error {
	f.closeOnce.Do(func() {
		close(f.leaving)
		f.goodbye(ctx)
		close(f.closing)
		f.listenOut(ctx)
	})
	if err := f.http.Shutdown(ctx); err != nil {
		if cerr := f.http.Close(); cerr != nil {
			return fmt.Errorf("api.shutdown: %w, %w", err, cerr)
		}
		return fmt.Errorf("api.shutdown: requests were cut off: %w", err)
	}
	return nil
}

// goodbye returns when the port has closed.
func (f *Front) goodbye(ctx context.Context) {
	f.mu.Lock()
	l := f.l
	f.mu.Unlock()
	if l == nil {
		return
	}
	grace, cancel := context.WithTimeout(ctx, f.grace)
	defer cancel()
	f.until(grace, func(all map[net.Conn]http.ConnState) bool { return len(all) == 0 })
	l.lastCall()
	<-l.closed
}

// listenOut returns when no connection waits for its first answer: net/http drops a request that it reads after its Shutdown began.
func (f *Front) listenOut(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstWord)
	defer cancel()
	f.until(ctx, func(all map[net.Conn]http.ConnState) bool {
		for _, s := range all {
			if s == http.StateNew {
				return false
			}
		}
		return true
	})
}

// until returns when the connections are as asked, or ctx ends.
func (f *Front) until(ctx context.Context, ok func(map[net.Conn]http.ConnState) bool) {
	for {
		f.mu.Lock()
		done := ok(f.conns)
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-f.moved:
		case <-ctx.Done():
			return
		}
	}
}

// connected keeps count of the connections.
func (f *Front) connected(c net.Conn, s http.ConnState) {
	f.mu.Lock()
	if s == http.StateClosed || s == http.StateHijacked {
		delete(f.conns, c)
	} else {
		f.conns[c] = s
	}
	f.mu.Unlock()
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

// closingListener is closed by the goroutine that accepts, after it took all that came: from anywhere else, a connection that
// the kernel has completed in the meantime would be reset.
type closingListener struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
	over   atomic.Int64 // end of the sweep, Unix nanoseconds
}

// Accept returns net.ErrClosed after the last call, once nobody comes any more.
func (l *closingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().UnixNano() < l.over.Load() && l.setDeadline(sweepWait) {
		c, err = l.Listener.Accept() // a deadline that is over fails without a look at who came meanwhile
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = l.Close() // it was open
		err = net.ErrClosed
	}
	return c, err
}

// Close may be called twice.
func (l *closingListener) Close() (err error) {
	l.once.Do(func() {
		err = l.Listener.Close()
		close(l.closed)
	})
	return err
}

// lastCall makes Accept close the port in a moment.
func (l *closingListener) lastCall() {
	l.over.Store(time.Now().Add(sweepMax).UnixNano())
	if !l.setDeadline(lastCall) {
		_ = l.Close()
	}
}

func (l *closingListener) setDeadline(d time.Duration) bool {
	t, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && t.SetDeadline(time.Now().Add(d)) == nil
}

// lastWord tells the client, once the node is closing, to send nothing more on this connection; also with an answer whose request
// came before.
type lastWord struct {
	http.ResponseWriter
	leaving <-chan struct{}
	said    bool
}

func (w *lastWord) say() {
	if w.said {
		return
	}
	w.said = true
	select {
	case <-w.leaving:
		w.Header().Set("Connection", "close")
	default:
	}
}

// WriteHeader sends the header.
func (w *lastWord) WriteHeader(status int) {
	if status >= 200 {
		w.say()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a piece of the body.
func (w *lastWord) Write(b []byte) (int, error) {
	w.say()
	return w.ResponseWriter.Write(b)
}

// FlushError sends what was written.
func (w *lastWord) FlushError() error {
	w.say()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is FlushError for those who know only http.Flusher.
func (w *lastWord) Flush() { _ = w.FlushError() }

// Unwrap lets http.ResponseController reach the connection.
func (w *lastWord) Unwrap() http.ResponseWriter { return w.ResponseWriter }
