package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// countingEngine is an OpenAI server, and a tool of steps, that outlives the node: it knows what it was asked twice. It holds every question after a number of them.
type countingEngine struct {
	mu    sync.Mutex
	asked map[string]int    // by conversation, or the body of a call
	keys  map[string]string // Idempotency-Key by body
	left  int
	full  chan struct{} // closed when the first one is held
}

func (e *countingEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/models" {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"counting","object":"model"}]}`)
		return
	}
	if r.URL.Path != "/v1/chat/completions" && r.URL.Path != "/tool" {
		http.NotFound(w, r)
		return
	}
	var q struct {
		Messages []struct{ Role, Content string }
		About    string
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || (r.URL.Path == "/tool") == (q.About == "") {
		http.Error(w, "no chat and no call", http.StatusBadRequest)
		return
	}
	said := fmt.Sprint(q.Messages, q.About)
	e.mu.Lock()
	if key := r.Header.Get("Idempotency-Key"); q.About != "" && e.asked[said] > 0 && e.keys[said] != key {
		e.asked[said] += 100 // it could not be known for a repeat
	} else {
		e.keys[said] = key
	}
	e.asked[said]++
	e.left--
	held := e.left < 0
	if e.left == -1 {
		close(e.full)
	}
	e.mu.Unlock()
	if held {
		<-r.Context().Done()
		return
	}
	if q.About != "" {
		fmt.Fprintf(w, `{"note":"a note"}`)
		return
	}
	answer, _ := json.Marshal(fmt.Sprintf("(%s)", q.Messages[len(q.Messages)-1].Content))
	fmt.Fprintf(w, `{"model":"counting","choices":[{"message":{"content":%s},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`, answer)
}

// TestStepsSurviveAKilledNode: kill -9 in the middle of twenty questions of three hops and a tool each. The node goes on where it was: only what was at
// the engine in that moment is asked again.
func TestStepsSurviveAKilledNode(t *testing.T) {
	questions, err := os.ReadFile(filepath.Join("..", "..", "actors", "testdata", "hotpot-20.jsonl"))
	require.NoError(t, err)
	e := &countingEngine{asked: map[string]int{}, keys: map[string]string{}, left: 50, full: make(chan struct{})}
	engine := httptest.NewServer(e)
	t.Cleanup(func() { engine.CloseClientConnections(); engine.Close() })
	dir := t.TempDir()
	config := filepath.Join(dir, "node.yaml")
	require.NoError(t, os.WriteFile(config, []byte("tools: {allowed_nets: [127.0.0.1]}\n"), 0o600))
	var tasks bytes.Buffer
	n := 0
	for s := bufio.NewScanner(bytes.NewReader(questions)); s.Scan(); n++ {
		var q struct{ Question string }
		require.NoError(t, json.Unmarshal(s.Bytes(), &q))
		line, err := json.Marshal(map[string]any{"task_id": fmt.Sprint("hop", n), "prompt": "Split: " + q.Question, "steps": []any{
			map[string]any{"name": "one", "prompt": "Hop one of {{ .prompt }}: {{ .steps.first.output }}", "history": false},
			map[string]any{"name": "look", "http": map[string]any{"url": engine.URL + "/tool", "body": map[string]any{"about": "{{ .steps.one.output }}"}}},
			map[string]any{"name": "two", "prompt": "Hop two with {{ .steps.look.json.note }} after {{ .steps.one.output }}", "system": "You are brief."},
			"And in one word?"}})
		require.NoError(t, err)
		tasks.Write(append(line, '\n'))
	}
	log, err := os.Create(filepath.Join(dir, "node.log"))
	require.NoError(t, err)
	defer log.Close()
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	v := &victim{t: t, bin: built(t, "autoglm"), dir: dir, url: "http://" + listen, log: log,
		args: []string{"serve", "--config", config, "--data-dir", filepath.Join(dir, "data"), "--http", listen, "--engine", engine.URL + "/v1"}}
	v.start()
	t.Cleanup(func() { _ = v.cmd.Process.Kill(); _ = v.cmd.Wait() })
	res, err := http.Post(v.url+"/v1/tasks", "application/x-ndjson", &tasks)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	_, err = io.Copy(io.Discard, res.Body) // a line for each task that is durable
	require.NoError(t, err)
	res.Body.Close()
	select {
	case <-e.full:
	case <-time.After(time.Minute):
		t.Fatal("the engine is not asked")
	}
	v.kill()
	e.mu.Lock()
	before := len(e.asked)
	e.left = 1 << 30
	e.mu.Unlock()
	v.start()

	for i := range n {
		var got struct {
			State   string   `json:"state"`
			Answers []string `json:"answers"`
		}
		id := fmt.Sprint("hop", i)
		deadline := time.Now().Add(time.Minute)
		for got.State != "completed" {
			require.True(t, time.Now().Before(deadline), "task %s is still %s", id, got.State)
			res, err := http.Get(v.url + "/v1/tasks/" + id + "?wait=30s")
			require.NoError(t, err)
			require.NoError(t, json.NewDecoder(res.Body).Decode(&got))
			res.Body.Close()
		}
		require.Len(t, got.Answers, 5)
		require.Equal(t, "(And in one word?)", got.Answers[4])
		require.Equal(t, "(Hop two with a note after "+got.Answers[1]+")", got.Answers[3])
		require.Equal(t, 5, stepsDone(t, v.url, id), "each step is done once")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	require.Len(t, e.asked, 5*n, "a retry asks what was asked before, to the letter")
	again := 0
	for said, times := range e.asked {
		require.LessOrEqual(t, times, 2, said)
		again += times - 1
	}
	t.Logf("%d questions before the kill, %d of %d asked twice", before, again, 5*n)
	require.LessOrEqual(t, again, before-50+20, "those that were held, and answers that were not durable yet: at most one a task")
}

// stepsDone counts the answers in a task's journal.
func stepsDone(t *testing.T, url, id string) (n int) {
	res, err := http.Get(url + "/v1/tasks/" + id + "/events")
	require.NoError(t, err)
	defer res.Body.Close()
	var h struct {
		Events []struct{ Event string }
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&h))
	for _, e := range h.Events {
		if e.Event == "step_done" || e.Event == "answered" {
			n++
		}
	}
	return n
}
