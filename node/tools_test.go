package node

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestServed: what a step needs is refused with its field, by who knows all engines.
func TestServed(t *testing.T) {
	chat, tool := []string{task.EndpointChat}, []string{task.EndpointTool}
	llm, tools := serving{[]string{"glm"}, chat}, serving{[]string{task.ToolHTTP}, tool}
	wasm := serving{[]string{task.ToolWasm("score"), task.ToolWasm("sha256:00")}, tool}
	for _, c := range []struct {
		v               served
		model, endpoint string
		want            string
	}{
		{served{llm, tools}, "glm", task.EndpointChat, ""},
		{served{llm, tools}, "http", task.EndpointChat, "x.model: is \"http\", which no engine here serves"},
		{served{tools}, task.AnyModel, task.EndpointChat, ""}, // an engine may come
		{served{llm, tools}, task.ToolHTTP, task.EndpointTool, ""},
		{served{llm}, task.ToolHTTP, task.EndpointTool, "x.model: needs HTTP tools, which no node here runs"},
		{served{{[]string{"*"}, chat}}, task.ToolHTTP, task.EndpointTool, "needs HTTP tools"},
		{served{tools, wasm}, task.ToolWasm("score"), task.EndpointTool, ""},
		{served{tools, wasm}, task.ToolWasm("sha256:00"), task.EndpointTool, ""},
		{served{tools, wasm}, task.ToolWasm("other"), task.EndpointTool, "needs WASM module \"other\", which no node here runs"},
		{served{{nil, tool}}, task.ToolWasm("other"), task.EndpointTool, ""}, // it has not said yet
	} {
		err := c.v.check("x.model", c.model, c.endpoint, "glm")
		if c.want == "" {
			require.NoError(t, err, "%v", c)
			continue
		}
		require.ErrorContains(t, err, c.want)
		require.NotEmpty(t, fault.RemedyOf(err))
	}
	require.Equal(t, "use one of: score; or put the module into tools.wasm_dir of the nodes", fault.RemedyOf(served{tools, wasm}.check("x", task.ToolWasm("other"), task.EndpointTool, "")))
	require.Equal(t, []string{"default", "glm"}, served{llm, tools, wasm}.models(""), "tools are no models")
}

// TestToolsOfANode: by the API, each kind of step, and what is refused.
func TestToolsOfANode(t *testing.T) {
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"path":%q,"got":%s}`, r.URL.RequestURI(), b)
	}))
	t.Cleanup(shop.Close)
	c := testConfig(t)
	c.Engines = []EngineConfig{{URL: EngineEcho, Name: "one", Models: []string{"glm"}}, {URL: EngineEcho, Name: "two", Models: []string{"large"}}}
	c.Tools.AllowedNets = []string{"127.0.0.1"}
	c.Tools.WasmDir = t.TempDir()
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(c.Tools.WasmDir, "score.wasm"), "../actors/tool/testdata/module")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	said, err := build.CombinedOutput()
	require.NoError(t, err, string(said))
	n := boot(t, c)
	require.Eventually(t, func() bool {
		known := 0
		for _, e := range n.sys.Engines() {
			if len(e.Models) > 0 {
				known++
			}
		}
		return known == 4
	}, 30*time.Second, time.Millisecond)

	steps := []any{
		map[string]any{"name": "get", "http": map[string]any{"url": shop.URL + "/{{ urlquery .prompt }}", "body": map[string]any{"q": "{{ .steps.first.output }}"}}},
		map[string]any{"name": "score", "wasm": map[string]any{"module": "score", "input": "score {{ .steps.get.json.got.q }}"}},
		map[string]any{"name": "say", "prompt": "{{ .steps.score.json.words }} words", "model": "large"},
		"and?"}
	var got wire.Task
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "all", "prompt": "a b", "model": "glm", "steps": steps}, nil).StatusCode)
	for !got.State.Final() {
		require.Equal(t, http.StatusOK, call(t, n, "GET", "/v1/tasks/all?wait=20s", nil, &got).StatusCode)
	}
	require.Equal(t, task.Completed, got.State, "%+v", got.Error)
	require.Equal(t, []string{"a b", `{"path":"/a%20b","got":{"q":"a b"}}`, `{"words":2}`, "2 words", "and?"}, got.Answers)
	var engines []string
	for _, a := range got.Attempts {
		engines = append(engines, a.Engine)
	}
	require.Equal(t, []string{"one", "tools-http", "tools-wasm", "two", "one"}, engines)

	for field, step := range map[string]map[string]any{
		"steps[0].model":           {"prompt": "x", "model": "typo"},
		"steps[0].wasm.module":     {"wasm": map[string]any{"module": "missing"}},
		"timeout":                  {"http": map[string]any{"url": "http://h/", "timeout": "20h"}},
		"steps[0].http.url":        {"http": map[string]any{"url": "http://{{ .prompt }}/"}},
		"steps[0].map.model":       {"map": map[string]any{"over": "data", "split": map[string]any{"by": "lines", "size": 1}, "prompt": "x", "model": "typo"}, "reduce": map[string]any{"prompt": "x"}},
		"steps[0].wasm.memory_mb":  {"wasm": map[string]any{"module": "score", "memory_mb": 5000}},
		"steps[0].response_format": {"http": map[string]any{"url": "http://h/"}, "response_format": map[string]any{"type": "xml"}},
	} {
		spec := map[string]any{"prompt": "x", "data_url": "http://d/", "steps": []any{step}}
		var p wire.Problem
		require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "POST", "/v1/tasks", spec, &p).StatusCode, field)
		require.Contains(t, p.Key, field)
		require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "POST", "/v1/schedules", map[string]any{"name": "bad", "cron": "@daily", "task": spec}, &p).StatusCode, field)
		require.Contains(t, p.Key, field)
	}
	var models struct{ Data []struct{ ID string } }
	require.Equal(t, http.StatusOK, call(t, n, "GET", "/v1/models", nil, &models).StatusCode)
	for _, m := range models.Data {
		require.NotContains(t, m.ID, "http")
		require.NotContains(t, m.ID, "wasm")
	}
}
