package task

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestLineKeysSortAsTheyShould(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_000_000)
	var line, end [][]byte
	for _, batch := range []string{"batch_a", "batch_ab", "batch_b"} {
		for _, n := range []uint64{0, 1, 255, 256, math.MaxUint64} {
			k := LineKey(batch, n)
			require.True(t, bytes.HasPrefix(k, LinePrefix(batch)))
			b, m, ok := ParseLineKey(k)
			require.True(t, ok)
			require.Equal(t, batch, b)
			require.Equal(t, n, m)
			line = append(line, k)
		}
		for i, n := range []uint64{9, 3, 4} {
			k := LineEndKey(batch, at.Add(time.Duration(i/2)*time.Second), n)
			b, e, m, ok := ParseLineEndKey(k)
			require.True(t, ok)
			require.Equal(t, batch, b)
			require.Equal(t, n, m)
			require.True(t, e.Equal(at.Add(time.Duration(i/2)*time.Second)))
			end = append(end, k)
		}
	}
	require.True(t, slices.IsSortedFunc(line, bytes.Compare))
	end[0], end[1] = end[1], end[0] // 9 ended with 3: by number
	end[3], end[4] = end[4], end[3]
	end[6], end[7] = end[7], end[6]
	require.True(t, slices.IsSortedFunc(end, bytes.Compare))
	for _, bad := range []string{"", "b", "b\x00", "\x0012345678", "b\x001234567", "b\x00123456789"} {
		_, _, ok := ParseLineKey([]byte(bad))
		require.False(t, ok, "%q", bad)
		_, _, _, ok = ParseLineEndKey([]byte(bad))
		require.False(t, ok, "%q", bad)
	}
}

func FuzzLineRow(f *testing.F) {
	f.Add(LineRow{Failed: true, Size: 300, PromptTokens: 1, OutputTokens: 1 << 40}.Encode())
	f.Add([]byte{0, 0, 0, 0, 9, 9})
	f.Add([]byte{1, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _ = ParseLineKey(b)
		_, _, _, _ = ParseLineEndKey(b)
		r, ok := ParseLineRow(b)
		if !ok {
			require.Zero(t, r)
			return
		}
		back, ok := ParseLineRow(r.Encode())
		require.True(t, ok)
		require.Equal(t, r, back)
	})
}

// lineRecord is a line's task that went through these facts.
func lineRecord(t testing.TB, spec *Spec, facts ...Fact) Record {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r, err := Record{}.Apply(Fact{Event: Submitted, At: at, Spec: spec, Model: "m", Line: &Line{Batch: "batch_1", Number: 4, CustomID: "c-<\"1\">"}})
	require.NoError(t, err)
	for _, f := range facts {
		f.At, f.Attempt = at.Add(time.Second), 1
		r, err = r.Apply(f)
		require.NoError(t, err)
	}
	return r
}

func TestLinesOfEveryEnd(t *testing.T) {
	ask := &Spec{Request: request(`{"model":"m"}`)}
	deadline := time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC) // when lineRecord's facts happen
	expiring := &Spec{Request: request(`{"model":"m"}`), Deadline: &deadline}
	later := deadline.Add(time.Microsecond)
	const head = `{"id":"batch_req_ca978112ca1bbdcafac231b39a23dc4d","custom_id":"c-<\"1\">","response":`
	const ok = head + `{"status_code":200,"request_id":"req_ca978112ca1bbdcafac231b39a23dc4d","body":`
	claimed := Fact{Event: Claimed}
	for _, c := range []struct {
		name  string
		spec  *Spec
		facts []Fact
		want  string
		row   LineRow // but for the size
	}{
		{"an answer", ask, []Fact{claimed, {Event: Answered, Answer: &Answer{Status: 200, Body: request("{\"a\": \"<&>\",\n\"b\":1.0}"), PromptTokens: 3, OutputTokens: 4}}},
			ok + `{"a":"<&>","b":1.0}},"error":null}`, LineRow{PromptTokens: 3, OutputTokens: 4}},
		{"steps", &Spec{Prompt: "p", Steps: Texts("s")}, []Fact{claimed, {Event: StepDone, Answer: &Answer{Text: "one", FinishReason: "stop", Model: "g", PromptTokens: 1, OutputTokens: 2}},
			claimed, {Event: Answered, Answer: &Answer{Text: "two", FinishReason: "length", PromptTokens: 3, OutputTokens: 4}}},
			ok + `{"object":"task","task_id":"a","text":"two","answers":[{"text":"one","finish_reason":"stop","model":"g","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}},` +
				`{"text":"two","finish_reason":"length","model":"","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}]}},"error":null}`, LineRow{PromptTokens: 4, OutputTokens: 6}},
		{"the engine refused", ask, []Fact{claimed, {Event: Refused, Error: &Failure{Kind: "invalid", Status: 422, Body: request(`{"error": {}}`)}}},
			head + `{"status_code":422,"request_id":"req_ca978112ca1bbdcafac231b39a23dc4d","body":{"error":{}}},"error":null}`, LineRow{Failed: true}},
		{"no answer", ask, []Fact{claimed, {Event: Refused, Error: &Failure{Kind: "malformed", Message: "broken\n\xff"}}},
			head + `null,"error":{"code":"malformed","message":"broken\n` + "\ufffd" + `"}}`, LineRow{Failed: true}},
		{"time-outs", ask, []Fact{claimed, {Event: Refused, Error: &Failure{Kind: "timeout", Message: "late"}}},
			head + `null,"error":{"code":"request_timeout","message":"late"}}`, LineRow{Failed: true}},
		{"time-outs before the deadline", &Spec{Request: ask.Request, Deadline: &later}, []Fact{claimed, {Event: Refused, Error: &Failure{Kind: "timeout", Message: "late"}}},
			head + `null,"error":{"code":"request_timeout","message":"late"}}`, LineRow{Failed: true}},
		{"expired", expiring, []Fact{claimed, {Event: AttemptFailed, Error: &Failure{Kind: "overloaded", Status: 429, Body: request(`{}`)}}, {Event: Expired, Error: &Failure{Kind: "timeout", Message: "the deadline passed"}}},
			head + `null,"error":{"code":"batch_expired","message":"This request could not be executed before the completion window expired."}}`, LineRow{Failed: true}},
		{"cancelled", ask, []Fact{claimed, {Event: AttemptFailed, Error: &Failure{Kind: "overloaded", Status: 429, Body: request(`{}`)}}, {Event: CancelAsked}},
			head + `null,"error":{"code":"batch_cancelled","message":"This request was cancelled before it had an answer."}}`, LineRow{Failed: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := lineRecord(t, c.spec, c.facts...)
			line := r.AppendLine([]byte("before"), "a")
			require.Equal(t, "before"+c.want+"\n", string(line))
			require.True(t, json.Valid([]byte(c.want)))

			rows := r.lineRows("a")
			require.Len(t, rows, 2)
			require.Equal(t, LineKey("batch_1", 4), rows[0].Key)
			require.Equal(t, LineEndKey("batch_1", r.EndedAt, 4), rows[1].Key)
			c.row.Size = len(c.want) + 1
			for _, row := range rows {
				got, ok := ParseLineRow(row.Value)
				require.True(t, ok)
				require.Equal(t, c.row, got)
			}
		})
	}
}

// TestALineIsTheSameReadBack: its size is counted from the record that commits it, and it is read from the journal.
func TestALineIsTheSameReadBack(t *testing.T) {
	body := "{ \"a\" : \"<&> \\u2028 \u2028 \xff\" }"
	facts := []Fact{
		{Event: Submitted, At: time.Now(), Spec: &Spec{Request: request(`{}`)}, Line: &Line{Batch: "b", CustomID: "ü<\u2028>"}},
		{Event: Claimed, At: time.Now(), Attempt: 1},
	}
	for _, last := range []Fact{
		{Event: Answered, At: time.Now(), Attempt: 1, Answer: &Answer{Status: 200, Body: request(body)}},
		{Event: Refused, At: time.Now(), Attempt: 1, Error: &Failure{Kind: "invalid", Message: "\xff\xfe<\u2029>"}},
		{Event: Refused, At: time.Now(), Attempt: 1, Error: &Failure{Kind: "invalid", Status: 400, Body: SaidBody([]byte(`{"x": "<>"}`), "")}},
	} {
		var live, read Record
		var err error
		for _, f := range append(slices.Clone(facts), last) {
			live, err = live.Apply(f)
			require.NoError(t, err)
			b, err := EncodeFacts([]Fact{f})
			require.NoError(t, err)
			back, err := DecodeFacts(b)
			require.NoError(t, err)
			read, err = read.Apply(back[0])
			require.NoError(t, err)
		}
		require.Equal(t, string(live.AppendLine(nil, "id")), string(read.AppendLine(nil, "id")))
	}
}

func TestOnlyTheEndOfALineHasRows(t *testing.T) {
	r := lineRecord(t, &Spec{Prompt: "p", CallbackURL: "http://c"}, Fact{Event: Claimed})
	done, err := r.Apply(Fact{Event: Answered, At: time.Now(), Attempt: 1, Answer: &Answer{Text: "x"}})
	require.NoError(t, err)
	called, err := done.Apply(Fact{Event: CallbackSent, At: time.Now(), Attempt: 1})
	require.NoError(t, err)
	names := func(before, after Record) (n int) {
		for _, row := range index("id", before, after) {
			if strings.HasPrefix(row.Name, IndexLine) {
				n++
			}
		}
		return n
	}
	require.Zero(t, names(Record{}, r))
	require.Equal(t, 2, names(r, done))
	require.Zero(t, names(done, called))
	require.Equal(t, done.AppendLine(nil, "id"), called.AppendLine(nil, "id"))
	done.Line = nil
	require.Zero(t, names(r, done), "a task of nobody's batch")
}

func TestALineMustComeBackAsItWent(t *testing.T) {
	spec := &Spec{Prompt: "p"}
	require.NoError(t, (&Submit{Spec: spec}).Validate())
	require.NoError(t, (&Submit{Spec: spec, Line: &Line{Batch: "b"}}).Validate())
	for _, bad := range []*Line{{}, {Batch: "a\x00"}, {Batch: "\xff"}, {Batch: "b", CustomID: "\xff"}, {Batch: "b", Model: "\xff"}} {
		require.Equal(t, fault.Invalid, fault.KindOf((&Submit{Spec: spec, Line: bad}).Validate()))
	}
	require.Error(t, (&Submit{Spec: &Spec{}}).Validate())

	a, b := &Line{Batch: "b", Number: 1}, &Line{Batch: "b", Number: 1}
	require.True(t, a.same(b))
	require.True(t, (*Line)(nil).same(nil))
	require.False(t, a.same(nil))
	require.False(t, (*Line)(nil).same(b))
	b.Number = 2
	require.False(t, a.same(b))
}

// TestAPageOfIDs: each page begins behind the last of the one before.
func TestAPageOfIDs(t *testing.T) {
	at := time.Unix(1e9, 0)
	var keys [][]byte
	for i := range 5 {
		keys = append(keys, AllKey(at.Add(-time.Duration(i)*time.Second), string(rune('a'+i))))
	}
	newest := func(from []byte, n int) (rows []cluster.IndexRow, err error) {
		for _, k := range keys {
			if len(rows) < n && bytes.Compare(k, from) >= 0 {
				rows = append(rows, cluster.IndexRow{Key: k})
			}
		}
		return rows, nil
	}
	ids, more, err := NewestIDs(nil, 2, newest)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, ids)
	require.True(t, more)
	ids, more, err = NewestIDs(keys[1], 3, newest)
	require.NoError(t, err)
	require.Equal(t, []string{"c", "d", "e"}, ids)
	require.False(t, more)
	keys[0] = []byte("short")
	_, _, err = NewestIDs(nil, 5, func([]byte, int) ([]cluster.IndexRow, error) { return []cluster.IndexRow{{Key: keys[0]}}, nil })
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
}
