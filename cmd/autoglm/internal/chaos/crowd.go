package chaos

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// crowd is an engine for all nodes that counts how many requests it has at once, whoever sent them: what a quota of running tasks bounds. It is
// behind a unix socket, which no cut of a network reaches, so that a node that is cut off goes on with what it has.
type crowd struct {
	path   string
	echo   *infer.Echo
	server *http.Server
	ended  chan struct{}

	mu    sync.Mutex
	now   int
	most  int
	since time.Time     // of now
	from  time.Time     // of the measurement
	area  time.Duration // of requests, summed up since
}

// newCrowd serves at a path until close.
func newCrowd(path string) (*crowd, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	c := &crowd{path: path, echo: infer.NewEcho(infer.EchoOptions{Name: "crowd", Directives: true}), ended: make(chan struct{})}
	c.reset()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, map[string]any{"data": []any{map[string]any{"id": "crowd"}}})
	})
	mux.HandleFunc("POST /v1/chat/completions", c.answer)
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(c.ended)
		_ = c.server.Serve(l) // says only that it was closed
	}()
	return c, nil
}

func (c *crowd) close() {
	_ = c.server.Close()
	<-c.ended
	_ = os.Remove(c.path)
}

func say(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a node that is gone is what this is about
}

func (c *crowd) answer(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model    string          `json:"model"`
		Messages []infer.Message `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		say(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": err.Error()}})
		return
	}
	c.add(1)
	res, err := c.echo.Do(r.Context(), &infer.Request{Model: q.Model, Messages: q.Messages, Key: r.Header.Get("X-Request-Id")})
	c.add(-1)
	var f *fault.Error
	switch {
	case err == nil:
		say(w, http.StatusOK, map[string]any{"model": q.Model, "choices": []any{map[string]any{"message": map[string]any{"role": "assistant", "content": res.Text}, "finish_reason": "stop"}}})
	case errors.As(err, &f) && f.Kind == fault.Unavailable:
		say(w, http.StatusBadGateway, map[string]any{"error": map[string]any{"message": f.Error()}})
	default:
		say(w, http.StatusInternalServerError, map[string]any{"error": map[string]any{"message": err.Error()}})
	}
}

func (c *crowd) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	c.area += time.Duration(c.now) * at.Sub(c.since)
	c.since = at
	c.now += n
	c.most = max(c.most, c.now)
}

// reset begins to measure anew.
func (c *crowd) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = time.Now()
	c.since, c.area, c.most = c.from, 0, c.now
}

// measured is the most and the mean since then.
func (c *crowd) measured() (most int, mean float64) {
	c.add(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most, c.area.Seconds() / max(c.since.Sub(c.from).Seconds(), 1e-9)
}
