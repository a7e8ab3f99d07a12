package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/open-autoglm/autoglm/actors/gate"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/node/api/openai"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Server serves a Service over HTTP.
type Server struct {
	svc     Service
	lim     Limits
	log     *slog.Logger
	reg     prometheus.Registerer // may be nil
	metrics http.Handler          // serves /metrics; may be nil
	hosts   []string              // names that a Host header may have besides local ones
	version string
	actors  *gate.Gate // may be nil
	openai  openai.Deps
	access  Access

	attempts  *attempts
	sinks     Sinks     // may be nil
	schedules Schedules // may be nil
	quotas    Quotas    // may be nil
	engines   Engines   // may be nil
	refusal   *connect.ErrorWriter

	handler http.Handler
	openapi []byte // served at /openapi.json
	docs    []byte // served at /docs
	front   *Front
	streams chan struct{} // a token for each long request; cap is StreamsMax
	mu      sync.Mutex
	held    map[string]int  // tokens by tenant
	costly  map[string]int  // looks at much at once, by tenant
	closing <-chan struct{} // closed with the port: streams end
}

// Option changes a Server before it starts.
type Option func(*Server)

// WithLimits replaces DefaultLimits.
func WithLimits(l Limits) Option { return func(s *Server) { s.lim = l } }

// WithLogger replaces slog.Default.
func WithLogger(l *slog.Logger) Option { return func(s *Server) { s.log = l } }

// WithMetrics registers the HTTP metrics with reg and serves h at /metrics. Either may be nil.
func WithMetrics(reg prometheus.Registerer, h http.Handler) Option {
	return func(s *Server) { s.reg, s.metrics = reg, h }
}

// WithHosts allows more names in the Host header on loopback: those of a reverse proxy.
func WithHosts(names ...string) Option { return func(s *Server) { s.hosts = names } }

// WithVersion is shown in the OpenAPI document.
func WithVersion(v string) Option { return func(s *Server) { s.version = v } }

// WithActors serves ActorService: the persistent actors behind g.
func WithActors(g *gate.Gate) Option { return func(s *Server) { s.actors = g } }

// WithOpenAI serves OpenAI's API with the parts of d; limits and log are the server's.
func WithOpenAI(d openai.Deps) Option { return func(s *Server) { s.openai = d } }

// WithSinks serves /v1/sinks.
func WithSinks(x Sinks) Option { return func(s *Server) { s.sinks = x } }

// WithFront serves on a port that is open already: its Open takes this server's Handler, and its Serve and Shutdown are those of this
// server. Without it the server has one of its own.
func WithFront(f *Front) Option { return func(s *Server) { s.front = f } }

// New makes a server that is not listening yet; it fails on limits that cannot work and on
// metrics that are registered already.
func New(svc Service, opts ...Option) (*Server, error) {
	s := &Server{svc: svc, lim: DefaultLimits(), log: slog.Default(), version: "dev", refusal: connect.NewErrorWriter(), attempts: newAttempts()}
	for _, opt := range opts {
		opt(s)
	}
	if svc == nil {
		return nil, errors.New("api.new: the service is nil")
	}
	if err := s.lim.Validate(); err != nil {
		return nil, fmt.Errorf("api.new: %w", err)
	}
	s.streams, s.held = make(chan struct{}, s.lim.StreamsMax), map[string]int{}
	own := s.front == nil
	if own {
		s.front = NewFront(s.lim, s.log, nil, func() string { return "" })
	}
	s.closing = s.front.closing // before the routes: some wait for it
	mux := http.NewServeMux()
	if err := s.routes(mux); err != nil {
		return nil, fmt.Errorf("api.new: %w", err)
	}
	observed, err := s.observe(s.guard(s.limit(s.admit(mux))))
	if err != nil {
		return nil, fmt.Errorf("api.new: %w", err)
	}
	s.handler = observed
	if own {
		s.front.Open(s.handler)
	}
	return s, nil
}

// Handler returns the whole API for use without Serve, as tests do.
func (s *Server) Handler() http.Handler { return s.handler }

// OpenAPI returns the document served at /openapi.json.
func (s *Server) OpenAPI() []byte { return s.openapi }

// Serve answers requests on l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error { return s.front.Serve(l) }

// Shutdown tells streams to end, says goodbye, stops listening, and waits for requests under way; see Front.
func (s *Server) Shutdown(ctx context.Context) error { return s.front.Shutdown(ctx) }

// stream takes a token for a long request; release gives it back. Without one it has
// answered 429 and ok is false.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) (release func(), ok bool) {
	release, p := s.takeStream(r.Context())
	if p != nil {
		s.refuse(w, r, p)
		return nil, false
	}
	return release, true
}

// takeStream takes a token for the caller's tenant: of one that is not the operator's at most half, so that none shuts the others out.
func (s *Server) takeStream(ctx context.Context) (release func(), p *wire.Problem) {
	whose := tenant.From(ctx)
	share := s.lim.StreamsMax
	if whose != tenant.Default {
		share = max(1, share/2)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[whose] >= share {
		return nil, overloaded("http.streams_max", s.lim.StreamsMax)
	}
	select {
	case s.streams <- struct{}{}:
	default:
		return nil, overloaded("http.streams_max", s.lim.StreamsMax)
	}
	s.held[whose]++
	var once sync.Once
	return func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			<-s.streams
			if s.held[whose]--; s.held[whose] == 0 {
				delete(s.held, whose)
			}
		})
	}, nil
}

// problem describes err for a huma handler; huma writes it.
func (s *Server) problem(ctx context.Context, err error) error {
	p := *wire.ProblemOf(err)
	p.RequestID = requestID(ctx)
	p.Detail, p.Key = tenant.Plain(ctx, p.Detail), tenant.Plain(ctx, p.Key)
	if p.Status >= http.StatusInternalServerError {
		s.log.Warn("request failed", "request_id", p.RequestID, "trace_id", trace.From(ctx).ID(), "kind", p.Kind, "err", err)
	}
	return &p
}

// refuse writes err as a problem.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problem(r.Context(), err).(*wire.Problem)
	if openai.Owns(r.URL.Path) {
		openai.WriteError(w, r, p)
		return
	}
	if strings.HasPrefix(r.URL.Path, actorPath) && p.Status != http.StatusNotFound && s.refusal.IsSupported(r) {
		_ = s.refusal.Write(w, r, connectError(p)) // a client that went away is nobody to tell
		return
	}
	h := w.Header()
	for k, v := range p.GetHeaders() {
		h[k] = v
	}
	h.Set("Content-Type", wire.ProblemType)
	h.Del("Etag")
	w.WriteHeader(p.Status)
	writeJSON(w, p)
}

// init makes huma refuse in the one shape of the API. The hook is global in huma; nothing
// else in this program uses it.
func init() {
	huma.NewError = humaError
	huma.NewErrorWithContext = func(c huma.Context, status int, msg string, errs ...error) huma.StatusError {
		p := humaError(status, msg, errs...).(*wire.Problem)
		if c != nil {
			p.RequestID = requestID(c.Context())
		}
		return p
	}
}
