package openai

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/ndjson"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Deps is what the routes stand on. A nil part has no routes.
type Deps struct {
	Completions Completions
	Files       Files // and uploads
	Batches     Batches

	Log          *slog.Logger
	BodyMax      int64         // bytes of a JSON body
	ReadTimeout  time.Duration // of a JSON body
	StreamIdle   time.Duration // a file that is sent is given up when nothing comes for so long
	WriteTimeout time.Duration // for a client to take an answer, or one piece of a file
	Started      time.Time     // of the node

	Hold    func(ctx context.Context) (release func(), err error) // takes a token for a request that waits; nil: there is no limit
	Closing <-chan struct{}                                       // closed when the server stops: what waits ends; nil: never
}

// server has the handlers; its nouns' are in files of their own.
type server struct{ Deps }

// Routes adds the routes of the parts that are there.
func Routes(mux *http.ServeMux, d Deps) {
	s := &server{d}
	if d.Completions != nil {
		s.completionRoutes(mux)
	}
	if d.Files != nil {
		s.fileRoutes(mux)
		s.uploadRoutes(mux)
	}
	if d.Batches != nil {
		s.batchRoutes(mux)
	}
}

// others are the paths below /v1 that are no part of OpenAI's API.
var others = []string{"tasks", "results", "status", "cluster", "admin", "keys", "whoami", "audit", "sinks", "dead", "schedules", "quotas", "engines"}

// Owns tells whether a path is one of OpenAI's API, also one that is not served here: its clients know only its errors.
func Owns(path string) bool {
	rest, ok := strings.CutPrefix(path, "/v1/")
	noun, _, _ := strings.Cut(rest, "/")
	return ok && !slices.Contains(others, noun)
}

// fail answers with err; what is the node's own trouble is logged, too. What is not there is what the path named.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := *ErrorOf(err)
	e.Message = tenant.Plain(r.Context(), e.Message)
	if e.Status == http.StatusNotFound && e.Param == nil && r.PathValue("id") != "" {
		e.Param = some("id")
	}
	if e.Status >= http.StatusInternalServerError && s.Log != nil && r.Context().Err() == nil {
		s.Log.Warn("request failed", "request_id", w.Header().Get("X-Request-Id"), "path", r.URL.Path, "err", err)
	}
	WriteError(w, r, &e)
}

// readJSON reads all of a JSON body in the time and size that it may take. Its Content-Type is not looked at: what is no
// JSON is found out anyway.
func (s *server) readJSON(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		e := Invalid("", "", "Content-Encoding %q is not understood: send the body unpacked.", enc)
		e.Status = http.StatusUnsupportedMediaType
		return nil, e
	}
	rc := http.NewResponseController(w)
	if s.ReadTimeout > 0 {
		_ = rc.SetReadDeadline(time.Now().Add(s.ReadTimeout)) // a recorder in a test has none
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.BodyMax))
	_ = rc.SetReadDeadline(time.Time{})
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, fault.New(fault.TooLarge, "openai.read", "", "the body is over http.body_max, which is %d bytes", s.BodyMax)
	case err != nil:
		return nil, Invalid("", "", "The body could not be read: %v", err)
	}
	return ndjson.TrimBOM(b), nil
}

// answer writes a body in the time that a client has to take it. A client that went away is nobody to tell.
func (s *server) answer(w http.ResponseWriter, status int, media string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	rc := http.NewResponseController(w)
	if s.WriteTimeout > 0 {
		_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
	_ = rc.Flush()
	_ = rc.SetWriteDeadline(time.Time{}) // the connection may be used again
}
