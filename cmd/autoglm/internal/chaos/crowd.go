package chaos

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
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
	from  time.Time // of the measurement
	stays []stay
}

// stay is a request at the engine.
type stay struct {
	id         string        // of the attempt
	begin, end time.Duration // end is 0 while it lasts
	broken     bool          // it was broken off: its node may have known that earlier than the engine did
}

// noticeMax is how much later than its node an engine on a busy machine notices that a request was broken off.
const noticeMax = 250 * time.Millisecond

// newCrowd serves at a path until close.
func newCrowd(path string) (*crowd, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	c := &crowd{path: path, echo: infer.NewEcho(infer.EchoOptions{Name: "crowd", Directives: true}), from: time.Now(), ended: make(chan struct{})}
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
	leave := c.enter(r.Header.Get("X-Request-Id"))
	res, err := c.echo.Do(r.Context(), &infer.Request{Model: q.Model, Messages: q.Messages, Key: r.Header.Get("X-Request-Id")})
	leave(r.Context().Err() != nil)
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

func (c *crowd) enter(id string) (leave func(broken bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := len(c.stays)
	c.stays = append(c.stays, stay{id: id, begin: time.Since(c.from)})
	return func(broken bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stays[k].end, c.stays[k].broken = time.Since(c.from), broken
	}
}

// all returns every stay from a moment on, and how long that is ago.
func (c *crowd) all(from time.Time) (all []stay, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	begin, now := from.Sub(c.from), time.Since(c.from)
	for _, s := range c.stays {
		if s.end == 0 {
			s.end = now
		}
		if s.end > begin {
			s.begin = max(s.begin, begin)
			all = append(all, s)
		}
	}
	return all, now - begin
}

// peak is the most that were there at once, and who they were. Those that were broken off count as gone so much before the engine saw it.
func peak(stays []stay, notice time.Duration) (most int, who []stay) {
	type edge struct {
		at time.Duration
		n  int
	}
	end := func(s stay) time.Duration {
		if s.broken {
			return max(s.end-notice, s.begin)
		}
		return s.end
	}
	var edges []edge
	for _, s := range stays {
		edges = append(edges, edge{s.begin, 1}, edge{end(s), -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
	now, at := 0, time.Duration(0)
	for _, e := range edges {
		if now += e.n; now > most {
			most, at = now, e.at
		}
	}
	for _, s := range stays {
		if s.begin <= at && at < end(s) {
			who = append(who, s)
		}
	}
	return most, who
}

// mean is how many were there on average.
func mean(stays []stay, took time.Duration) float64 {
	var sum time.Duration
	for _, s := range stays {
		sum += s.end - s.begin
	}
	return sum.Seconds() / max(took.Seconds(), 1e-9)
}

// String is a line for a person.
func (s stay) String() string {
	how := "answered"
	if s.broken {
		how = "broken off"
	}
	return fmt.Sprintf("%s from %.3fs to %.3fs, %s", s.id, s.begin.Seconds(), s.end.Seconds(), how)
}
