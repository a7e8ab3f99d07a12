package infer

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestCommandsAreRendered(t *testing.T) {
	f := CommandFields{Path: "/m/a model.gguf", Model: "glm-9b", Host: "127.0.0.1", Port: 4711, Socket: "/s/w0.sock", Slots: 8, GPU: "0,1"}
	long := f
	long.Ctx = 4096
	for _, tc := range []struct {
		args []string
		env  map[string]string
		f    CommandFields
		want string // with | between the arguments
		envs []string
	}{
		{Preset("llama-server"), nil, f, "llama-server|--model|/m/a model.gguf|--alias|glm-9b|--host|/s/w0.sock|--jinja|--parallel|8", nil},
		{Preset("llama-server"), nil, long, "llama-server|--model|/m/a model.gguf|--alias|glm-9b|--host|/s/w0.sock|--jinja|--parallel|8|--ctx-size|32768", nil},
		{Preset("vllm"), nil, long, "vllm|serve|/m/a model.gguf|--host|127.0.0.1|--port|4711|--served-model-name|glm-9b|--max-num-seqs|8|--max-model-len|4096", nil},
		{Preset("sglang"), nil, f, "python3|-m|sglang.launch_server|--model-path|/m/a model.gguf|--host|127.0.0.1|--port|4711|--served-model-name|glm-9b|--max-running-requests|8", nil},
		{[]string{"x", "", "$HOME; rm", "-p{{.Port}}", `{{if eq .GPU "1"}}--one{{end}}`}, nil, f, "x||$HOME; rm|-p4711", nil},
		{[]string{"x"}, map[string]string{"PORT": "{{.Port}}", "A": "b"}, f, "x", []string{"A=b", "PORT=4711"}},
	} {
		c, err := ParseCommand(tc.args, tc.env)
		require.NoError(t, err, tc.args)
		args, env, err := c.Render(tc.f)
		require.NoError(t, err)
		require.Equal(t, tc.want, strings.Join(args, "|"))
		require.Equal(t, tc.envs, env)
	}
}

func TestCommandsAreChecked(t *testing.T) {
	for _, tc := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{nil, nil, "names no program"},
		{[]string{""}, nil, "names no program"},
		{[]string{"{{.Path}}", "{{.Port}}"}, nil, "is a template"},
		{[]string{"x", "{{.Port"}, nil, "argument 1: template"},
		{[]string{"x", "{{.Prot}}"}, nil, "can't evaluate field Prot"},
		{[]string{"x", "{{.Port}}", "{{if not .Ctx}}{{.Nothing}}{{end}}"}, nil, "can't evaluate field Nothing"},
		{[]string{"x", "--port", "8000"}, nil, "does not say where the server listens"},
		{[]string{"x", "{{.Port}}", "{{.Socket}}"}, nil, "or says it twice"},
		{[]string{"x", "{{.Port}}\x00"}, nil, "zero byte"},
		{[]string{"x", "{{.Port}}"}, map[string]string{"A=B": "c"}, "is no name"},
		{[]string{"x", "{{.Port}}"}, map[string]string{"A": "{{"}, "env A: template"},
	} {
		_, err := ParseCommand(tc.args, tc.env)
		require.ErrorContains(t, err, tc.want, tc.args)
		require.Equal(t, fault.Invalid, fault.KindOf(err))
	}
}

// TestPresetsAreKnown: each of them is a command, and says where its model is and what it is called.
func TestPresetsAreKnown(t *testing.T) {
	require.Equal(t, []string{"llama-server", "sglang", "vllm"}, Presets())
	require.Nil(t, Preset("other"))
	for _, name := range Presets() {
		c, err := ParseCommand(Preset(name), nil)
		require.NoError(t, err, name)
		require.True(t, c.uses.path && c.uses.model, name)
		require.Equal(t, name == "llama-server", c.uses.socket)
	}
}
