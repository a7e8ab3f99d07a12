package node

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/infer"
)

// embeddedConfig serves the shipped model by real workers, which make built.
func embeddedConfig(t testing.TB, workers int) Config {
	c := testConfig(t)
	worker, err := filepath.Abs("../bin/glm-worker")
	require.NoError(t, err)
	_, err = os.Stat(worker)
	require.NoError(t, err, "run: make build")
	c.Engines = []EngineConfig{{URL: EngineEmbedded}}
	c.Model.Path = filepath.Join("..", "cmd", "glm-worker", "model", "tinyglm.gguf")
	c.Model.Worker, c.Model.Workers = worker, workers
	return c
}

type demoTask struct {
	ID     string `json:"task_id"`
	Prompt string `json:"prompt"`
	line   []byte
}

func demoTasks(t testing.TB, n int) (tasks []demoTask) {
	f, err := os.Open("../cmd/autoglm/demo/tasks.jsonl")
	require.NoError(t, err)
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() && len(tasks) < n {
		d := demoTask{line: slices.Clone(s.Bytes())}
		require.NoError(t, json.Unmarshal(d.line, &d))
		tasks = append(tasks, d)
	}
	require.Len(t, tasks, n)
	return tasks
}

// TestRealInference runs shipped tasks through the model, and every answer is what
// the engine says when it is asked alone: batching changes nothing.
func TestRealInference(t *testing.T) {
	n := boot(t, embeddedConfig(t, 2))
	tasks := demoTasks(t, 60)
	for _, d := range tasks {
		res, err := http.Post("http://"+n.HTTPAddr()+"/v1/tasks", "application/json", strings.NewReader(string(d.line)))
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http.StatusCreated, res.StatusCode)
	}
	require.NoError(t, n.WaitEngines(t.Context()))
	for i, d := range tasks {
		var got taskView
		call(t, n, "GET", "/v1/tasks/"+d.ID+"?wait=60s", nil, &got)
		require.Equal(t, "completed", got.State, d.ID)
		if i%10 == 0 {
			alone, err := n.Engines()[0].Do(t.Context(), &infer.Request{Model: "tinyglm", MaxTokens: 32, Temperature: new(float64),
				Messages: []infer.Message{{Role: "user", Content: d.Prompt}}})
			require.NoError(t, err)
			require.Equal(t, alone.Text, got.Answer, d.Prompt)
		}
	}
}

// TestPromisedForm: with a JSON schema the answer keeps to it, whatever the model
// would rather say.
func TestPromisedForm(t *testing.T) {
	n := boot(t, embeddedConfig(t, 1))
	schema := map[string]any{"type": "object", "required": []string{"label"}, "additionalProperties": false,
		"properties": map[string]any{"label": map[string]any{"enum": []string{"red", "green"}}}}
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "s", "prompt": "Which colour?", "max_tokens": 64,
		"response_format": map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "c", "schema": schema}}}, nil)
	var got taskView
	call(t, n, "GET", "/v1/tasks/s?wait=60s", nil, &got)
	require.Equal(t, "completed", got.State, "%s", got.Attempts)
	require.Contains(t, []string{`{"label":"red"}`, `{"label":"green"}`}, strings.ReplaceAll(got.Answer, " ", ""))
}

// TestAKilledWorkerCostsOneAttempt kills the only worker while it has work: it comes
// back, and its tasks are answered by another attempt.
func TestAKilledWorkerCostsOneAttempt(t *testing.T) {
	c := embeddedConfig(t, 1)
	c.Task.Attempts = 8
	n := boot(t, c)
	require.NoError(t, n.WaitEngines(t.Context()))
	first := n.table.all()[0].pool.Children()[0].Status()
	const total = 200
	for i := range total {
		call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprint("k", i), "prompt": "Normalise the amount: $1,234.56", "max_tokens": 40}, nil)
		if i == total/2 {
			require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
		}
	}
	for i := range total {
		var got taskView
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/k%d?wait=60s", i), nil, &got)
		require.Equal(t, "completed", got.State)
	}
	after := n.table.all()[0].pool.Children()[0].Status()
	require.NotEqual(t, first.PID, after.PID)
	require.Equal(t, 1, after.Restarts)
}

// TestModelsSideBySide: two embedded engines with a model each, one of them also under another name.
func TestModelsSideBySide(t *testing.T) {
	c := embeddedConfig(t, 1)
	c.Engines = append(c.Engines, EngineConfig{URL: EngineEmbedded, Name: "second", Path: c.Model.Path, Models: []string{"second"}, Aliases: []string{"other"}, Slots: 3})
	n := boot(t, c)
	require.NoError(t, n.WaitEngines(t.Context()))
	for _, tc := range []struct{ model, engine string }{{"tinyglm", "embedded-0"}, {"second", "second-0"}, {"other", "second-0"}} {
		var got taskView
		res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": tc.model, "model": tc.model, "prompt": "Country code of Peru"}, nil)
		require.Equal(t, http.StatusCreated, res.StatusCode)
		call(t, n, "GET", "/v1/tasks/"+tc.model+"?wait=60s", nil, &got)
		require.Equal(t, "completed", got.State)
		require.Contains(t, string(got.Attempts[0]), `"engine":"`+tc.engine+`"`)
	}
	var st struct {
		Engines []struct {
			Name   string   `json:"name"`
			Models []string `json:"models"`
			Limit  int      `json:"limit"`
		} `json:"engines"`
	}
	call(t, n, "GET", "/v1/status", nil, &st)
	require.Equal(t, "second-0", st.Engines[1].Name)
	require.Equal(t, []string{"second", "other"}, st.Engines[1].Models)
	require.Equal(t, 3, st.Engines[1].Limit)
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"model": "third", "prompt": "p"}, nil)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode)
}
