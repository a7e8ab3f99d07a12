package node

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// lines reads NDJSON.
func lines[T any](t *testing.T, r io.Reader) (all []T) {
	t.Helper()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var v T
		require.NoError(t, json.Unmarshal(s.Bytes(), &v), "%s", s.Text())
		all = append(all, v)
	}
	require.NoError(t, s.Err())
	return all
}

// sinkHas waits until a sink has delivered so many results.
func sinkHas(t *testing.T, n *Node, name string, count uint64) sink.State {
	t.Helper()
	changed, stop := n.sys.Router.Watch(sink.Key(name))
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		s, err := n.sinks.Get(ctx, name)
		require.NoError(t, err)
		if s.Count >= count && s.Next == nil {
			require.Equal(t, count, s.Count)
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(t, "the sink does not come so far", "%+v", s)
		}
	}
}

// TestSinksOverARestart: a directory and a database get every result of a real node once, although it is stopped in between.
func TestSinksOverARestart(t *testing.T) {
	c := testConfig(t)
	out := t.TempDir()
	c.Sink.AllowedDirs = []string{out}
	n := boot(t, c)
	submit := func(from, to int) {
		for i := from; i < to; i++ {
			prompt := fmt.Sprint("say ", i)
			if i%5 == 4 {
				prompt = "#echo fail=always kind=invalid\np"
			}
			res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprint("t", i), "prompt": prompt, "metadata": map[string]string{"n": fmt.Sprint(i)}}, nil)
			require.Equal(t, http.StatusCreated, res.StatusCode)
		}
	}
	var s wire.Sink
	res := call(t, n, "POST", "/v1/sinks", map[string]any{"name": "files", "url": "file://" + out + "/files", "every": "50ms", "batch_rows": 7}, &s)
	require.Equal(t, http.StatusCreated, res.StatusCode)
	require.Equal(t, "running", s.Status)
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/sinks", map[string]any{"name": "db", "url": "sqlite://" + out + "/r.db", "state": "completed", "every": "50ms", "prompt": true}, nil).StatusCode)
	submit(0, 20)
	sinkHas(t, n, "files", 20)
	halt(t, n)
	n = boot(t, c)
	submit(20, 40)
	st := sinkHas(t, n, "files", 40)
	sinkHas(t, n, "db", 32)

	// The files are what GET /v1/results gives.
	want := map[string]wire.Result{}
	res, err := http.Get("http://" + n.HTTPAddr() + "/v1/results")
	require.NoError(t, err)
	for _, r := range lines[wire.Result](t, res.Body) {
		r.Cursor = ""
		want[r.ID] = r
	}
	require.NoError(t, res.Body.Close())
	require.Len(t, want, 40)
	got := map[string]wire.Result{}
	names, err := filepath.Glob(out + "/files/*.jsonl")
	require.NoError(t, err)
	require.Len(t, names, int(st.Seq))
	require.Equal(t, st.Object(st.Seq)+".jsonl", filepath.Base(slices.Max(names)))
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, r := range lines[wire.Result](t, bytes.NewReader(b)) {
			require.NotContains(t, got, r.ID, "twice")
			got[r.ID] = r
		}
	}
	require.Equal(t, want, got)

	db, err := sql.Open("sqlite", "file:"+out+"/r.db")
	require.NoError(t, err)
	defer db.Close()
	var rows, prompts, tokens int
	require.NoError(t, db.QueryRow("SELECT count(*), count(prompt), sum(prompt_tokens) FROM autoglm_results WHERE state = 'completed' AND answer = prompt").Scan(&rows, &prompts, &tokens))
	require.Equal(t, 32, rows)
	require.Equal(t, 32, prompts)
	require.Positive(t, tokens)

	call(t, n, "GET", "/v1/sinks/files", nil, &s)
	require.EqualValues(t, 40, s.Delivered)
	require.Zero(t, s.Lag)
	require.Nil(t, s.Waiting)
	require.Nil(t, s.Error)
	var all wire.Sinks
	call(t, n, "GET", "/v1/sinks", nil, &all)
	require.Len(t, all.Sinks, 2)
	call(t, n, "POST", "/v1/sinks/files/pause", nil, &s)
	require.Equal(t, "paused", s.Status)
	call(t, n, "POST", "/v1/sinks/files/resume", nil, &s)
	require.Equal(t, "running", s.Status)
	require.Equal(t, http.StatusNoContent, call(t, n, "DELETE", "/v1/sinks/files", nil, nil).StatusCode)
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/sinks/files", nil, nil).StatusCode)
	require.Equal(t, http.StatusNotFound, call(t, n, "POST", "/v1/sinks/nobody/pause", nil, nil).StatusCode)
}

func TestSinksThatAreRefused(t *testing.T) {
	n := boot(t, testConfig(t)) // which allows nothing
	for url, kind := range map[string]string{
		"file:///srv/out": "refused", "sqlite:///srv/r.db": "refused", "postgres://u@db/d": "refused", "s3://b?endpoint=http://minio:9000": "refused",
		"postgres://u:hunter2@db/d": "invalid", "ftp://x/": "invalid",
	} {
		var p wire.Problem
		call(t, n, "POST", "/v1/sinks", map[string]any{"name": "x", "url": url}, &p)
		require.Equal(t, kind, p.Kind, "%s: %+v", url, p)
		require.NotEmpty(t, p.Remedy, url)
		require.NotContains(t, fmt.Sprintf("%+v", p), "hunter2")
	}
	var p wire.Problem
	res := call(t, n, "POST", "/v1/sinks", map[string]any{"name": "x", "url": "file:///x", "formt": "csv"}, &p)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode, "a field that is misspelt")
	for field, bad := range map[string]SinkConfig{"sink.allowed_dirs[0]": {AllowedDirs: []string{"out"}}, "sink.allowed_dirs[1]": {AllowedDirs: []string{"/a", "/"}},
		"sink.allow[0]": {Allow: []string{"*.example.com"}}, "sink.allow[1]": {Allow: []string{"db", "http://x"}}} {
		c := testConfig(t)
		c.Sink = bad
		require.ErrorContains(t, c.Validate(), field)
	}
}

// TestResultsOfABatch: the lines of one batch, with their names, and cursors that are theirs alone.
func TestResultsOfABatch(t *testing.T) {
	n := boot(t, testConfig(t))
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "other", "prompt": "x"}, nil)
	var in strings.Builder
	for i := range 30 {
		fmt.Fprintf(&in, `{"custom_id":"c%d","method":"POST","url":"/v1/tasks","body":{"prompt":"p%d"}}`+"\n", i, i)
	}
	batch := makeBatch(t, n, in.String())
	changed, stop := n.batches.Watch(batch)
	defer stop()
	for {
		s, err := n.batches.Get(t.Context(), batch)
		require.NoError(t, err)
		if s.Phase.Final() {
			break
		}
		<-changed
	}
	get := func(query string) (rs []wire.Result, cursor string) {
		res, err := http.Get("http://" + n.HTTPAddr() + "/v1/results?" + query)
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode, query)
		rs = lines[wire.Result](t, res.Body)
		return rs, res.Trailer.Get(api.CursorTrailer)
	}
	rs, cursor := get("prompt=true&batch=" + batch)
	require.Len(t, rs, 30)
	seen := map[string]bool{}
	for _, r := range rs {
		require.Equal(t, batch, r.Batch)
		require.Equal(t, "p"+strings.TrimPrefix(r.CustomID, "c"), r.Prompt)
		seen[r.CustomID] = true
	}
	require.Len(t, seen, 30)
	rs, _ = get("batch=" + batch + "&cursor=" + cursor)
	require.Empty(t, rs, "it goes on behind the last")
	rs, _ = get("batch=" + batch + "&cursor=" + wire.CursorEnd)
	require.Empty(t, rs)
	rs, all := get("")
	require.Len(t, rs, 31)
	for _, r := range rs {
		require.Empty(t, r.Prompt)
	}
	for _, query := range []string{"cursor=" + cursor, "batch=" + batch + "&cursor=" + all} {
		require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "GET", "/v1/results?"+query, nil, nil).StatusCode, query)
	}
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/results?batch=batch_none", nil, nil).StatusCode)
	require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "GET", "/v1/results?prompt=maybe", nil, nil).StatusCode)

	// What lies between two cursors is always the same, whatever comes later; a row of a result is that of its record.
	var ids []string
	mid, err := n.svc.walk(t.Context(), resultsQuery{}, func(it api.Item) bool { ids = append(ids, it.ID); return len(ids) < 13 })
	require.NoError(t, err)
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "late", "prompt": "x"}, nil)
	call(t, n, "GET", "/v1/tasks/late?wait=20s", nil, nil)
	var again []string
	end, err := n.svc.walk(t.Context(), resultsQuery{upTo: mid}, func(it api.Item) bool { again = append(again, it.ID); return true })
	require.NoError(t, err)
	require.Equal(t, ids, again)
	require.Equal(t, mid, end)
	rest := map[string]bool{}
	_, err = n.svc.walk(t.Context(), resultsQuery{after: mid, upTo: all}, func(it api.Item) bool { rest[it.ID] = true; return true })
	require.NoError(t, err)
	require.Len(t, rest, 18)
	for _, id := range ids {
		require.NotContains(t, slices.Collect(maps.Keys(rest)), id)
	}
	_, err = n.svc.walk(t.Context(), resultsQuery{upTo: cursor}, func(api.Item) bool { return true })
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

// makeBatch uploads an input and makes a batch of it.
func makeBatch(t *testing.T, n *Node, in string) string {
	t.Helper()
	body := "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" + in + "\r\n--B--"
	res, err := http.Post("http://"+n.HTTPAddr()+"/v1/files", "multipart/form-data; boundary=B", strings.NewReader(body))
	require.NoError(t, err)
	defer res.Body.Close()
	var made struct{ ID string }
	require.NoError(t, json.NewDecoder(res.Body).Decode(&made))
	call(t, n, "POST", "/v1/batches", map[string]any{"input_file_id": made.ID, "endpoint": "/v1/tasks", "completion_window": "24h"}, &made)
	return made.ID
}

// TestALineOfASink is one of GET /v1/results.
func TestALineOfASink(t *testing.T) {
	r := &task.Record{State: task.Completed, Spec: &task.Spec{Prompt: "p"}, Answers: []task.Answer{{Text: "a"}}}
	b, err := resultLine("id", r, true)
	require.NoError(t, err)
	var v wire.Result
	require.NoError(t, json.Unmarshal(b, &v))
	require.Equal(t, "p", v.Prompt)
	require.Equal(t, result.Of("id", r, true).Answer, v.Answer)
	b, err = resultLine("id", r, false)
	require.NoError(t, err)
	require.NotContains(t, string(b), "prompt\":\"p")
}
