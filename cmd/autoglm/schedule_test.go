package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestScheduleCommands runs the commands of schedules against a node.
func TestScheduleCommands(t *testing.T) {
	cfg := node.Default()
	cfg.DataDir, cfg.Shards, cfg.HTTP.Listen, cfg.Engines = t.TempDir(), 2, "127.0.0.1:0", []node.EngineConfig{{URL: node.EngineEcho}}
	n, err := node.New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, n.Start(ctx))
	t.Cleanup(func() { require.NoError(t, n.Stop(context.WithoutCancel(ctx))) })
	t.Setenv(cli.ServerEnv, "http://"+n.HTTPAddr())
	run := func(args ...string) (string, error) {
		out, _, err := runExport(ctx, `{"prompt":"from a file","priority":2}`, append([]string{"schedule"}, args...)...)
		return out, err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		require.NoError(t, err)
		return out
	}
	shown := must("create", "nightly", "30 2 * * *", "--zone", "Europe/Berlin", "--prompt", "good night", "--start", "2126-03-29T00:00:00Z")
	require.Regexp(t, `next +Fri 2126-03-29 02:30 \+01:00, in 3[0-9]{4} days\n`, shown)
	require.Contains(t, shown, "policy    overlap skip, catch up once\n")
	require.Contains(t, must("create", "often", "*/5 * * * *", "--task", "-", "--overlap", "allow", "--catch-up", "all", "--catch-up-max", "7", "--jitter", "1m"), "catch up all up to 7, jitter 1m0s")
	var s wire.Schedule
	require.NoError(t, json.Unmarshal([]byte(must("get", "often", "-o", "json")), &s))
	require.Equal(t, []any{"from a file", task.High}, []any{s.Task.Prompt, *s.Task.Priority})
	require.Contains(t, must("run", "nightly"), ", by hand")
	require.Contains(t, must("pause", "nightly"), "status    paused")
	require.Regexp(t, `nightly +paused +30 2 \* \* \* +Europe/Berlin +1 +0 +0 +0 +nightly-[0-9a-f]{8}-run-`, must("list"))
	require.Contains(t, must("resume", "nightly"), "status    active")
	require.Empty(t, must("delete", "nightly"))
	_, err = run("get", "nightly")
	require.Equal(t, cli.ExitNotFound, cli.Code(err))
	for _, bad := range [][]string{{"create", "x", "@daily"}, {"create", "x", "@daily", "-p", "x", "--task", "y"}, {"create", "x", "@daily", "--task", "nowhere.json"},
		{"create", "x", "soon", "-p", "x"}, {"create", "x", "@daily", "-p", "x", "--end", "soon"}, {"create", "x", "@daily", "-p", "x", "--zone", "Moon"}, {"nonsense"}} {
		_, err := run(bad...)
		require.Equal(t, cli.ExitUsage, cli.Code(err), "%v: %v", bad, err)
	}
}
