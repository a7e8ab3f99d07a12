package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// change does one change over the API and waits for its end.
func change(t testing.TB, n *Node, method, path string, body any) wire.EngineEntry {
	t.Helper()
	var begun wire.Engines
	res := call(t, n, method, path, body, &begun)
	require.Equal(t, http.StatusAccepted, res.StatusCode, path)
	require.Len(t, begun.Engines, 1)
	e := begun.Engines[0]
	require.Eventually(t, func() bool {
		now, ok := engineNamed(t, n, e.Name)
		if ok {
			e = now
		}
		return !ok || e.Change.State != "running"
	}, 60*time.Second, 5*time.Millisecond)
	return e
}

func engineNamed(t testing.TB, n *Node, name string) (wire.EngineEntry, bool) {
	t.Helper()
	var all wire.Engines
	call(t, n, "GET", "/v1/engines", nil, &all)
	for _, e := range all.Engines {
		if e.Name == name {
			return e, true
		}
	}
	return wire.EngineEntry{}, false
}

func ask(t testing.TB, n *Node, id, model string) taskView {
	t.Helper()
	var got taskView
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "model": model, "prompt": "Country code of Peru"}, nil)
	require.Equal(t, http.StatusCreated, res.StatusCode)
	call(t, n, "GET", "/v1/tasks/"+id+"?wait=60s", nil, &got)
	return got
}

func engineOf(t testing.TB, v taskView) string {
	t.Helper()
	var a struct {
		Engine string `json:"engine"`
	}
	require.NoError(t, json.Unmarshal(v.Attempts[len(v.Attempts)-1], &a))
	return a.Engine
}

// teller is an engine of OpenAI's API that tells who it is.
func teller(t testing.TB, name string, calls *atomic.Int64) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			fmt.Fprint(w, `{"data":[{"id":"m"}]}`)
		case "/v1/chat/completions":
			calls.Add(1)
			fmt.Fprintf(w, `{"model":"m","choices":[{"message":{"content":%q},"finish_reason":"stop"}]}`, name)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestEnginesAreLoadedWhileTheNodeRuns(t *testing.T) {
	c := testConfig(t)
	c.Engines[0].Models = []string{"other"}
	n := boot(t, c)
	var one, two atomic.Int64
	e := change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "gpu", Spec: wire.EngineSpec{URL: teller(t, "one", &one), Aliases: []string{"fast"}}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.EqualValues(t, 1, one.Load(), "it answered a probe")
	require.Eventually(t, func() bool { e, _ = engineNamed(t, n, "gpu"); return e.State == "ready" }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, []string{"m", "fast"}, e.Models)
	require.Equal(t, "loaded", e.Source)
	call(t, n, "DELETE", "/v1/engines/echo", nil, nil) // of the configuration: gone until the next start
	require.Eventually(t, func() bool { _, there := engineNamed(t, n, "echo"); return !there }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, "one", ask(t, n, "a", "fast").Answer)

	for _, bad := range []struct {
		method, path string
		body         any
		want         int
	}{
		{"POST", "/v1/engines", wire.EngineLoad{Name: "gpu", Spec: wire.EngineSpec{URL: "http://h"}}, http.StatusConflict},
		{"POST", "/v1/engines", wire.EngineLoad{Name: "x", Spec: wire.EngineSpec{}}, http.StatusUnprocessableEntity},
		{"POST", "/v1/engines", wire.EngineLoad{Name: "a/b", Spec: wire.EngineSpec{URL: "http://h"}}, http.StatusUnprocessableEntity},
		{"POST", "/v1/engines", wire.EngineLoad{Name: "x", Spec: wire.EngineSpec{URL: "http://h", APIKeyEnv: "PATH"}}, http.StatusUnprocessableEntity},
		{"POST", "/v1/engines", wire.EngineLoad{Name: "x", Spec: wire.EngineSpec{Path: "relative.gguf"}}, http.StatusUnprocessableEntity},
		{"POST", "/v1/engines", wire.EngineLoad{Name: "x", Node: "nobody", Spec: wire.EngineSpec{URL: "http://h"}}, http.StatusNotFound},
		{"POST", "/v1/engines/nobody/swap", wire.EngineSwap{Spec: wire.EngineSpec{URL: "http://h"}}, http.StatusNotFound},
		{"POST", "/v1/engines/gpu/rollback", nil, http.StatusConflict},
		{"DELETE", "/v1/engines/nobody", nil, http.StatusNotFound},
	} {
		require.Equal(t, bad.want, call(t, n, bad.method, bad.path, bad.body, nil).StatusCode, "%s %s", bad.method, bad.path)
	}

	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	e = change(t, n, "POST", "/v1/engines/gpu/swap", wire.EngineSwap{Spec: wire.EngineSpec{URL: dead.URL}})
	require.Equal(t, "failed", e.Change.State)
	require.Contains(t, e.Change.Error, "it did not answer a probe")
	require.Equal(t, 1, e.Version)
	require.Equal(t, "one", ask(t, n, "b", "fast").Answer, "nothing changed")

	e = change(t, n, "POST", "/v1/engines/fast/swap", wire.EngineSwap{Spec: wire.EngineSpec{URL: teller(t, "two", &two)}}) // by what only it serves
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, 3, e.Version, "the one that did not come up was the second")
	require.True(t, e.Former.Loaded)
	got := ask(t, n, "c", "fast")
	require.Equal(t, "two", got.Answer)
	require.Equal(t, "gpu.3", engineOf(t, got))
	before := two.Load()
	e = change(t, n, "POST", "/v1/engines/gpu/rollback", nil)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, 1, e.Version)
	require.Equal(t, 3, e.Former.Version)
	require.Equal(t, "one", ask(t, n, "d", "fast").Answer)
	require.Equal(t, before, two.Load(), "it was not even probed: it is kept as it was")

	halt(t, n)
	n = boot(t, c) // what was loaded is there, and what the configuration says, too
	require.Eventually(t, func() bool { e, _ = engineNamed(t, n, "gpu"); return e.State == "ready" }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, 1, e.Version)
	require.False(t, e.Former.Loaded)
	_, there := engineNamed(t, n, "echo")
	require.True(t, there)
	require.Equal(t, "one", ask(t, n, "e", "fast").Answer)
	e = change(t, n, "POST", "/v1/engines/gpu/rollback", nil) // by its definition
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, "two", ask(t, n, "f", "fast").Answer)

	halt(t, n)
	c.Engines = append(c.Engines, EngineConfig{URL: EngineEcho, Name: "gpu", Models: []string{"mine"}})
	n = boot(t, c) // the configuration wins
	require.Eventually(t, func() bool { e, _ = engineNamed(t, n, "gpu"); return e.State == "ready" }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, "configuration", e.Source)
	require.Equal(t, []string{"mine"}, e.Models)
	require.Contains(t, e.Reason, "is ignored: the configuration says otherwise")
	halt(t, n)
	c.Engines = c.Engines[:1]
	n = boot(t, c) // and nothing of the other is forgotten
	e, there = engineNamed(t, n, "gpu")
	require.True(t, there)
	require.Equal(t, "loaded", e.Source)
	change(t, n, "DELETE", "/v1/engines/gpu", nil)
	halt(t, n)
	n = boot(t, c)
	_, there = engineNamed(t, n, "gpu")
	require.False(t, there)

	require.NoError(t, os.WriteFile(n.dataPath(tableFile), []byte("{"), 0o600))
	halt(t, n)
	n, err := New(c, nil)
	require.NoError(t, err)
	require.ErrorContains(t, n.Start(t.Context()), "engines.json")
}

// TestAModelIsSwappedUnderLoad: with real workers. No task is lost or loses a try, and a file that is no model changes nothing.
func TestAModelIsSwappedUnderLoad(t *testing.T) {
	c := embeddedConfig(t, 1)
	model, err := filepath.Abs(c.Model.Path)
	require.NoError(t, err)
	c.Engines = []EngineConfig{{URL: EngineEcho, Models: []string{"other"}}}
	b, err := os.ReadFile(model)
	require.NoError(t, err)
	next, broken := filepath.Join(t.TempDir(), "next.gguf"), filepath.Join(t.TempDir(), "broken.gguf")
	require.NoError(t, os.WriteFile(next, b, 0o600))
	require.NoError(t, os.WriteFile(broken, b[:len(b)/3], 0o600))
	n := boot(t, c)
	e := change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "tiny", Spec: wire.EngineSpec{Path: model, Slots: 4}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	first := n.table.all()[1].pool.Children()[0].Status().PID

	const tasks = 300
	submitted := make(chan struct{})
	go func() {
		defer close(submitted)
		for i := range tasks {
			res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprint("t", i), "model": "tiny", "prompt": "Country code of Peru"}, nil)
			if res.StatusCode != http.StatusCreated {
				t.Errorf("task %d: %d", i, res.StatusCode)
			}
		}
	}()
	e = change(t, n, "POST", "/v1/engines/tiny/swap", wire.EngineSwap{Spec: wire.EngineSpec{Path: broken}})
	require.Equal(t, "failed", e.Change.State)
	require.Contains(t, e.Change.Error, "worker tiny.2-0 ended")
	require.Equal(t, model, e.Spec.Path)
	e = change(t, n, "POST", "/v1/engines/tiny/swap", wire.EngineSwap{Spec: wire.EngineSpec{Path: next}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, next, e.Spec.Path)
	require.Equal(t, 4, e.Spec.Slots, "what was not named stays")
	require.NotEqual(t, first, n.table.all()[1].pool.Children()[0].Status().PID)
	e = change(t, n, "POST", "/v1/engines/tiny/rollback", nil)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, first, n.table.all()[1].pool.Children()[0].Status().PID, "the very process of before")
	<-submitted
	for i := range tasks {
		var got taskView
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/t%d?wait=60s", i), nil, &got)
		require.Equal(t, "completed", got.State)
		require.Equal(t, "PE", got.Answer)
		for _, a := range got.Attempts[:len(got.Attempts)-1] {
			require.Contains(t, string(a), `"returned"`, "a try that was handed back is none")
		}
	}
	e = change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "bad", Spec: wire.EngineSpec{Path: broken}})
	require.Equal(t, "failed", e.State)
	e = change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "bad", Spec: wire.EngineSpec{Path: next}}) // may be tried again
	require.Equal(t, "done", e.Change.State, e.Change.Error)
}
