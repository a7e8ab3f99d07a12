package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// requestIDMax bounds the X-Request-Id that a client may choose, in bytes.
const requestIDMax = 128

type requestIDKey struct{}

type remoteKey struct{}

// remote is the address that a request came from.
func remote(ctx context.Context) string {
	addr, _ := ctx.Value(remoteKey{}).(string)
	return addr
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// traceOf is the client's trace, or a new one: without a valid header, or with several, it has none.
func traceOf(h http.Header) trace.Parent {
	if v := h[trace.Header]; len(v) == 1 {
		if p := trace.Parse(v[0]); p != "" {
			return p
		}
	}
	return trace.New()
}

// observe gives each request an id and a trace, counts and logs it, and turns a panic into a 500.
func (s *Server) observe(next http.Handler) (http.Handler, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "autoglm_http_requests_total", Help: "HTTP requests by route, method and status."},
		[]string{"route", "method", "code"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "autoglm_http_request_duration_seconds", Help: "Time to answer an HTTP request, streams to their end.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}},
		[]string{"route", "method"})
	inFlight := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "autoglm_http_requests_in_flight", Help: "HTTP requests being served, streams among them."})
	if s.reg != nil {
		for _, c := range []prometheus.Collector{requests, seconds, inFlight} {
			if err := s.reg.Register(c); err != nil {
				return nil, fmt.Errorf("register HTTP metrics: %w", err)
			}
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		id := r.Header.Get("X-Request-Id")
		if !plausibleID(id) {
			id = uuid.Must(uuid.NewV7()).String()
		}
		w.Header().Set("X-Request-Id", id)
		rec := &recorder{ResponseWriter: w}
		parent := traceOf(r.Header)
		ctx := context.WithValue(context.WithValue(r.Context(), requestIDKey{}, id), remoteKey{}, r.RemoteAddr)
		r = r.WithContext(trace.With(ctx, parent))
		inFlight.Inc()
		defer func() {
			inFlight.Dec()
			cause := recover()
			if cause != nil && cause != http.ErrAbortHandler {
				s.log.Error("request panicked", "request_id", id, "trace_id", parent.ID(), "method", r.Method, "path", r.URL.Path,
					"panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
				if rec.status == 0 {
					s.refuse(rec, r, fault.New(fault.Unknown, "api.serve", "", "internal error: the log has request %s", id))
					cause = nil
				} else {
					cause = http.ErrAbortHandler // the client sees a cut answer, not one that looks whole
				}
			}
			route := routeOf(r)
			method := methodOf(r.Method)
			took := time.Since(begun)
			requests.WithLabelValues(route, method, strconv.Itoa(rec.code())).Inc()
			seconds.WithLabelValues(route, method).Observe(took.Seconds())
			if s.log.Enabled(r.Context(), slog.LevelDebug) {
				s.log.Debug("request", "request_id", id, "trace_id", parent.ID(), "method", r.Method, "path", r.URL.Path, "status", rec.code(),
					"bytes", rec.bytes, "took", took, "remote", r.RemoteAddr)
			}
			if cause != nil {
				panic(cause)
			}
		}()
		next.ServeHTTP(rec, r)
	}), nil
}

// routeOf returns the path of the pattern that the mux matched, so that ids and unknown
// paths make no new time series.
func routeOf(r *http.Request) string {
	_, path, ok := strings.Cut(r.Pattern, " ")
	if !ok || path == "/" {
		return "other"
	}
	return path
}

func methodOf(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

func plausibleID(id string) bool {
	if id == "" || len(id) > requestIDMax {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader notes the first final status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write counts bytes.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
