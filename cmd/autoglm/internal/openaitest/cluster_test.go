package openaitest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
)

const (
	model   = "glm"
	nodes   = 3
	expires = "10s" // the batch that has to expire: one of its lines must have ended by then

	becomesReady = 60 * time.Second
	hookWithin   = 60 * time.Second
)

// cluster is three nodes, and what stands around them.
type cluster struct {
	urls   []string // base URLs as clients take them, with /v1
	hooks  string   // GET hooks/BATCH waits for that batch's webhook
	secret string   // of webhooks
}

// hook is a webhook as it came.
type hook struct {
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
}

func start(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	bin, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "bin", "autoglm"))
	require.NoError(t, err)
	_, err = os.Stat(bin)
	require.NoError(t, err, "run: make build")
	around := outside(t)
	secret := callback.NewSecret()
	c, err := dev.Open(dev.Options{Dir: filepath.Join(t.TempDir(), "cluster"), Nodes: nodes, StopMax: 10 * time.Second,
		Args:    []string{"--shards", "4", "--engine", around.URL, "--set", "webhook.urls=" + around.URL + "/hooks", "--set", "callback.secret=" + secret},
		Command: func(_ string, args []string) *exec.Cmd { return exec.Command(bin, args...) }})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(t.Context()) }) // its context is over by then: they are killed
	require.NoError(t, c.Start(t.Context()))
	k := &cluster{hooks: around.URL + "/hooks", secret: secret}
	for _, n := range c.Nodes() {
		k.urls = append(k.urls, n.URL+"/v1")
		require.Eventually(t, func() bool { return serves(n.URL) }, becomesReady, 50*time.Millisecond, "%s does not know what the engine serves", n.Name)
	}
	require.Len(t, k.urls, nodes)
	return k
}

func serves(url string) bool {
	res, err := http.Get(url + "/v1/models/" + model)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// outside is an engine and a receiver of webhooks. The engine answers what begins with "now", refuses what begins with "bad", and
// lets all else wait.
func outside(t *testing.T) *httptest.Server {
	var mu sync.Mutex
	came := map[string]chan hook{} // by batch
	of := func(batch string) chan hook {
		mu.Lock()
		defer mu.Unlock()
		if came[batch] == nil {
			came[batch] = make(chan hook, 100) // more than a cluster sends of one
		}
		return came[batch]
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"data":[{"id":%q}]}`, model) })
	mux.HandleFunc("POST /v1/chat/completions", answer)
	mux.HandleFunc("POST /hooks", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var event struct {
			Data struct {
				ID string `json:"id"`
			} `json:"data"`
		}
		if err != nil || json.Unmarshal(b, &event) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		h := hook{Body: string(b), Headers: map[string]string{}}
		for name := range r.Header {
			h.Headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		of(event.Data.ID) <- h
	})
	mux.HandleFunc("GET /hooks/{batch}", func(w http.ResponseWriter, r *http.Request) {
		select {
		case h := <-of(r.PathValue("batch")):
			_ = json.NewEncoder(w).Encode(h)
		case <-time.After(hookWithin):
			w.WriteHeader(http.StatusGatewayTimeout)
		case <-r.Context().Done():
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(func() {
		s.CloseClientConnections() // what waits
		s.Close()
	})
	return s
}

func answer(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Messages []struct {
			Content string `json:"content"`
		} `json:"messages"`
	}
	w.Header().Set("Content-Type", "application/json")
	body, err := io.ReadAll(r.Body) // to its end: only then does Done tell that the node went away
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil || len(q.Messages) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch text := q.Messages[0].Content; {
	case strings.HasPrefix(text, "now"):
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "x", "object": "chat.completion", "created": 1, "model": model,
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]string{"role": "assistant", "content": "yes: " + text}}},
			"usage":   map[string]int{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
	case strings.HasPrefix(text, "bad"):
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"message":"no such thing","type":"engine_says","code":"not_that","param":"messages"}}`)
	default:
		<-r.Context().Done()
	}
}

// input is a batch's, of one line for each text; its custom_id is its number.
func input(texts ...string) string {
	var b strings.Builder
	for i, text := range texts {
		line, err := json.Marshal(map[string]any{"custom_id": fmt.Sprint("c", i), "method": "POST", "url": "/v1/chat/completions",
			"body": map[string]any{"model": model, "messages": []map[string]string{{"role": "user", "content": text}}}})
		if err != nil {
			panic(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

// inputs are what the clients send, by the name of the batch in a report.
func inputs() map[string]string {
	completed := slices.Repeat([]string{"now"}, 20)
	return map[string]string{
		"completed": input(append(completed, "bad")...),
		"cancelled": input("now", "later", "later"),
		"expired":   input("now", "later"),
		"failed":    input("now") + "{\n",
	}
}
