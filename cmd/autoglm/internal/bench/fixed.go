package bench

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// fixedAnswer is what a fixedEngine says to everything.
const fixedAnswer = `{"id":"fixed","object":"chat.completion","created":0,"model":"fixed","choices":[{"index":0,` +
	`"message":{"role":"assistant","content":"2024-03-03"},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":20,"completion_tokens":8,"total_tokens":28}}`

// fixedEngine is an OpenAI-compatible server on loopback that takes the same time for every answer and makes only so
// many at once, the others wait: a model whose speed is known, so that what a caller loses is the caller's.
type fixedEngine struct {
	url     string
	latency time.Duration
	slots   chan struct{} // a token for each answer being made
	server  *http.Server
	ended   chan struct{}
}

// startFixed serves until stop.
func startFixed(slots int, latency time.Duration) (*fixedEngine, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("bench.engine: %w", err)
	}
	e := &fixedEngine{url: "http://" + l.Addr().String(), latency: latency, slots: make(chan struct{}, slots), ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", e.answer)
	mux.HandleFunc("GET /v1/models", say(`{"object":"list","data":[{"id":"fixed","object":"model"}]}`))
	mux.HandleFunc("GET /health", say(`{"status":"ok"}`))
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(e.ended)
		_ = e.server.Serve(l) // says only that it was closed
	}()
	return e, nil
}

// stop ends the server and what it is answering. It is safe to call twice.
func (e *fixedEngine) stop() {
	_ = e.server.Close() // nothing can be done about it
	<-e.ended
}

func (e *fixedEngine) answer(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the caller is gone
	}
	select {
	case e.slots <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	err := waitUntil(r.Context(), time.Now().Add(e.latency))
	<-e.slots
	if err == nil {
		say(fixedAnswer)(w, r)
	}
}

func say(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body) // a caller that is gone is told of elsewhere
	}
}

// ceiling is the most answers a second that such an engine can give.
func ceiling(slots int, latency time.Duration) float64 { return float64(slots) / latency.Seconds() }
