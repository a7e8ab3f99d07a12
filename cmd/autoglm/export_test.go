package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// runExport runs one command and returns what it wrote.
func runExport(ctx context.Context, in string, args ...string) (out, told string, err error) {
	var o, e bytes.Buffer
	app := &cli.App{In: strings.NewReader(in), Out: &o, Err: &e, Output: "table"}
	root := newRoot(app)
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	return o.String(), e.String(), err
}

// exported is a fake node with n results.
func exported(t *testing.T, n int) {
	f := apitest.New()
	f.AutoAnswer = apitest.Echo
	t.Setenv(cli.ServerEnv, apitest.Serve(t, f))
	var in strings.Builder
	for i := range n {
		in.WriteString(`{"task_id":"t` + strconv.Itoa(i) + `","prompt":"=p` + strconv.Itoa(i) + `","metadata":{"odd":"` + strconv.Itoa(i%2) + `"}}` + "\n")
	}
	_, _, err := runExport(t.Context(), in.String(), "submit", "-")
	require.NoError(t, err)
}

func TestExport(t *testing.T) {
	exported(t, 700) // some pages
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must := func(args ...string) (out, told string) {
		t.Helper()
		out, told, err := runExport(t.Context(), "", append([]string{"export"}, args...)...)
		require.NoError(t, err)
		return out, told
	}
	must("--out", path("a.csv"))
	all := readCSV(t, path("a.csv"))
	require.Equal(t, result.Columns(), all[0])
	require.Len(t, all, 701)
	seen := map[string]bool{}
	for _, f := range all[1:] { // in no certain order: they were submitted side by side
		seen[f[0]] = true
		require.Equal(t, []string{"completed", "fake", "", "=p" + f[0][1:], "stop", "3", "2"}, []string{f[3], f[4], f[5], f[6], f[7], f[8], f[9]})
	}
	require.Len(t, seen, 700)

	must("--out", path("b.parquet"), "--prompt")
	b, err := os.ReadFile(path("b.parquet"))
	require.NoError(t, err)
	rows, err := parquet.Read[result.Row](bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	require.Len(t, rows, 700)
	n, err := strconv.Atoi(rows[0].TaskID[1:])
	require.NoError(t, err)
	require.Equal(t, "=p"+rows[0].TaskID[1:], rows[0].Prompt)
	require.Equal(t, `{"odd":"`+strconv.Itoa(n%2)+`"}`, rows[0].Metadata)

	out, told := must("--metadata", "odd=1", "--format", "jsonl")
	require.Empty(t, told)
	require.Equal(t, 350, strings.Count(out, "\n"))
	require.NotContains(t, out, "cursor")
	var r wire.Result
	require.NoError(t, json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &r))
	require.Equal(t, "=p"+r.ID[1:], r.Answer)
	require.Equal(t, "1", r.Metadata["odd"])

	must("--out", path("a.csv"), "--escape-formulas", "--state", "completed") // in place of the one before
	last := readCSV(t, path("a.csv"))[700]
	require.Equal(t, "'=p"+last[0][1:], last[6])

	_, told = must("--out", path("c.jsonl"))
	cursor := told[strings.LastIndex(told, " ")+1:]
	out, _ = must("--cursor", strings.TrimSpace(cursor))
	require.Empty(t, out, "there is nothing new")
	out, _ = must("--out", path("c.jsonl"), "-o", "json")
	require.Contains(t, out, `"results":700`)

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3, "nothing is left beside the files")
	for _, args := range [][]string{
		{"--out", path("x.txt")}, {"--format", "xlsx"}, {"--out", path("x.parquet"), "--follow"}, {"--format", "parquet", "--follow"}, {"--state", "running"}, {"--escape-formulas"},
		{"--out", path("no/such/folder.csv")}, {"--follow", "--out", path("a.csv")},
	} {
		_, _, err := runExport(t.Context(), "", append([]string{"export"}, args...)...)
		require.Equal(t, cli.ExitUsage, cli.Code(err), "%v: %v", args, err)
	}

	// An export that breaks off leaves the file that was there, and nothing else.
	before, err := os.ReadFile(path("a.csv"))
	require.NoError(t, err)
	_, _, err = runExport(t.Context(), "", "export", "--out", path("a.csv"), "--cursor", "nonsense")
	require.Error(t, err)
	after, err := os.ReadFile(path("a.csv"))
	require.NoError(t, err)
	require.Equal(t, before, after)
	entries, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3)
}

func readCSV(t *testing.T, path string) [][]string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	all, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	require.NoError(t, err)
	return all
}

// TestAnExportThatGrows is stopped, cut as by a kill, and goes on without a gap or a repeat.
func TestAnExportThatGrows(t *testing.T) {
	exported(t, 600)
	for _, format := range []string{"csv", "jsonl"} {
		dir := t.TempDir()
		whole, grown := filepath.Join(dir, "whole."+format), filepath.Join(dir, "grown."+format)
		_, _, err := runExport(t.Context(), "", "export", "--out", whole)
		require.NoError(t, err)
		want, err := os.ReadFile(whole)
		require.NoError(t, err)
		follow := func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, _, err := runExport(ctx, "", "export", "--follow", "--out", grown)
				done <- err
			}()
			require.Eventually(t, func() bool { b, _ := os.ReadFile(grown); return len(b) == len(want) }, 30*time.Second, 5*time.Millisecond)
			cancel()
			require.NoError(t, <-done)
			got, err := os.ReadFile(grown)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		}
		follow()
		// As after a kill: the mark is of the first page, or before the first line, and the file has a part of what follows.
		var m mark
		b, err := os.ReadFile(grown + ".cursor")
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &m))
		require.EqualValues(t, len(want), m.Size)
		for _, lines := range []int{256, 0} {
			m.Cursor, m.Size = "", 0
			if lines > 0 {
				m.Cursor = strconv.Itoa(lines) // the fake's cursors are offsets
				if format == "csv" {
					lines++
				}
				m.Size = int64(endOf(want, lines))
			}
			b, err = json.Marshal(m)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(grown+".cursor", b, 0o600))
			require.NoError(t, os.WriteFile(grown, want[:m.Size+70], 0o600))
			follow()
		}
		for _, args := range [][]string{{"--state", "failed"}, {"--prompt"}, {"--cursor", "3"}} {
			_, _, err = runExport(t.Context(), "", append([]string{"export", "--follow", "--out", grown}, args...)...)
			require.Equal(t, cli.ExitUsage, cli.Code(err), "%v: %v", args, err)
		}
	}
}

func endOf(b []byte, lines int) (end int) {
	for range lines {
		end += bytes.IndexByte(b[end:], '\n') + 1
	}
	return end
}

// TestAResultIsTheSameRow: from the API, or from the record itself.
func TestAResultIsTheSameRow(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	for name, r := range map[string]*task.Record{
		"answered": {State: task.Completed, Spec: &task.Spec{Prompt: "p", Metadata: map[string]string{"a": "b"}}, Model: "m", CreatedAt: at, EndedAt: at.Add(1000), Attempt: 3,
			Answers: []task.Answer{{Text: "x", PromptTokens: 1, OutputTokens: 2}, {Text: "y", FinishReason: "stop", Model: "n", PromptTokens: 3, OutputTokens: 4}}},
		"a request": {State: task.Completed, Spec: &task.Spec{Request: json.RawMessage(`{"a":1}`)}, Line: &task.Line{Batch: "b", CustomID: "c"}, CreatedAt: at, EndedAt: at, Attempt: 1,
			Answers: []task.Answer{{Status: 200, Body: json.RawMessage(`{"choices":[{"message":{"content":"hi"}}]}`)}}},
		"refused": {State: task.Failed, Spec: &task.Spec{Prompt: "p"}, CreatedAt: at, EndedAt: at, Error: &task.Failure{Kind: "invalid", Message: "no", Status: 400, Body: json.RawMessage(`{"e":1}`)}},
		"failed":  {State: task.Failed, Spec: &task.Spec{Prompt: "p"}, CreatedAt: at, EndedAt: at, Error: &task.Failure{Kind: "timeout", Message: "late"}},
	} {
		v := wire.ResultOf(name, r)
		b, err := json.Marshal(v)
		require.NoError(t, err)
		var back wire.Result
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, result.Of(name, r, false), rowOf(&back), name)
	}
}

// TestSinkCommands runs the commands of sinks, and an export of a batch, against a node.
func TestSinkCommands(t *testing.T) {
	out := t.TempDir()
	cfg := node.Default()
	cfg.DataDir, cfg.Shards, cfg.HTTP.Listen, cfg.Engines = t.TempDir(), 2, "127.0.0.1:0", []node.EngineConfig{{URL: node.EngineEcho}}
	cfg.Sink.AllowedDirs = []string{out}
	n, err := node.New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, n.Start(ctx))
	t.Cleanup(func() { require.NoError(t, n.Stop(context.WithoutCancel(ctx))) })
	t.Setenv(cli.ServerEnv, "http://"+n.HTTPAddr())
	run := func(args ...string) (string, error) {
		out, _, err := runExport(ctx, `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"x"}}`+"\n", args...)
		return out, err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		require.NoError(t, err)
		return out
	}
	shown := must("sink", "create", "answers", "file://"+out+"/a", "--format", "csv", "--every", "50ms", "--metadata", "batch_id=none", "--metadata", "k=v", "--prompt", "--rows", "5", "--from", "end")
	require.Contains(t, shown, "of at most 5 results, or every 50ms")
	require.Contains(t, shown, "format     csv")
	var s wire.Sink
	require.NoError(t, json.Unmarshal([]byte(must("sink", "get", "answers", "-o", "json")), &s))
	require.Equal(t, map[string]string{"batch_id": "none", "k": "v"}, s.Metadata)
	require.Contains(t, must("sink", "pause", "answers"), "paused")
	require.Contains(t, must("sink", "list"), "paused")
	require.Contains(t, must("sink", "resume", "answers"), "running")
	_, err = run("sink", "create", "x", "file:///somewhere")
	require.Equal(t, cli.ExitRefused, cli.Code(err))
	require.Contains(t, err.Error(), "sink.allowed_dirs")
	_, err = run("sink", "create", "x", "postgres://u:hunter2@h/d")
	require.Equal(t, cli.ExitUsage, cli.Code(err))
	require.NotContains(t, err.Error(), "hunter2")

	batch := strings.Fields(must("batch", "create", "-", "--endpoint", "/v1/tasks", "--wait"))[1]
	lines := func() [][]string {
		all, err := csv.NewReader(strings.NewReader(must("export", "--batch", batch, "--format", "csv"))).ReadAll()
		require.NoError(t, err)
		return all
	}
	require.Eventually(t, func() bool { return len(lines()) == 2 }, 20*time.Second, 10*time.Millisecond) // results appear a moment after their end
	require.Equal(t, []string{batch + "-0", batch, "a"}, lines()[1][:3])

	// Following shows what changes, and that it is over.
	r, w := io.Pipe()
	app := &cli.App{Out: w, Err: io.Discard, Output: "table"}
	root := newRoot(app)
	root.SetArgs([]string{"sink", "watch", "answers"})
	watched := make(chan error, 1)
	go func() { watched <- root.ExecuteContext(ctx) }()
	line := make([]byte, 200)
	k, err := r.Read(line)
	require.NoError(t, err)
	require.Contains(t, string(line[:k]), "running")
	require.Empty(t, must("sink", "delete", "answers"))
	require.Equal(t, cli.ExitNotFound, cli.Code(<-watched))
	_, err = run("sink", "get", "answers")
	require.Equal(t, cli.ExitNotFound, cli.Code(err))
}
