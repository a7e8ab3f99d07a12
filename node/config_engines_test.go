package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEngineEntries(t *testing.T) {
	gguf := filepath.Join(t.TempDir(), "a.gguf")
	require.NoError(t, os.WriteFile(gguf, []byte("GGUF"), 0o600))
	for _, tc := range []struct{ engine, want string }{
		{"{url: embedded, path: FILE, gpu: 0, workers: 2, slots: 4, ctx: 2048, models: [glm-9b], aliases: [fast, cheap], name: nine}", ""},
		{"{url: embedded, path: FILE, gpu: 'GPU-8932f937-d72c,MIG-3/1'}", ""},
		{"{url: 'http://h:1/v1', aliases: [fast]}", ""},
		{"embedded", ""},
		{"{url: command, preset: vllm, path: DIR, gpu: 0, concurrency: 64, env: {HF_HUB_OFFLINE: 1}, models: [glm-9b], aliases: [fast]}", ""},
		{"{url: command, command: [serve, '--port={{.Port}}']}", ""},
		{"{url: command}", "engines[0].command: names no program (write [program, argument"},
		{"{url: command, preset: ollama, path: FILE}", "engines[0].preset: is ollama (use llama-server, sglang, vllm, or write the whole command"},
		{"{url: command, preset: vllm, command: [x], path: FILE}", "engines[0].command: is set beside preset"},
		{"{url: command, preset: vllm}", "engines[0].path: is empty (name the model's file or folder"},
		{"{url: command, preset: vllm, path: /nowhere}", "engines[0].path: is /nowhere, which cannot be read"},
		{"{url: command, command: [x, '{{.Prot}}']}", "can't evaluate field Prot"},
		{"{url: command, command: [x, '8000']}", "engines[0].command: does not say where the server listens, or says it twice (tell the server {{.Port}}"},
		{"{url: command, preset: vllm, path: FILE, models: [a, b]}", "engines[0].models: is a, b (the server serves one model"},
		{"{url: command, preset: vllm, path: FILE, models: ['--trust-remote-code']}", "does not begin like a flag"},
		{"{url: command, preset: vllm, path: FILE, ctx: 1}", "engines[0].ctx: is 1 (use at least 2, or 0 for the model's own"},
		{"{url: command, preset: vllm, path: FILE, slots: -1}", "engines[0].slots: is -1"},
		{"{url: command, preset: vllm, path: FILE, limits: {cpu: 1.5, memory: 8GiB, io_weight: 50, nice: 5}}", ""},
		{"{url: embedded, limits: {memory: 8GiB}}", ""},
		{"{url: embedded, limits: {memory: 8}}", "engines[0].limits.memory: is 8 (use at least 16MiB"},
		{"{url: embedded, limits: {cpu: -1}}", "engines[0].limits.cpu: is -1 (use 0.01 to 4096 processors"},
		{"{url: embedded, limits: {io_weight: 20000}}", "engines[0].limits.io_weight: is 20000 (use 1 to 10000"},
		{"{url: embedded, limits: {nice: -5}}", "engines[0].limits.nice: is -5 (use 1 to 19"},
		{"{url: embedded, limits: {memory: lots}}", "is no size"},
		{"{url: embedded, limits: {mem: 1GiB}}", "mem"},
		{"{url: 'http://h:1', limits: {cpu: 1}}", "engines[0].limits: is set, and the engine is http://h:1"},
		{"{url: embedded, preset: vllm}", "engines[0].preset: is set, and the engine is embedded (it is for url: command"},
		{"{url: echo, env: {A: b}}", "engines[0].env: is set"},
		{"{url: embedded, path: /nowhere.gguf}", "engines[0].path: is /nowhere.gguf, which is no file that can be read (name a GGUF file on this node's machine"},
		{"{url: embedded, models: [a]}", "engines[0].models: is a (an embedded engine serves one model"},
		{"{url: embedded, path: FILE, models: [a, b]}", "engines[0].models: is a, b (an embedded engine serves one model"},
		{"{url: embedded, gpu: '0 1'}", `engines[0].gpu: is "0 1" (use what CUDA_VISIBLE_DEVICES takes`},
		{"{url: embedded, workers: 65}", "engines[0].workers: is 65 (use 1 to 64, or 0 for model.workers"},
		{"{url: embedded, slots: 257}", "engines[0].slots: is 257 (use 1 to 256"},
		{"{url: embedded, ctx: 1}", "engines[0].ctx: is 1 (use at least 2"},
		{"{url: echo, gpu: 1}", "engines[0].gpu: is set, and the engine is echo (it is for url: embedded"},
		{"{url: 'http://h:1', path: FILE}", "engines[0].path: is set, and the engine is http://h:1 (it is for url: embedded"},
		{"{url: echo, aliases: ['']}", `engines[0].aliases[0]: is "" (use a name that tasks may ask for`},
		{"{url: echo, aliases: [a, a]}", `engines[0].aliases[1]: is "a" (use a name`},
		{"{url: echo, models: [m], aliases: [m]}", `engines[0].aliases[0]: is "m" (use a name`},
		{"{url: echo, aliases: [default]}", `engines[0].aliases[0]: is "default" (use a name`},
		{"{url: echo, weight: 2}", "weight"},
	} {
		_, _, err := Load(writeConfig(t, "engines: ["+strings.NewReplacer("FILE", gguf, "DIR", filepath.Dir(gguf)).Replace(tc.engine)+"]"), nil, nil)
		if tc.want == "" {
			require.NoError(t, err, tc.engine)
			continue
		}
		require.ErrorContains(t, err, tc.want, tc.engine)
	}
	c, _, err := Load(writeConfig(t, "engines: [{url: embedded, path: "+gguf+", gpu: 0}, {url: embedded, name: other, path: "+gguf+"}]"), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []EngineConfig{{URL: EngineEmbedded, Path: gguf, GPU: "0"}, {URL: EngineEmbedded, Name: "other", Path: gguf}}, c.Engines)
}

// TestTwoHostsAlike: engines that were configured by their URLs alone keep names of their own.
func TestTwoHostsAlike(t *testing.T) {
	c := testConfig(t)
	c.Engines = []EngineConfig{{URL: "http://127.0.0.1:1/a/v1"}, {URL: "http://127.0.0.1:1/b/v1"}, {URL: EngineEcho}}
	n := boot(t, c)
	var names []string
	for _, e := range n.Engines() {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:1-2", "echo"}, names)
}
