package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func testConfig(t testing.TB) Config {
	c := Default()
	c.DataDir = t.TempDir()
	c.Shards = 4
	c.HTTP.Listen = "127.0.0.1:0"
	c.Engines = []EngineConfig{{URL: EngineEcho}}
	c.Task.BackoffMin, c.Task.BackoffMax = 5*time.Millisecond, 20*time.Millisecond
	c.Task.SlowFactor = 1
	return c
}

func boot(t testing.TB, c Config, opts ...Option) *Node {
	t.Helper()
	n, err := New(c, slog.New(slog.DiscardHandler), opts...)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	require.NoError(t, n.Start(ctx))
	t.Cleanup(func() { halt(t, n) })
	return n
}

func halt(t testing.TB, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	require.NoError(t, n.Stop(ctx))
}

// call does one request and decodes a JSON answer into out, when there is one.
func call(t testing.TB, n *Node, method, path string, body any, out any) *http.Response {
	t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		require.NoError(t, err)
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.HTTPAddr()+path, r)
	require.NoError(t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if out != nil {
		require.NoError(t, json.Unmarshal(b, out), "%s", b)
	}
	return res
}

type taskView struct {
	ID       string            `json:"task_id"`
	State    string            `json:"state"`
	Version  uint64            `json:"version"`
	Answer   string            `json:"answer"`
	Attempts []json.RawMessage `json:"attempts"`
	Metadata map[string]string `json:"metadata"`
}

func TestATaskEndToEnd(t *testing.T) {
	n := boot(t, testConfig(t))
	var got taskView
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "hello", "metadata": map[string]string{"k": "v"}}, &got)
	require.Equal(t, http.StatusCreated, res.StatusCode)
	res = call(t, n, "GET", "/v1/tasks/a?wait=20s", nil, &got)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "completed", got.State)
	require.Equal(t, "hello", got.Answer)
	require.Len(t, got.Attempts, 1)

	res = call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "hello", "metadata": map[string]string{"k": "v"}}, nil)
	require.Equal(t, http.StatusOK, res.StatusCode, "the same body again is harmless")
	res = call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "other"}, nil)
	require.Equal(t, http.StatusConflict, res.StatusCode)
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
	res = call(t, n, "GET", "/v1/tasks/nobody", nil, nil)
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	res = call(t, n, "POST", "/v1/tasks/a/cancel", nil, nil)
	require.Equal(t, http.StatusConflict, res.StatusCode)
}

func TestNothingIsLostOverARestart(t *testing.T) {
	c := testConfig(t)
	n := boot(t, c)
	later := time.Now().Add(time.Hour)
	for i := range 20 {
		res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprint("now", i), "prompt": "p"}, nil)
		require.Equal(t, http.StatusCreated, res.StatusCode)
		res = call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprint("later", i), "prompt": "p", "not_before": later}, nil)
		require.Equal(t, http.StatusCreated, res.StatusCode)
	}
	halt(t, n)
	n = boot(t, c)
	for i := range 20 {
		var got taskView
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/now%d?wait=20s", i), nil, &got)
		require.Equal(t, "completed", got.State)
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/later%d", i), nil, &got)
		require.Equal(t, "pending", got.State)
	}
	var status struct {
		Tasks map[string]int64 `json:"tasks"`
	}
	call(t, n, "GET", "/v1/status", nil, &status)
	require.EqualValues(t, 20, status.Tasks["completed"])
	require.EqualValues(t, 20, status.Tasks["pending"])
}

func TestListsAndResultsPageThroughAllShards(t *testing.T) {
	n := boot(t, testConfig(t))
	const total = 50
	for i := range total {
		prompt := "p"
		if i%5 == 0 {
			prompt = "#echo fail=always kind=invalid\np"
		}
		call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprintf("t%02d", i), "prompt": prompt, "metadata": map[string]string{"odd": fmt.Sprint(i % 2)}}, nil)
	}
	for i := range total {
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/t%02d?wait=20s", i), nil, nil)
	}
	count := func(query string) int {
		seen := map[string]bool{}
		cursor := ""
		for pages := 0; ; pages++ {
			require.Less(t, pages, total)
			var page struct {
				Tasks  []taskView `json:"tasks"`
				Cursor string     `json:"next_cursor"`
			}
			res := call(t, n, "GET", "/v1/tasks?limit=7&"+query+"&cursor="+cursor, nil, &page)
			require.Equal(t, http.StatusOK, res.StatusCode)
			for _, x := range page.Tasks {
				require.False(t, seen[x.ID], "%s twice", x.ID)
				seen[x.ID] = true
			}
			if cursor = page.Cursor; cursor == "" {
				return len(seen)
			}
		}
	}
	require.Equal(t, total, count(""))
	require.Equal(t, 40, count("state=completed"))
	require.Equal(t, 10, count("state=failed"))
	require.Equal(t, 25, count("metadata.odd=1"))
	require.Zero(t, count("state=pending"))

	require.Eventually(t, func() bool { // results settle a moment after their tasks
		res, err := http.Get("http://" + n.HTTPAddr() + "/v1/results")
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return strings.Count(string(b), `"task_id"`) == total
	}, 10*time.Second, 50*time.Millisecond)
}

func TestMetricsFollowTheConventions(t *testing.T) {
	n := boot(t, testConfig(t))
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "p"}, nil)
	call(t, n, "GET", "/v1/tasks/a?wait=20s", nil, nil)
	res, err := http.Get("http://" + n.HTTPAddr() + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	for _, want := range []string{
		`autoglm_tasks{state="completed"} 1`, `autoglm_tasks_finished_total{outcome="completed"} 1`, `autoglm_attempts_total{engine="echo",outcome="answered"} 1`,
		"autoglm_batch_size_tasks_count 1", `autoglm_inflight_requests{engine="echo"} 0`, `autoglm_phase_duration_seconds_count{phase="total"} 1`,
		"autoglm_commit_duration_seconds_count", `autoglm_actors{kind="task"}`, `autoglm_engine_up{engine="echo"} 1`,
		"autoglm_members_alive 1", "autoglm_replicas 4", "autoglm_replica_behind_entries 0", "autoglm_shards_under_replicated 0", "autoglm_coordinator 1", "autoglm_coordinator_epoch 1",
	} {
		require.Contains(t, string(b), want)
	}
}

func TestABusyPortNamesItsRemedy(t *testing.T) {
	n := boot(t, testConfig(t))
	c := testConfig(t)
	c.HTTP.Listen = n.HTTPAddr()
	second, err := New(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	err = second.Start(t.Context())
	require.ErrorContains(t, err, "--http")
}

func TestTwoNodesCannotShareADirectory(t *testing.T) {
	c := testConfig(t)
	boot(t, c)
	second, err := New(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.ErrorContains(t, second.Start(t.Context()), c.DataDir)
}

// TestAnEngineBehindAURLIsAskedForItsOwnModel: a task that names no model runs on an
// engine that was never configured with one.
func TestAnEngineBehindAURLIsAskedForItsOwnModel(t *testing.T) {
	asked := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"glm-outside","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Model string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		asked <- body.Model
		_, _ = io.WriteString(w, `{"model":"glm-outside","choices":[{"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
	})
	engine := httptest.NewServer(mux)
	defer engine.Close()
	c := testConfig(t)
	c.Engines = []EngineConfig{{URL: engine.URL}}
	n := boot(t, c)
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "p"}, nil)
	var got taskView
	call(t, n, "GET", "/v1/tasks/a?wait=20s", nil, &got)
	require.Equal(t, "completed", got.State)
	require.Equal(t, "yes", got.Answer)
	require.Equal(t, "glm-outside", <-asked)
	var problem struct{ Remedy string }
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "b", "prompt": "p", "model": "gpt-9"}, &problem)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode)
	require.Contains(t, problem.Remedy, "glm-outside")
}

// TestResultsFromTheEnd: the cursor "end" passes over what has ended and shows what
// ends later.
func TestResultsFromTheEnd(t *testing.T) {
	n := boot(t, testConfig(t))
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "old", "prompt": "p"}, nil)
	call(t, n, "GET", "/v1/tasks/old?wait=20s", nil, nil)
	read := func(cursor string) (ids []string, next string) {
		next, err := n.svc.Results(t.Context(), cursor, func(it api.Item) bool { ids = append(ids, it.ID); return true })
		require.NoError(t, err)
		return ids, next
	}
	require.Eventually(t, func() bool { ids, _ := read(""); return len(ids) == 1 }, 10*time.Second, 10*time.Millisecond)
	ids, end := read("end")
	require.Empty(t, ids)
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "new", "prompt": "p"}, nil)
	call(t, n, "GET", "/v1/tasks/new?wait=20s", nil, nil)
	require.Eventually(t, func() bool { ids, _ = read(end); return len(ids) > 0 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, []string{"new"}, ids)
	_, err := n.svc.Results(t.Context(), "nonsense", nil)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

// TestATaskWithoutAModelOutlivesItsEngine: it waits while one engine is configured, and
// runs on the next one, which serves another model.
func TestATaskWithoutAModelOutlivesItsEngine(t *testing.T) {
	c := embeddedConfig(t, 1)
	n := boot(t, c)
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "m", "prompt": "x", "not_before": time.Now().Add(6 * time.Second)}, nil)
	require.Equal(t, http.StatusCreated, res.StatusCode)
	halt(t, n)
	c.Engines = []EngineConfig{{URL: EngineEcho}}
	n = boot(t, c)
	var got taskView
	call(t, n, "GET", "/v1/tasks/m?wait=20s", nil, &got)
	require.Equal(t, "completed", got.State)
	require.Equal(t, "x", got.Answer)
}

func TestATimeoutOverTheNodesLimitIsRefused(t *testing.T) {
	n := boot(t, testConfig(t))
	var problem struct{ Remedy string }
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"prompt": "x", "timeout": "5h"}, &problem)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode)
	require.Contains(t, problem.Remedy, "1h")
}

// TestAPastDeadlineIsRefused: unless the task exists, for then it is a repeat.
func TestAPastDeadlineIsRefused(t *testing.T) {
	n := boot(t, testConfig(t))
	var problem struct{ Detail string }
	late := map[string]any{"task_id": "late", "prompt": "x", "deadline": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)}
	res := call(t, n, "POST", "/v1/tasks", late, &problem)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode)
	require.Contains(t, problem.Detail, "has passed")

	soon := time.Now().Add(time.Hour)
	spec := map[string]any{"task_id": "soon", "prompt": "x", "deadline": soon.UTC().Format(time.RFC3339)}
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", spec, nil).StatusCode)
	n.svc.now = func() time.Time { return soon.Add(time.Minute) }
	require.Equal(t, http.StatusOK, call(t, n, "POST", "/v1/tasks", spec, nil).StatusCode, "the repeat of one that was accepted")
}
