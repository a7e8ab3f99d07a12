package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// full is a record with every field set, so that a field that does not travel is seen.
func full(t testing.TB) Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	seed, half, prio := int64(7), 0.5, Priority(3)
	spec := &Spec{ID: "t", Prompt: "say <\"x\">", System: "s", Steps: append(Texts("and", "then"), everyStep()), Repair: new(3), Model: "m", MaxTokens: 9, Temperature: &half, TopP: &half, Seed: &seed,
		Stop: []string{"."}, Format: json.RawMessage(`{"type":"json_object"}`), DataURL: "http://d", CallbackURL: "http://c", Priority: &prio,
		Timeout: Duration(time.Minute), Deadline: &at, NotBefore: &at, Retry: &Retry{Attempts: 3, BackoffMin: Duration(time.Second), BackoffMax: Duration(time.Minute)},
		Metadata: map[string]string{"k": "v"}, RetryOf: "t0", Endpoint: EndpointEmbeddings, Request: json.RawMessage(`{"model":"<m>"}`)}
	answer := Answer{Text: "a", Status: 200, Body: json.RawMessage(`{"x":"<&>"}`), FinishReason: "stop", Model: "m", PromptTokens: 1, OutputTokens: 2, StartedAt: at, EndedAt: at.Add(time.Second), DataSHA256: "aa", DataBytes: 4, Part: &Part{Level: 1, Index: 2, Of: 3}}
	failure := &Failure{Kind: "timeout", Message: "m", Remedy: "r", Status: 429, Body: json.RawMessage(`{"e":1}`)}
	r := Record{State: Running, Version: 9, Spec: spec, Model: "m", Trace: traceparent, Line: &Line{Batch: "b", Number: 7, CustomID: "c", Model: "m"}, CreatedAt: at, UpdatedAt: at, Attempt: 4, Tries: 2, Moves: 1, Epoch: 6, Boot: "boot", Lease: at, NotBefore: at, AtOnce: true, Fair: true,
		Answers: []Answer{answer}, Error: failure, EndedAt: at, Repairs: 1, Repair: &Repair{Text: "<a>", Error: "e"}, Callback: CallbackWaiting, CallbackTries: 2, CallbackNext: at, CallbackReason: failure, Kept: 8, RetriedAs: "t2",
		Attempts: []Attempt{{Number: 4, Step: 1, Node: "n", Engine: "e", ClaimedAt: at, Answer: &answer, EndedAt: at, Outcome: "answered", Error: failure}}}
	v := reflect.ValueOf(r)
	for i := range v.NumField() {
		require.False(t, v.Field(i).IsZero(), "set Record.%s here", v.Type().Field(i).Name)
	}
	s := reflect.ValueOf(*spec)
	for i := range s.NumField() {
		if s.Type().Field(i).Name != "Messages" { // it excludes Prompt
			require.False(t, s.Field(i).IsZero(), "set Spec.%s here", s.Type().Field(i).Name)
		}
	}
	step := reflect.ValueOf(spec.Steps[2])
	for i := range step.NumField() {
		require.True(t, step.Type().Field(i).Name == "Text" || !step.Field(i).IsZero(), "set TaskStep.%s in everyStep", step.Type().Field(i).Name)
	}
	return r
}

// everyStep has every field set but Text, which excludes them.
func everyStep() TaskStep {
	half, yes, n := 0.5, true, 2
	return TaskStep{Name: "n", Prompt: "<p>", System: "\"s\"", MaxTokens: 3, Temperature: &half, Format: json.RawMessage(`{"type":"json_object"}`), History: &yes, Repair: &n, Model: "<m>",
		HTTP:   &HTTPTool{Method: "POST", URL: "http://h/<{{.prompt}}>", Headers: map[string]string{"X-Y": "<\"z\">"}, Body: json.RawMessage(`{"a":"<b>"}`), Timeout: Duration(time.Minute + 1), RetryOn: []int{404, 409}},
		Wasm:   &WasmTool{Module: "<w>", Function: "<f>", Input: json.RawMessage(`"<i>"`), Timeout: Duration(time.Minute + 1), MemoryMB: 1 << 40},
		Map:    &Map{Over: "data", Split: Split{By: "lines", Size: 1 << 40, Overlap: 1 << 39}, Prompt: "\\{{.part}}", Format: json.RawMessage(`{"type":"text"}`), Model: "<m>"},
		Reduce: &Reduce{Prompt: "{{join .parts \"\\n\"}}", Size: 1 << 40}}
}

// TestMessagesTravel: the same Go value comes back, in the same form.
func TestMessagesTravel(t *testing.T) {
	r := full(t)
	for _, v := range []any{
		&Submit{Spec: r.Spec, Model: "m", Line: r.Line, Trace: traceparent},
		&Submit{Spec: &Spec{Messages: []Message{{Role: "user", Content: "c"}}}},
		&Claim{Node: "n", Boot: "b", Engine: "e"},
		&Done{Attempt: 1, Epoch: 2, Answer: r.Answers[0]},
		&Lost{Attempt: 1, Epoch: 2, RetryAfter: time.Second, Dropped: true},
		&Return{Attempt: 1, Epoch: 2, Reason: "r"},
		&Cancel{Reason: "r"},
		&TriedAgain{As: "t2"},
		&Cancel{},
		&Called{Try: 1, Wait: time.Second, GiveUp: true},
		Accepted{Version: 1, State: Pending, Existed: true},
		Dropped{},
		&Forget{Ended: r.EndedAt, Batch: "b"},
		Forgotten{},
		r,
		&Work{ID: "t", Attempt: 1, Epoch: 2, Lease: r.Lease, Left: time.Second, Timeout: time.Minute, Record: r},
		nil, // of a Claim that met a deadline
	} {
		t.Run(fmt.Sprintf("%T", v), func(t *testing.T) {
			name, body, err := types.Encode(v)
			require.NoError(t, err)
			back, err := types.Decode(name, body)
			require.NoError(t, err)
			require.Equal(t, v, back)
		})
	}
}

// TestErrorsTravel with all that policy and people read.
func TestErrorsTravel(t *testing.T) {
	for _, want := range []error{
		fault.New(fault.Overloaded, "infer.http", "vllm", "the engine answered 429: %w", errors.New("slow down")).WithRemedy("wait"),
		fmt.Errorf("engine e: %w", fault.New(fault.TooLarge, "o", "k", "x").WithRemedy("less")),
		errors.New("plain"),
		&fault.Error{Op: "o", Kind: fault.Malformed},
		&BrokenForm{Text: "{\"a\":", Err: &fault.Error{Op: "o", Kind: fault.Malformed, Err: errors.New("no JSON"), Remedy: "r"}},
	} {
		for _, m := range []any{&Lost{Attempt: 1, Err: want}, &Called{Try: 1, Err: want}} {
			name, body, err := types.Encode(m)
			require.NoError(t, err)
			back, err := types.Decode(name, body)
			require.NoError(t, err)
			var got error
			switch b := back.(type) {
			case *Lost:
				got = b.Err
			case *Called:
				got = b.Err
			}
			require.Equal(t, fault.Plain(want), got.Error())
			require.Equal(t, fault.KindOf(want), fault.KindOf(got))
			require.Equal(t, fault.RemedyOf(want), fault.RemedyOf(got))
			require.Equal(t, FailureOf("t", want), FailureOf("t", got))
			if b, ok := want.(*BrokenForm); ok {
				require.Equal(t, b.Text, got.(*BrokenForm).Text)
			}
		}
	}
	long := errors.New(strings.Repeat("é", saidMax))
	require.Equal(t, FailureOf("t", long), FailureOf("t", SaidOf(long).Err()), "what is cut, nobody keeps")
	require.Equal(t, fault.Unknown, fault.KindOf((&Said{Kind: "of a newer program", Text: "x"}).Err()))
	require.NoError(t, SaidOf(nil).Err())
}

// TestAllMessagesAreRegistered reads the behaviors: what they handle, a node can be asked from another.
func TestAllMessagesAreRegistered(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "task.go", nil, 0)
	require.NoError(t, err)
	known := map[string]bool{}
	for _, v := range []any{&Submit{}, &Claim{}, &Done{}, &Lost{}, &Return{}, &Cancel{}, &Called{}, &Forget{}, &TriedAgain{}} {
		_, _, err := types.Encode(v)
		require.NoError(t, err)
		known[reflect.TypeOf(v).Elem().Name()] = true
	}
	handled := 0
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.TypeSwitchStmt)
		if !ok {
			return true
		}
		for _, c := range s.Body.List {
			for _, typ := range c.(*ast.CaseClause).List {
				switch x := typ.(type) {
				case *ast.StarExpr:
					handled++
					require.True(t, known[x.X.(*ast.Ident).Name], "%v is not registered", x.X)
				case *ast.SelectorExpr:
					require.Equal(t, "Wake", x.Sel.Name, "a timer's, which never travels")
				default:
					t.Fatalf("a behavior handles %T", typ)
				}
			}
		}
		return true
	})
	require.Greater(t, handled, len(known))
}

func TestUnderWayRows(t *testing.T) {
	for _, want := range []UnderWay{
		{ID: "t", Node: "n", Boot: "b", Attempt: 1, Epoch: 2},
		{ID: "t", Boot: "b", Attempt: 1 << 31, Epoch: 1 << 63},
	} {
		require.Equal(t, want, parseRunning([]byte("t"), want.value()))
	}
	for _, old := range [][]byte{nil, {}, []byte("n"), []byte("n\x00b"), []byte("n\x00b\x00"), []byte("n\x00b\x00\x01")} {
		require.Equal(t, UnderWay{ID: "t"}, parseRunning([]byte("t"), old), "%q", old)
	}
	require.Empty(t, UnderWay{Node: "n", Attempt: 1}.value())
}

func FuzzUnderWayRow(f *testing.F) {
	f.Add(UnderWay{Node: "n", Boot: "b", Attempt: 1, Epoch: 2}.value())
	f.Add([]byte{0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r := parseRunning(nil, b); r.Boot != "" {
			require.Equal(t, r, parseRunning(nil, r.value()))
		}
	})
}

func TestHeld(t *testing.T) {
	now := time.Hour
	h := NewHeld(func() time.Duration { return now })
	w := &Work{ID: "t", Attempt: 2, Left: time.Minute}
	require.Equal(t, time.Minute, w.Remaining(), "it has not arrived")
	w.Arrive(nil, h)
	now += time.Second
	require.Equal(t, 59*time.Second, w.Remaining())
	asked := []Ref{{"t", 1}, {"t", 2}, {"u", 2}}
	require.Equal(t, []Ref{{"t", 1}, {"u", 2}}, h.Missing(asked))
	w.GiveBack("without a router it is only let go")
	w.Release()
	require.Equal(t, asked, h.Missing(asked))
	(&Work{}).Release()

	w.Arrive(nil, h)
	now += time.Minute
	require.Zero(t, w.Remaining())
	require.Equal(t, asked, h.Missing(asked), "its lease is over")
	require.Equal(t, 1, h.Len())
	h.Prune()
	require.Zero(t, h.Len())
}

// TestSizesBoundTheirJSON, and are not wildly above where it matters: long texts.
func TestSizesBoundTheirJSON(t *testing.T) {
	encoded := func(r *Record) int {
		_, b, err := types.Encode(&Work{ID: "t", Record: *r})
		require.NoError(t, err)
		return len(b)
	}
	r := full(t)
	require.LessOrEqual(t, encoded(&r), r.size())
	require.LessOrEqual(t, encoded(&Record{State: Running}), (&Record{}).size())
	for _, text := range []string{"plain", "<html>&", "\"\\\"", "\x00\x01\n", "\x7f", "日本語", "\u2028\u2029", "\xff\xfe", "\ufffd", "a\xe6\x97b"} {
		r := Record{State: Running, Spec: &Spec{Prompt: strings.Repeat(text, 10_000), Steps: Texts(text), Metadata: map[string]string{text: text}},
			Answers: []Answer{{Text: strings.Repeat(text, 10_000)}}}
		got := encoded(&r)
		require.LessOrEqual(t, got, r.size(), "%q", text)
		if !strings.Contains(text, "\x7f") && !strings.Contains(text, "\n") {
			require.LessOrEqual(t, r.size(), got+got/2+2*sizeBase, "%q", text)
		}
	}
}

func TestRoom(t *testing.T) {
	small, big := Record{Spec: &Spec{Prompt: strings.Repeat("x", 1000)}}, Record{Spec: &Spec{Prompt: strings.Repeat("x", 3<<20)}}
	huge := Record{Answers: []Answer{{Text: strings.Repeat("x", WorkMax)}}}
	room := NewRoom(1 << 20)
	require.NoError(t, room.take("a", &small))
	err := room.take("b", &huge)
	require.Equal(t, fault.TooLarge, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))
	require.NoError(t, room.take("c", &big), "the last one may go over")
	require.ErrorIs(t, room.take("d", &small), errFull)
	require.NoError(t, (*Room)(nil).take("e", &huge))
}
