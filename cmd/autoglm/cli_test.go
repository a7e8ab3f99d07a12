package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/trial"
	"github.com/open-autoglm/autoglm/node"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/client"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"autoglm": main})
}

// TestScripts runs the conversations in testdata with the program. `fake [echo]` starts a
// node in memory, whose tasks `answer ID TEXT` and `refuse ID TEXT` end, and which `unready
// REASON` makes not ready; `exits N` runs a command and checks its exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv(cli.ServerEnv, "http://127.0.0.1:1") // nothing listens there
			f := apitest.New()
			e.Values["fake"] = f
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fake": func(ts *testscript.TestScript, _ bool, args []string) {
				f := ts.Value("fake").(*apitest.Fake)
				if len(args) == 1 && args[0] == "echo" {
					f.AutoAnswer = apitest.Echo
				}
				ts.Setenv(cli.ServerEnv, apitest.Serve(t, f))
			},
			"answer": func(ts *testscript.TestScript, _ bool, args []string) {
				f := ts.Value("fake").(*apitest.Fake)
				f.Claim(args[0])
				f.Answer(args[0], args[1])
			},
			"refuse": func(ts *testscript.TestScript, _ bool, args []string) {
				f := ts.Value("fake").(*apitest.Fake)
				f.Claim(args[0])
				f.Refuse(args[0], args[1])
			},
			"unready": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("fake").(*apitest.Fake).SetReady(args[0])
			},
			"secured": func(ts *testscript.TestScript, _ bool, args []string) { secured(t, ts, ts.MkAbs(args[0])) },
			"exits":   exits,
		},
	})
}

// secured starts a node of a cluster, reached from other machines: `secured IDENTITY`.
func secured(t *testing.T, ts *testscript.TestScript, identity string) {
	cfg := echoConfig(t)
	cfg.HTTP.Listen, cfg.Cluster.Identity, cfg.Cluster.Listen, cfg.Cluster.Expect = "0.0.0.0:0", identity, "127.0.0.1:0", 1
	n, err := node.New(cfg, slog.New(slog.DiscardHandler))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ts.Check(n.Start(ctx))
	ts.Defer(func() {
		stop, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = n.Stop(stop)
	})
	_, port, err := net.SplitHostPort(n.HTTPAddr())
	ts.Check(err)
	ts.Setenv(cli.ServerEnv, "https://localhost:"+port)
}

// exits runs `exits N autoglm …` like exec, and leaves the outputs for stdout and stderr.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%v exits %d, not %d", args[1:], got, want)
	}
}

func echoConfig(t *testing.T) node.Config {
	cfg := node.Default()
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.HTTP.Listen = "127.0.0.1:0"
	cfg.Shards = 2
	cfg.Engines = []node.EngineConfig{{URL: node.EngineEcho}}
	return cfg
}

// A node that is told to stop while tasks wait stops without an error, and has them all
// when it starts again.
func TestServeStopsInOrder(t *testing.T) {
	cfg := echoConfig(t)
	later := time.Now().Add(time.Hour)
	addrs := make(chan string, 2)
	log := slog.New(addrHandler{slog.DiscardHandler, addrs})
	for round := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- serve(ctx, cfg, log, "test") }()
		var c *client.Client
		select {
		case addr := <-addrs:
			var err error
			c, err = client.New(addr)
			require.NoError(t, err)
		case err := <-ended:
			t.Fatal(err)
		}
		if round == 0 {
			for _, id := range []string{"a", "b"} {
				_, err := c.Submit(t.Context(), &task.Spec{ID: id, Prompt: id, NotBefore: &later})
				require.NoError(t, err)
			}
		}
		st, err := c.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, int64(2), st.Tasks["pending"])
		cancel()
		require.NoError(t, <-ended)
	}
}

// addrHandler sends the address in the log of a node that serves.
type addrHandler struct {
	slog.Handler
	addrs chan string
}

func (h addrHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h addrHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "serving" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "http" {
				h.addrs <- a.Value.String()
			}
			return true
		})
	}
	return nil
}

func TestServeRefusesWhatCannotWork(t *testing.T) {
	cfg := echoConfig(t)
	require.NoError(t, os.WriteFile(cfg.DataDir, nil, 0o600)) // a file where the folder should be
	require.Error(t, serve(t.Context(), cfg, slog.New(slog.DiscardHandler), "test"))
}

// The demo with an engine that echoes: every task completes, none is right.
func TestDemoWithEcho(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	var out, log bytes.Buffer
	app := &cli.App{Out: &out, Err: &log, Output: "json"}
	results := filepath.Join(t.TempDir(), "results.jsonl")
	err := trial.Run(t.Context(), app, trial.Options{Config: echoConfig(t), Out: results, Alone: 10, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err, log.String())
	var r struct {
		Tasks, Completed, Right int
		Alone                   int `json:"alone_tasks"`
		Same                    int `json:"alone_same_answers"`
		Jobs                    []struct{ Tasks int }
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &r), out.String())
	require.GreaterOrEqual(t, r.Tasks, 300)
	require.Equal(t, r.Tasks, r.Completed)
	require.Zero(t, r.Right)
	require.Equal(t, 10, r.Alone)
	require.Equal(t, 10, r.Same)
	b, err := os.ReadFile(results)
	require.NoError(t, err)
	require.Equal(t, r.Tasks, strings.Count(string(b), "\n"))

	out.Reset()
	app.Output = "table"
	require.NoError(t, trial.Run(t.Context(), app, trial.Options{Config: echoConfig(t), Alone: 1, Log: slog.New(slog.DiscardHandler)}))
	require.Contains(t, out.String(), "one worker, one request at a time")
}

func TestWaitSet(t *testing.T) {
	var w waitSet
	require.False(t, w.remove("a"))
	w.add("a")
	w.add("a")
	w.add("b")
	require.Equal(t, 2, w.len())
	require.True(t, w.remove("a"))
	require.False(t, w.remove("a"))
	require.Equal(t, 1, w.len())
}

// A results file that was cut off in the middle goes on without a gap or a repeat.
func TestResultsResumeAfterACut(t *testing.T) {
	f := apitest.New()
	f.AutoAnswer = apitest.Echo
	t.Setenv(cli.ServerEnv, apitest.Serve(t, f))
	var in strings.Builder
	for i := range 600 {
		in.WriteString(`{"task_id":"t` + strconv.Itoa(i) + `","prompt":"p"}` + "\n")
	}
	run := func(args ...string) {
		t.Helper()
		app := &cli.App{In: strings.NewReader(in.String()), Out: io.Discard, Err: io.Discard, Output: "table"}
		root := newRoot(app)
		root.SetArgs(args)
		require.NoError(t, root.ExecuteContext(t.Context()))
	}
	run("submit", "-")
	whole, cut := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "cut")
	run("results", "--out", whole)
	run("results", "--out", cut, "--resume")
	want, err := os.ReadFile(whole)
	require.NoError(t, err)
	// as after a kill: the mark is of the first page, the file has a part of the second
	first := bytes.Index(want, []byte(`"cursor"`))
	end := first + bytes.IndexByte(want[first:], '\n') + 1
	var res struct{ Cursor string }
	require.NoError(t, json.Unmarshal(want[bytes.LastIndexByte(want[:end-1], '\n')+1:end], &res))
	m, err := json.Marshal(mark{Cursor: res.Cursor, Size: int64(end)})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cut+".cursor", m, 0o600))
	require.NoError(t, os.WriteFile(cut, want[:end+100], 0o600))
	run("results", "--out", cut, "--resume")
	got, err := os.ReadFile(cut)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
