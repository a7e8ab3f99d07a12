package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
)

// traced is a request that an engine or a receiver got: the task it was for, and its trace.
type traced struct{ task, parent string }

// engineOf is an engine of one model; what it is asked goes to seen.
func engineOf(t *testing.T, model string, seen chan<- traced) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"data":[{"id":%q}]}`, model)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := strings.Cut(r.Header.Get("X-Request-Id"), "/")
		seen <- traced{id, strings.Join(r.Header.Values(trace.Header), ",")}
		fmt.Fprintf(w, `{"model":%q,"choices":[{"finish_reason":"stop","message":{"content":"yes"}}]}`, model)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// TestTrace follows a trace from the HTTP request at one node to an engine that only another node has, and to the callback. The
// tasks are many enough that each of both nodes owns some.
func TestTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two nodes")
	}
	const tasks = 24
	seen, called := make(chan traced, 4*tasks), make(chan traced, 4*tasks)
	near, far := engineOf(t, "near", seen), engineOf(t, "far", seen)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Data struct {
				ID string `json:"task_id"`
			} `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		called <- traced{body.Data.ID, strings.Join(r.Header.Values(trace.Header), ",")}
	}))
	t.Cleanup(receiver.Close)

	bin := built(t, "autoglm")
	c, err := dev.Open(dev.Options{Dir: filepath.Join(t.TempDir(), "cluster"), Nodes: 2, StopMax: 10 * time.Second,
		Args: []string{"--shards", "4", "--log-level", "debug"},
		Command: func(name string, args []string) *exec.Cmd {
			engine := map[string]string{"node-1": near.URL, "node-2": far.URL}[name]
			return exec.Command(bin, append(slices.Clone(args), "--engine", engine)...)
		}})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(t.Context()) }) // its context is over by then: they are killed
	require.NoError(t, c.Start(t.Context()))
	node := c.Nodes()[0]

	submit := func(id, parent string) {
		body := fmt.Sprintf(`{"task_id":%q,"prompt":"p","model":"far","callback_url":%q}`, id, receiver.URL)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, node.URL+"/v1/tasks", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		if parent != "" {
			req.Header.Set(trace.Header, parent)
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http.StatusCreated, res.StatusCode)
	}
	want := map[string]string{}
	for i := range tasks {
		id := fmt.Sprintf("t%d", i)
		want[id] = fmt.Sprintf("00-%032x-%016x-01", i+1, i+100)
		submit(id, want[id])
	}
	for _, from := range []chan traced{seen, called} {
		got := map[string]string{}
		for len(got) < tasks {
			select {
			case x := <-from:
				got[x.task] = x.parent
			case <-time.After(30 * time.Second):
				t.Fatalf("only %d of %d tasks came so far", len(got), tasks)
			}
		}
		require.Equal(t, want, got)
	}

	// Shown, by any node and the command.
	out, err := exec.CommandContext(t.Context(), bin, "get", "t0", "-o", "json", "--server", c.Nodes()[1].URL).Output()
	require.NoError(t, err)
	var shown struct {
		TraceID  string `json:"trace_id"`
		Attempts []struct{ Node string }
	}
	require.NoError(t, json.Unmarshal(out, &shown))
	require.Equal(t, trace.Parent(want["t0"]).ID(), shown.TraceID)
	require.Equal(t, "node-2", shown.Attempts[0].Node)
	log, err := os.ReadFile(node.Log)
	require.NoError(t, err)
	require.Contains(t, string(log), "trace_id="+shown.TraceID)

	// Without a header, or with one that is none, a trace begins.
	for _, given := range []string{"", "00-zz"} {
		submit("new"+given, given)
		x := <-seen
		require.Equal(t, "new"+given, x.task)
		require.Equal(t, trace.Parent(x.parent), trace.Parse(x.parent))
		require.Len(t, trace.Parent(x.parent).ID(), 32)
		require.Equal(t, x, <-called)
	}
}
