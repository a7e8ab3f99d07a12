package task

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestEachQuestionHasItsLane: the row of the queue, its counter and the attempt's time follow the step that is next, part by part.
func TestEachQuestionHasItsLane(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &Spec{Prompt: "p", DataURL: "http://d", Timeout: Duration(time.Minute), Steps: Steps{
		{Text: "plain"},
		{Prompt: "x", Model: "large"},
		{HTTP: &HTTPTool{URL: "http://h/", Timeout: Duration(2 * time.Minute)}},
		{Map: &Map{Over: "data", Split: Split{By: "lines", Size: 1}, Prompt: "{{.part}}", Model: "small"}, Reduce: &Reduce{Prompt: "{{join .parts \" \"}}"}, Model: "large"},
		{Wasm: &WasmTool{Module: "score", Timeout: Duration(time.Millisecond)}},
		{Prompt: "y"},
	}}
	require.NoError(t, s.Validate())
	require.True(t, s.OwnLanes())
	require.False(t, (&Spec{Prompt: "p", Steps: Steps{{Prompt: "x"}}}).OwnLanes())
	var all []string
	for _, w := range s.Lanes("m") {
		all = append(all, w.Field+"="+w.Model+"@"+w.Endpoint)
	}
	chat := "@" + EndpointChat
	require.Equal(t, []string{"model=m" + chat, "steps[1].model=large" + chat, "steps[2].http=http@tool", "steps[3].map.model=small" + chat, "steps[4].wasm.module=wasm:score@tool"}, all)
	alone := &Spec{Steps: Steps{{Wasm: &WasmTool{Module: "score"}}}}
	require.Len(t, alone.Lanes(AnyModel), 1, "nobody needs to serve a model that is never asked")
	alone.Model = "typo"
	require.Equal(t, "model", alone.Lanes("typo")[0].Field)

	policy := Policy{Timeout: time.Second, TimeoutMax: 90 * time.Second}
	id := tenant.Beside("/acme/x", "t")
	r, err := Record{}.Apply(Fact{Event: Submitted, At: now, Spec: s, Model: "m", Fair: true})
	require.NoError(t, err)
	want := []Lot{{"m", EndpointChat, "acme"}, {"m", EndpointChat, "acme"}, {"large", EndpointChat, "acme"}, {ToolHTTP, EndpointTool, "acme"},
		{"small", EndpointChat, "acme"}, {"small", EndpointChat, "acme"}, {"large", EndpointChat, "acme"}, {ToolWasm("score"), EndpointTool, "acme"}, {"m", EndpointChat, "acme"}}
	for i, l := range want {
		require.Equal(t, l, SplitQueue(r.queue(id)), i)
		require.LessOrEqual(t, len(r.queue(id)), QueueMax)
		timeout := time.Minute
		switch l.Model {
		case ToolHTTP:
			timeout = 90 * time.Second // its own, and no more than the node allows
		case ToolWasm("score"):
			timeout = time.Millisecond
		}
		require.Equal(t, timeout, policy.AttemptTimeout(&r))
		claimed, err := r.Apply(Fact{Event: Claimed, At: now, Attempt: r.Attempt + 1})
		require.NoError(t, err)
		rows := index(id, r, claimed)
		require.Equal(t, IndexReady, rows[0].Name)
		k, ok := ParseReadyKey(rows[0].Key)
		require.True(t, ok && rows[0].Delete)
		require.Equal(t, l, SplitQueue(k.Model), "the row that was put is taken away")
		a := Answer{Text: "a"}
		if i == 4 || i == 5 {
			a.Part = &Part{Index: i - 4, Of: 2}
		}
		f := Fact{Event: StepDone, At: now, Attempt: claimed.Attempt, Answer: &a}
		if claimed.Ends(&a) {
			f.Event = Answered
		}
		next, err := claimed.Apply(f)
		require.NoError(t, err)
		if i == len(want)-1 {
			require.Equal(t, Completed, next.State)
			break
		}
		put := index(id, claimed, next)[0]
		k, _ = ParseReadyKey(put.Key)
		require.False(t, put.Delete)
		require.Equal(t, want[i+1], SplitQueue(k.Model))
		require.Equal(t, "ready/5/"+k.Model, count(id, claimed, next)[len(count(id, claimed, next))-1].Name)
		r = next
	}
	require.Equal(t, 2*time.Minute, s.LongestTimeout())
}

// TestCalls: what a tool's step sends follows from the task alone, and cannot leave its place.
func TestCalls(t *testing.T) {
	parse := func(in string) *Record {
		s := &Spec{}
		require.NoError(t, json.Unmarshal([]byte(in), s))
		require.NoError(t, s.Validate())
		return &Record{Spec: s}
	}
	r := parse(`{"prompt":"a \"b\"","metadata":{"k":"v"},"steps":[
		{"name":"get","http":{"url":"https://h/{{ urlquery .steps.first.output }}?p={{ urlquery .prompt }}"}},
		{"name":"put","http":{"method":"PUT","url":"https://h/x","headers":{"X":"{{ no template }}"},"body":{"n":[1.50,"{{ .steps.get.json.id }}",{"{{key}}":"{{ .prompt }}"}]},"retry_on":[404]}},
		{"name":"text","http":{"url":"https://h/x","body":"{{ json .steps.get.json }}"}},
		{"name":"plain","http":{"url":"https://h/x","body":"say {{ .prompt }}"}},
		{"name":"all","wasm":{"module":"m"}},
		{"name":"some","wasm":{"module":"m","function":"run","memory_mb":7,"input":{"it":"{{ .steps.plain.output }}"}}},
		"and now?"]}`)
	answers := []string{"../..", `{"id":12345678901,"deep":{"a":[true]}}`, "no JSON", `[1]`, "2 words", "x"}
	var calls []*Call
	for _, text := range answers {
		r.Answers = append(r.Answers, Answer{Text: text})
		a, err := r.Ask(nil)
		require.NoError(t, err)
		require.Empty(t, a.Messages)
		require.Nil(t, r.Conversation())
		require.Equal(t, Kin{}, r.Kin())
		require.Zero(t, r.repairs())
		calls = append(calls, a.Tool)
	}
	require.Equal(t, &Call{Question: 1, Method: "GET", URL: `https://h/..%2F..?p=a%20%22b%22`}, calls[0])
	require.Equal(t, &Call{Question: 2, Method: "PUT", URL: "https://h/x", Headers: map[string]string{"X": "{{ no template }}"}, RetryOn: []int{404}, InputJSON: true,
		Input: []byte(`{"n":[1.50,"12345678901",{"{{key}}":"a \"b\""}]}`)}, calls[1])
	require.Equal(t, &Call{Question: 3, Method: "POST", URL: "https://h/x", Input: []byte(`{"deep":{"a":[true]},"id":12345678901}`), InputJSON: true}, calls[2])
	require.Equal(t, &Call{Question: 4, Method: "POST", URL: "https://h/x", Input: []byte(`say a "b"`)}, calls[3])
	require.Equal(t, "m", calls[4].Module)
	require.Equal(t, WasmMemory, calls[4].MemoryMB)
	require.JSONEq(t, `{"prompt":"a \"b\"","metadata":{"k":"v"},"steps":{"first":{"output":"../.."},"get":{"output":"{\"id\":12345678901,\"deep\":{\"a\":[true]}}","json":{"id":12345678901,"deep":{"a":[true]}}},
		"put":{"output":"no JSON"},"text":{"output":"[1]","json":[1]},"plain":{"output":"2 words"}}}`, string(calls[4].Input))
	require.Equal(t, &Call{Question: 6, Module: "m", Function: "run", MemoryMB: 7, Input: []byte(`{"it":"2 words"}`), InputJSON: true}, calls[5])

	r.Answers = append(r.Answers, Answer{Text: "y"})
	a, err := r.Ask(nil)
	require.NoError(t, err)
	require.Equal(t, []Message{{"user", `a "b"`}, {"assistant", "../.."}, {"user", "and now?"}}, a.Messages, "tools are no part of the conversation")

	r.Answers = r.Answers[:1]
	r.Answers = append(r.Answers, Answer{Text: "no JSON either"})
	_, err = r.Ask(nil)
	require.ErrorContains(t, err, "steps[1]: cannot be asked")
	require.Equal(t, fault.Invalid, fault.KindOf(err))

	r = parse(`{"data_url":"http://d","steps":[{"http":{"url":"http://h/","body":{"d":"{{ .data }}"}}}]}`)
	require.True(t, r.Pins())
	_, err = r.Ask(nil)
	require.ErrorIs(t, err, ErrNeedsData)
	data := strings.Repeat("x", RenderMax)
	_, err = r.Ask(&data)
	require.ErrorIs(t, err, errLong)
	data = "<d>"
	a, err = r.Ask(&data)
	require.NoError(t, err)
	require.Equal(t, `{"d":"<d>"}`, string(a.Tool.Input))

	require.NotEqual(t, ToolKey("t", 1), ToolKey("t", 2))
	require.NotEqual(t, ToolKey("t", 1), ToolKey("/acme/t", 1))
	require.Equal(t, ToolKey("t", 1), ToolKey("t", 1))
}
