package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/chat"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// Model is a loaded model with all that serving it takes.
type Model struct {
	Name       string
	Engine     *engine.Engine
	Chat       *chat.Template
	NewGrammar func(gbnf string) (engine.Matcher, error)
	Loaded     time.Time

	once    sync.Once
	longest int // bytes of the vocabulary's longest piece
}

// Limits bound what clients may do. The zero value of each field means its default.
type Limits struct {
	BodyBytes int64         // of a request; 2 MiB
	Read      time.Duration // for a client to send a whole request; 30 s
	Write     time.Duration // for a client to take the next piece of an answer; 30 s
}

// Server answers HTTP requests. It exists before its model does and says "loading" meanwhile.
type Server struct {
	limits   Limits
	model    atomic.Pointer[Model]
	draining atomic.Bool
	schemas  schemas
	metrics  *metrics
	handler  http.Handler
}

// NewServer makes a server without a model.
func NewServer(limits Limits) *Server {
	if limits.BodyBytes <= 0 {
		limits.BodyBytes = 2 << 20
	}
	if limits.Read <= 0 {
		limits.Read = 30 * time.Second
	}
	if limits.Write <= 0 {
		limits.Write = 30 * time.Second
	}
	s := &Server{limits: limits}
	s.metrics = newMetrics(s)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health)
	mux.Handle("GET /metrics", s.metrics.handler())
	mux.Handle("GET /v1/models", s.route("models", s.models))
	mux.Handle("POST /v1/chat/completions", s.route("chat", s.chat))
	mux.Handle("POST /v1/completions", s.route("completions", s.completions))
	mux.Handle("POST /v1/embeddings", s.route("embeddings", s.embeddings))
	mux.Handle("POST /tokenize", s.route("tokenize", s.tokenize))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refused(http.StatusNotFound, "invalid_request_error", "unknown_url", "", "%s %s is not served here", r.Method, r.URL.Path).write(w)
	})
	s.handler = mux
	return s
}

// Ready hands the server its model.
func (s *Server) Ready(m *Model) { s.model.Store(m) }

// Drain makes the server refuse new requests.
func (s *Server) Drain() { s.draining.Store(true) }

// ServeHTTP implements http.Handler. Each write gets its time anew, so that an answer may take as long as it needs but
// nobody can hold a connection by not reading.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &answerWriter{ResponseWriter: w, control: http.NewResponseController(w), limit: s.limits.Write}
	s.handler.ServeHTTP(out, r)
	out.extend() // what is buffered goes out after this
}

// action answers one request. It may have begun to write when it returns an error only if it reports it itself.
type action func(m *Model, w http.ResponseWriter, r *http.Request) error

// route wraps what all routes share: model there, body bounded in size and time, faults in one form, everything counted.
func (s *Server) route(name string, act action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		seen := w.(*answerWriter)
		defer func() { s.metrics.served(name, seen.status, time.Since(began)) }()
		defer func() {
			if bug := recover(); bug != nil { // one bad request spares the others
				slog.Error("request panicked", "route", name, "panic", bug)
				if seen.status == 0 {
					refused(http.StatusInternalServerError, "server_error", "internal_error", "", "internal error").write(seen)
				}
			}
		}()
		m := s.model.Load()
		switch {
		case s.draining.Load():
			draining().write(seen)
			return
		case m == nil:
			loading().write(seen)
			return
		}
		_ = seen.control.SetReadDeadline(began.Add(s.limits.Read)) // recorders in tests have none
		r.Body = http.MaxBytesReader(w, r.Body, s.limits.BodyBytes)
		if err := act(m, seen, r); err != nil {
			f := faultOf(err)
			if f.status >= http.StatusInternalServerError && f.Code == "internal_error" {
				slog.Error("request failed", "route", name, "error", err)
			}
			f.write(seen)
		}
	})
}

// read decodes a body strictly: nothing unknown, nothing after it.
func (s *Server) read(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return badJSON(err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // it came in time; from now on the client may be quiet
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refused(http.StatusBadRequest, "invalid_request_error", "invalid_json", "", "there is something after the JSON object")
	}
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	m := s.model.Load()
	switch {
	case s.draining.Load():
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "draining"})
	case m == nil:
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "loading"})
	default:
		st := m.Engine.Stats()
		writeJSON(w, http.StatusOK, map[string]any{"status": "ok", "model": m.Name, "max_model_len": m.Engine.Context(),
			"slots": st.Slots, "running": st.Running, "waiting": st.Waiting})
	}
}

func (s *Server) models(m *Model, w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": m.Name, "object": "model", "created": m.Loaded.Unix(), "owned_by": "glm-worker", "max_model_len": m.Engine.Context(),
	}}})
	return nil
}

// tokenize counts tokens as vLLM does: of a text, or of a conversation with its template.
func (s *Server) tokenize(m *Model, w http.ResponseWriter, r *http.Request) error {
	var q tokenizeRequest
	if err := s.read(w, r, &q); err != nil {
		return err
	}
	if err := m.serves(q.Model); err != nil {
		return err
	}
	tokens := m.Chat.Text(q.Prompt)
	if q.Messages != nil {
		messages, err := turns(q.Messages)
		if err != nil {
			return err
		}
		if tokens, err = m.Chat.Encode(messages); err != nil {
			return invalid("messages", "%v", err)
		}
	}
	if tokens == nil {
		tokens = []int32{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"count": len(tokens), "max_model_len": m.Engine.Context(), "tokens": tokens})
	return nil
}

// serves checks the model that a request names; naming none is fine, as there is only one.
func (m *Model) serves(name string) error {
	if name != "" && name != m.Name {
		return unknownModel(name, m.Name)
	}
	return nil
}

// answerWriter remembers the status for the metrics and bounds the time of each write.
type answerWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration
	status  int
}

func (w *answerWriter) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.limit)) }

// WriteHeader implements http.ResponseWriter.
func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *answerWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.extend()
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
