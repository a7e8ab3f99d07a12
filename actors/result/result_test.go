package result_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/task"
)

var (
	created = time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)
	ended   = created.Add(time.Second)
)

func records() map[string]*task.Record {
	return map[string]*task.Record{
		"plain": {State: task.Completed, Spec: &task.Spec{Prompt: "what?", Metadata: map[string]string{"b": "2", "a": "1"}}, Model: "m", CreatedAt: created, EndedAt: ended, Attempt: 2,
			Answers: []task.Answer{{Text: "first", PromptTokens: 1, OutputTokens: 2}, {Text: "=last,\n\"x\"", FinishReason: "stop", Model: "engine's", PromptTokens: 3, OutputTokens: 4}}},
		"request": {State: task.Completed, Spec: &task.Spec{Request: json.RawMessage(`{"input":"x"}`)}, Line: &task.Line{Batch: "batch_1", CustomID: "c"}, CreatedAt: created, EndedAt: ended,
			Answers: []task.Answer{{Status: 200, Body: json.RawMessage(`{"data":[1]}`)}}},
		"refused": {State: task.Failed, Spec: &task.Spec{Messages: []task.Message{{Role: "user", Content: "hi"}}, Model: "m"}, CreatedAt: created, EndedAt: ended, Attempt: 1,
			Error: &task.Failure{Kind: "invalid", Message: "no", Status: 400, Body: json.RawMessage(`{"error":1}`)}},
		"cancelled": {State: task.Cancelled, Spec: &task.Spec{Prompt: "p"}, CreatedAt: created, EndedAt: ended},
	}
}

func TestARowOfARecord(t *testing.T) {
	rs := records()
	require.Equal(t, result.Row{TaskID: "plain", State: "completed", Model: "engine's", Prompt: "what?", Answer: "=last,\n\"x\"", FinishReason: "stop", PromptTokens: 4, CompletionTokens: 6,
		CreatedAt: created, EndedAt: ended, Attempts: 2, Metadata: `{"a":"1","b":"2"}`}, result.Of("plain", rs["plain"], true))
	require.Equal(t, result.Row{TaskID: "request", BatchID: "batch_1", CustomID: "c", State: "completed", Prompt: `{"input":"x"}`, CreatedAt: created, EndedAt: ended, Response: `{"data":[1]}`},
		result.Of("request", rs["request"], true))
	require.Equal(t, result.Row{TaskID: "refused", State: "failed", Model: "m", Prompt: `[{"role":"user","content":"hi"}]`, CreatedAt: created, EndedAt: ended, Attempts: 1,
		ErrorKind: "invalid", ErrorMessage: "no", Response: `{"error":1}`}, result.Of("refused", rs["refused"], true))
	require.Equal(t, result.Row{TaskID: "cancelled", State: "cancelled", CreatedAt: created, EndedAt: ended}, result.Of("cancelled", rs["cancelled"], false), "the prompt is given where it is asked for")

	before := result.Of("plain", rs["plain"], true)
	rs["plain"].Callback, rs["plain"].CallbackTries, rs["plain"].Version, rs["plain"].UpdatedAt = task.CallbackDelivered, 3, 99, ended.Add(time.Hour)
	require.Equal(t, before, result.Of("plain", rs["plain"], true), "a callback changes no row")
}

func TestColumnsAreTheRows(t *testing.T) {
	typ := reflect.TypeFor[result.Row]()
	require.Len(t, result.Columns(), typ.NumField())
	for i, name := range result.Columns() {
		tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("parquet"), ",")
		require.Equal(t, tag, name)
	}
}

func TestCSV(t *testing.T) {
	write := func(escape bool) [][]string {
		var b bytes.Buffer
		w := result.NewCSV(&b)
		w.EscapeFormulas = escape
		require.NoError(t, w.Header())
		for _, answer := range []string{"=1+1", "+1", "-1", "@x", "\tx", "a=b", "", "line\nline,\"q\""} {
			require.NoError(t, w.Write(&result.Row{TaskID: "t", Answer: answer, PromptTokens: 7, CreatedAt: created}))
		}
		require.NoError(t, w.Flush())
		all, err := csv.NewReader(&b).ReadAll()
		require.NoError(t, err)
		require.Equal(t, result.Columns(), all[0])
		return all[1:]
	}
	plain, escaped := write(false), write(true)
	want := []string{"=1+1", "+1", "-1", "@x", "\tx", "a=b", "", "line\nline,\"q\""}
	for i, answer := range want {
		require.Equal(t, answer, plain[i][6], "unaltered unless asked for")
		require.Equal(t, "7", escaped[i][8])
		require.Equal(t, "2026-03-04T05:06:07.123456Z", plain[i][10])
		require.Empty(t, plain[i][11])
		if i < 5 {
			answer = "'" + answer
		}
		require.Equal(t, answer, escaped[i][6])
	}
}

func TestParquet(t *testing.T) {
	write := func() []byte {
		var b bytes.Buffer
		w := result.NewParquet(&b)
		rs := records()
		for _, id := range []string{"plain", "request", "refused", "cancelled"} {
			row := result.Of(id, rs[id], true)
			require.NoError(t, w.Write(&row))
		}
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	file := write()
	require.Equal(t, file, write(), "the same rows are the same bytes")
	r := parquet.NewGenericReader[result.Row](bytes.NewReader(file))
	got := make([]result.Row, 5)
	n, err := r.Read(got)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 4, n)
	for i, id := range []string{"plain", "request", "refused", "cancelled"} {
		want := result.Of(id, records()[id], true)
		got[i].CreatedAt, got[i].EndedAt = got[i].CreatedAt.UTC(), got[i].EndedAt.UTC()
		require.Equal(t, want, got[i])
	}
	var names []string
	for _, f := range r.Schema().Fields() {
		names = append(names, f.Name())
	}
	require.Equal(t, result.Columns(), names)
}

// TestRowGroupsBoundMemory: many rows make several row groups.
func TestRowGroupsBoundMemory(t *testing.T) {
	var b bytes.Buffer
	w := result.NewParquet(&b)
	for range 40 {
		require.NoError(t, w.Write(&result.Row{TaskID: "t", Answer: strings.Repeat("x", 1<<20)}))
	}
	require.NoError(t, w.Close())
	f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	require.EqualValues(t, 40, f.NumRows())
	require.Len(t, f.RowGroups(), 3)
}
