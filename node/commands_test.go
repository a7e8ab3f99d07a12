package node

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// childEnv makes this binary a server that answers with what its model's file says; "crash" in a prompt ends it.
const childEnv = "AUTOGLM_TEST_CHILD"

func childMain() {
	port := flag.String("port", "", "")
	path := flag.String("path", "", "")
	name := flag.String("name", "", "")
	flag.Parse()
	b, err := os.ReadFile(*path)
	if err != nil || string(b) == "broken" {
		fmt.Fprintln(os.Stderr, "this is no model")
		os.Exit(3)
	}
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		q, _ := io.ReadAll(r.Body)
		if strings.Contains(string(q), "crash") {
			fmt.Fprintln(os.Stderr, "it was too much for me")
			os.Exit(7)
		}
		fmt.Fprintf(w, `{"model":%q,"choices":[{"message":{"content":%q},"finish_reason":"stop"}]}`, *name, b)
	})
	l, err := net.Listen("tcp", "127.0.0.1:"+*port)
	if err != nil {
		panic(err)
	}
	_ = http.Serve(l, nil)
}

// childCommand starts this binary as a server.
func childCommand(t testing.TB) []string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return []string{self, "--port", "{{.Port}}", "--path", "{{.Path}}", "--name={{.Model}}"}
}

func modelFile(t testing.TB, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), says+".gguf")
	require.NoError(t, os.WriteFile(path, []byte(says), 0o600))
	return path
}

// TestACommandIsAnEngine like any other: configured, swapped, rolled back, loaded again after a restart, unloaded.
func TestACommandIsAnEngine(t *testing.T) {
	c := testConfig(t)
	one, two := modelFile(t, "one"), modelFile(t, "two")
	env := map[string]string{childEnv: "yes"}
	c.Engines = []EngineConfig{{URL: EngineCommand, Name: "own", Command: childCommand(t), Env: env, Path: one, Models: []string{"m"}, Aliases: []string{"fast"}, Concurrency: 8}}
	c.Model.RestartDelay = time.Millisecond
	n := boot(t, c)
	require.NoError(t, n.WaitEngines(t.Context()))
	got := ask(t, n, "a", "fast")
	require.Equal(t, "one", got.Answer)
	require.Equal(t, "own-0", engineOf(t, got))

	e := change(t, n, "POST", "/v1/engines/own/swap", wire.EngineSwap{Spec: wire.EngineSpec{Path: modelFile(t, "broken")}})
	require.Equal(t, "failed", e.Change.State)
	require.Contains(t, e.Change.Error, "worker own.2-0 ended: exit status 3; it said: this is no model")
	e = change(t, n, "POST", "/v1/engines/own/swap", wire.EngineSwap{Spec: wire.EngineSpec{Path: two}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, "two", ask(t, n, "b", "m").Answer)
	require.Equal(t, two, e.Spec.Path)
	require.Equal(t, "(set)", e.Spec.Env[childEnv], "a variable may be a secret")
	e = change(t, n, "POST", "/v1/engines/own/rollback", nil)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, "one", ask(t, n, "c", "m").Answer)

	res := call(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "more", Spec: wire.EngineSpec{Path: two, Command: []string{"sh", "{{.Port}}"}}}, nil)
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	res = call(t, n, "POST", "/v1/engines/own/swap", wire.EngineSwap{Spec: wire.EngineSpec{Env: map[string]string{childEnv: "yes", "LD_PRELOAD": "/tmp/x.so"}}}, nil)
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	e = change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "more", Spec: wire.EngineSpec{Path: two, Command: childCommand(t), Env: env}}) // as the configuration has it
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, []string{"more"}, e.Spec.Models)
	require.Equal(t, "two", ask(t, n, "d", "more").Answer)
	st, err := os.Stat(n.dataPath(tableFile))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, st.Mode(), "it has the variables")
	halt(t, n)
	n = boot(t, c)
	require.NoError(t, n.WaitEngines(t.Context()))
	require.Equal(t, "two", ask(t, n, "e", "more").Answer)
	halt(t, n)
	c.Engines = []EngineConfig{{URL: EngineEcho}} // nor is what was loaded once allowed for ever
	n = boot(t, c)
	e, there := engineNamed(t, n, "more")
	require.True(t, there)
	require.Equal(t, "failed", e.State)
	require.Contains(t, e.Change.Error, "model.allowed_commands")
}

// TestACommandThatCrashes costs the task that it died of its tries, and no other task more than one.
func TestACommandThatCrashes(t *testing.T) {
	c := testConfig(t)
	c.Engines = []EngineConfig{
		{URL: EngineCommand, Name: "own", Command: childCommand(t), Env: map[string]string{childEnv: "yes"}, Path: modelFile(t, "one"), Models: []string{"m"}},
		{URL: EngineEcho, Models: []string{"other"}},
	}
	c.Model.RestartDelay, c.Model.RestartMax, c.Task.Attempts = time.Millisecond, 10*time.Millisecond, 2
	n := boot(t, c)
	require.NoError(t, n.WaitEngines(t.Context()))
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "poison", "model": "m", "prompt": "crash"}, nil).StatusCode)
	var got taskView
	call(t, n, "GET", "/v1/tasks/poison?wait=60s", nil, &got)
	require.Equal(t, "failed", got.State)
	require.Contains(t, string(got.Attempts[0]), "engine own-0: its process ended during the request: exit status 7")
	require.Equal(t, "completed", ask(t, n, "beside", "other").State)
	after := ask(t, n, "after", "m")
	require.Equal(t, "one", after.Answer)
	require.GreaterOrEqual(t, n.table.all()[0].pool.Status()[0].Restarts, 1)
}

// TestATaskThatEatsMemory: its engine's process dies of its limit alone. The task fails after its tries, and every other one is answered, by this
// engine as by the one beside it.
func TestATaskThatEatsMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hungry")
	out, err := exec.Command("go", "build", "-o", path, "../actors/infer/testdata/hungry").CombinedOutput()
	require.NoError(t, err, "%s", out)
	c := testConfig(t)
	c.Engines = []EngineConfig{
		{URL: EngineCommand, Name: "own", Command: []string{path, "--listen", "{{.Host}}:{{.Port}}"}, Models: []string{"m"}, Limits: &LimitsConfig{Memory: 256 << 20, Nice: 1}},
		{URL: EngineEcho, Models: []string{"other"}},
	}
	c.Model.RestartDelay, c.Model.RestartMax, c.Task.Attempts = time.Millisecond, 10*time.Millisecond, 2
	n := boot(t, c)
	require.NoError(t, n.WaitEngines(t.Context()))
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "poison", "model": "m", "prompt": "eat"}, nil).StatusCode)
	for i := range 10 {
		for _, model := range []string{"m", "other"} {
			id := fmt.Sprint(model, i)
			require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "model": model, "prompt": "p", "retry": map[string]any{"attempts": 10}}, nil).StatusCode)
		}
	}
	var got taskView
	call(t, n, "GET", "/v1/tasks/poison?wait=60s", nil, &got)
	require.Equal(t, "failed", got.State)
	for i := range 10 {
		for _, model := range []string{"m", "other"} {
			call(t, n, "GET", fmt.Sprintf("/v1/tasks/%s%d?wait=60s", model, i), nil, &got)
			require.Equal(t, "completed", got.State, "%s%d: %s", model, i, got.Attempts)
		}
	}
	s := n.table.all()[0].pool.Status()[0]
	require.Equal(t, 2, s.Restarts, "once for each try")
	require.Contains(t, s.LastExit, "limits.memory = 256MiB: raise that")
	e, there := engineNamed(t, n, "own")
	require.True(t, there)
	require.Equal(t, &wire.EngineLimits{Memory: "256MiB", Nice: 1}, e.Spec.Limits)
	require.Contains(t, e.Engines[0].Limits, "memory 256MiB")

	e = change(t, n, "POST", "/v1/engines/own/swap", wire.EngineSwap{Spec: wire.EngineSpec{Limits: &wire.EngineLimits{Memory: "2GiB"}}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, "completed", ask(t, n, "more", "m").State)
	res := call(t, n, "POST", "/v1/engines/own/swap", wire.EngineSwap{Spec: wire.EngineSpec{Limits: &wire.EngineLimits{Memory: "lots"}}}, nil)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode)
}

func TestCommandsAreAllowed(t *testing.T) {
	own := EngineConfig{URL: EngineCommand, Name: "own", Command: []string{"serve", "{{.Port}}"}, Env: map[string]string{"A": "b"}}
	with := func(change func(*EngineConfig)) *EngineConfig { c := own; change(&c); return &c }
	preset := func(name string, env map[string]string) *EngineConfig {
		return &EngineConfig{URL: EngineCommand, Preset: name, Env: env}
	}
	for name, tc := range map[string]struct {
		allowed []string
		c       *EngineConfig
		want    string // the remedy's; empty: it is allowed
	}{
		"a file":                        {nil, &EngineConfig{URL: EngineEmbedded}, ""},
		"as configured":                 {nil, with(func(c *EngineConfig) { c.Path, c.GPU, c.Name = "/other", "1", "x" }), ""},
		"a shell's words":               {nil, with(func(c *EngineConfig) { c.Models = []string{"$(id)"} }), "any"},
		"a path with a shell's words":   {nil, with(func(c *EngineConfig) { c.Path = "/models/x;id" }), "any"},
		"a GPU with a line's end":       {nil, with(func(c *EngineConfig) { c.GPU = "0\n" }), "any"},
		"a shell's words, any":          {[]string{"any"}, with(func(c *EngineConfig) { c.Models = []string{"$(id)"} }), ""},
		"another argument":              {nil, with(func(c *EngineConfig) { c.Command = []string{"serve", "--evil", "{{.Port}}"} }), "any"},
		"another variable":              {nil, with(func(c *EngineConfig) { c.Env = map[string]string{"A": "c"} }), "any"},
		"another one, any":              {[]string{"vllm", "any"}, with(func(c *EngineConfig) { c.Command = []string{"x", "{{.Port}}"} }), ""},
		"a preset":                      {nil, preset("vllm", nil), "vllm"},
		"the preset":                    {[]string{"vllm"}, preset("vllm", nil), ""},
		"another preset":                {[]string{"vllm"}, preset("sglang", nil), "sglang"},
		"the preset with a variable":    {[]string{"vllm"}, preset("vllm", map[string]string{"LD_PRELOAD": "x"}), "any"},
		"a command like the preset":     {[]string{"vllm"}, with(func(c *EngineConfig) { c.Command = []string{"vllm", "{{.Port}}"} }), "any"},
		"the configured, of other name": {nil, with(func(c *EngineConfig) { c.Preset = "vllm" }), "any"},
	} {
		err := commandAllowed(tc.allowed, []EngineConfig{{URL: EngineEcho}, own}, tc.c)
		if tc.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.Equal(t, fault.Refused, fault.KindOf(err), name)
		require.Contains(t, fault.RemedyOf(err), "or "+tc.want+" into model.allowed_commands", name)
	}
}
