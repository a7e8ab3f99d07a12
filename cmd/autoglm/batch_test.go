package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node"
)

// TestBatchCommands runs the commands of batches against a node.
func TestBatchCommands(t *testing.T) {
	cfg := node.Default()
	cfg.DataDir, cfg.Shards, cfg.HTTP.Listen, cfg.Engines = t.TempDir(), 2, "127.0.0.1:0", []node.EngineConfig{{URL: node.EngineEcho}}
	n, err := node.New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, n.Start(ctx))
	t.Cleanup(func() { require.NoError(t, n.Stop(context.WithoutCancel(ctx))) })
	run := func(args ...string) (string, error) {
		var out, told bytes.Buffer
		app := cli.New("test")
		app.Out, app.Err = &out, &told
		root := newRoot(app)
		root.SetArgs(append(append([]string{"batch"}, args...), "--server", "http://"+n.HTTPAddr()))
		err := root.ExecuteContext(ctx)
		return out.String(), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		require.NoError(t, err)
		return out
	}
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	line := func(id, prompt string) string {
		return `{"custom_id":"` + id + `","method":"POST","url":"/v1/tasks","body":{"prompt":"` + prompt + `"}}` + "\n"
	}
	require.NoError(t, os.WriteFile(in, []byte(line("a", "x")+line("b", "y")), 0o600))
	out := must("create", in, "--endpoint", "/v1/tasks", "--window", "1h", "--metadata", "k=v", "--wait")
	require.Contains(t, out, "completed")
	require.Contains(t, out, "2: 2 completed, 0 failed")
	id := strings.Fields(out)[1]

	answers, errs := filepath.Join(dir, "out.jsonl"), filepath.Join(dir, "err.jsonl")
	require.Empty(t, must("results", id, "--out", answers, "--errors", errs))
	b, err := os.ReadFile(answers)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(b), "\n"))
	require.Equal(t, string(b), must("results", id))
	whole := b
	b, err = os.ReadFile(errs)
	require.NoError(t, err)
	require.Empty(t, b, "no line failed")

	require.NoError(t, os.WriteFile(in, []byte(line("a", `#echo fail=always kind=invalid\nx`)), 0o600))
	out, err = run("create", in, "--endpoint", "/v1/tasks", "--wait")
	require.Equal(t, cli.ExitTasks, cli.Code(err), "a line failed: %v", err)
	failed := strings.Fields(out)[1]
	var got struct {
		ID      string `json:"id"`
		RetryOf string `json:"retry_of"`
	}
	require.NoError(t, json.Unmarshal([]byte(must("retry", failed, "-o", "json")), &got))
	require.Equal(t, failed, got.RetryOf)
	_, err = run("watch", got.ID)
	require.Equal(t, cli.ExitTasks, cli.Code(err))
	out = must("list", "--limit", "2")
	require.Contains(t, out, got.ID)
	require.Contains(t, out, failed)
	require.NotContains(t, out, id)
	require.Regexp(t, id+` +completed +2 +2 +0 .* /v1/tasks +file-[0-9a-z]+`, must("list"), "with its output")
	require.Contains(t, must("get", id), "/v1/tasks")
	require.Regexp(t, `created +\S+, \d+m?s ago\nended +\S+, after \d+s\n`, must("get", id))
	var dead bytes.Buffer
	app := cli.New("test")
	app.Out, app.Err = &dead, io.Discard
	root := newRoot(app)
	root.SetArgs([]string{"dead", "list", "--server", "http://" + n.HTTPAddr()})
	require.NoError(t, root.ExecuteContext(ctx))
	require.Contains(t, dead.String(), failed+" a ", "the batch and the custom_id of a line that failed")

	require.NoError(t, json.Unmarshal([]byte(must("retry", failed, "--window", "48h", "--priority", "high", "-o", "json")), &got))
	var again struct {
		Window   string `json:"completion_window"`
		Priority int    `json:"priority"`
	}
	require.NoError(t, json.Unmarshal([]byte(must("get", got.ID, "-o", "json")), &again))
	require.Equal(t, "48h", again.Window)
	require.Equal(t, 2, again.Priority)
	require.Equal(t, string(whole), must("results", id, "--out", "-"), "- is the standard output")
	for _, args := range [][]string{
		{"results", id, "--out", answers, "--errors", dir + "/./out.jsonl"}, {"results", id, "--errors", "-"},
		{"create", dir}, {"list", "--limit", "0"}, {"frob"},
	} {
		_, err = run(args...)
		require.Equal(t, cli.ExitUsage, cli.Code(err), "%v: %v", args, err)
	}
	b, err = os.ReadFile(answers)
	require.NoError(t, err)
	require.Equal(t, string(whole), string(b), "nothing was overwritten")

	_, err = run("cancel", id)
	require.Equal(t, cli.ExitRefused, cli.Code(err), "%v", err)
	require.Contains(t, err.Error(), "cannot be cancelled")
	_, err = run("get", "batch_x")
	require.Equal(t, cli.ExitNotFound, cli.Code(err))
	_, err = run("create", filepath.Join(dir, "nothing"))
	require.Equal(t, cli.ExitUsage, cli.Code(err))
	_, err = run("create", in, "--window", "soon")
	require.Equal(t, cli.ExitUsage, cli.Code(err), "%v", err)
	require.NoError(t, os.WriteFile(in, []byte("{\n"), 0o600))
	out, err = run("create", in, "--wait")
	require.Equal(t, cli.ExitTasks, cli.Code(err))
	require.Contains(t, out, "line 1     invalid_json_line")
}
