package infer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func raw(endpoint, body string) *Request {
	return &Request{Model: "m", Endpoint: endpoint, Raw: json.RawMessage(body), Key: "t/1"}
}

func TestARawRequestGoesAsItIs(t *testing.T) {
	for endpoint, path := range map[string]string{task.EndpointChat: "/v1/chat/completions", task.EndpointCompletions: "/v1/completions",
		task.EndpointEmbeddings: "/v1/embeddings", task.EndpointResponses: "/v1/responses"} {
		var got, sent string
		h := newHTTP(t, HTTPOptions{}, func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			got, sent = r.URL.Path, string(b)
			io.WriteString(w, "{\"model\": \"glm\", \"data\":[1], \"choices\":[{\"finish_reason\":\"length\"}], \"output\":[],\n\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}, \"extra\": \"<&>\"}\n")
		})
		body := ` { "messages" : [ ], "temperature": 1.00, "unknown": "<&>" }`
		r, err := h.Do(t.Context(), raw(endpoint, body))
		require.NoError(t, err)
		require.Equal(t, path, got)
		require.Equal(t, body, sent)
		require.Equal(t, &Response{FinishReason: "length", Model: "glm", PromptTokens: 3, OutputTokens: 4, Status: 200,
			Raw: json.RawMessage(`{"model":"glm","data":[1],"choices":[{"finish_reason":"length"}],"output":[],"usage":{"prompt_tokens":3,"completion_tokens":4},"extra":"<&>"}`)}, r)
	}
	other, err := NewHTTP(HTTPOptions{URL: "https://h/api/paas/v4"})
	require.NoError(t, err)
	require.Equal(t, "https://h/api/paas/v4", other.base, "the endpoint goes behind the base that was given")
}

func TestWhatARawRequestCanMeet(t *testing.T) {
	for _, c := range []struct {
		endpoint string
		status   int
		body     string
		kind     fault.Kind
		said     string // of the engine's own error; "": there is none
	}{
		{task.EndpointChat, 400, `{"error": {"message":"no","code":7}}`, fault.Invalid, `{"error":{"message":"no","code":7}}`},
		{task.EndpointChat, 400, `{"error":{"message":"maximum context length"}}`, fault.TooLarge, `{"error":{"message":"maximum context length"}}`},
		{task.EndpointEmbeddings, 404, `nothing here`, fault.NotFound, `{"error":{"code":null,"message":"nothing here","param":null,"type":"engine_error"}}`},
		{task.EndpointChat, 429, `{}`, fault.Overloaded, `{}`},
		{task.EndpointChat, 500, ``, fault.Unavailable, `{"error":{"code":null,"message":"","param":null,"type":"engine_error"}}`},
		{task.EndpointChat, 401, `{"detail":"who?"}`, fault.Refused, `{"detail":"who?"}`},
		{task.EndpointChat, 200, `<html>`, fault.Unavailable, ""},
		{task.EndpointChat, 200, `{"error":"x"}`, fault.Unavailable, ""},
		{task.EndpointChat, 200, `{}`, fault.Malformed, ""},
		{task.EndpointChat, 200, `{"choices":[]}`, fault.Malformed, ""},
		{task.EndpointEmbeddings, 200, `{"choices":[{}]}`, fault.Malformed, ""},
		{task.EndpointResponses, 200, `{}`, fault.Malformed, ""},
		{task.EndpointResponses, 200, `{"output":[],"error":null,"usage":{"input_tokens":1,"output_tokens":2}}`, 0, ""},
		{task.EndpointChat, 200, `{"choices":[{"message":{"content":null,"tool_calls":[{}]},"finish_reason":"tool_calls"}]}`, 0, ""},
	} {
		r, err := newHTTP(t, HTTPOptions{}, reply(c.status, c.body)).Do(t.Context(), raw(c.endpoint, `{}`))
		require.Equal(t, c.kind, fault.KindOf(err), "%s: %v", c.body, err)
		if c.kind == 0 {
			require.NoError(t, err)
			require.Equal(t, c.body, string(r.Raw))
		}
		f := &task.Failure{}
		if err != nil {
			f = task.FailureOf("t", err)
		}
		require.Equal(t, c.said, string(f.Body), c.body)
		if c.said != "" {
			require.Equal(t, c.status, f.Status)
		}
	}
	h := newHTTP(t, HTTPOptions{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(429)
	})
	_, err := h.Do(t.Context(), raw(task.EndpointChat, `{}`))
	require.Equal(t, 7*time.Second, RetryAfterOf(err), "the pause rides along")
	_, err = h.Do(t.Context(), ask("x"))
	require.Zero(t, task.FailureOf("t", err).Status, "a task with a prompt has no use for the engine's words")
}

func TestAnEchoAnswersEachEndpoint(t *testing.T) {
	e := NewEcho(EchoOptions{})
	r, err := e.Do(t.Context(), raw(task.EndpointChat, `{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"<a>"},{"type":"image_url"}]},{"role":"assistant"}]}`))
	require.NoError(t, err)
	a := task.Answer{Body: r.Raw}
	require.Equal(t, "<a>", a.Content())
	require.Equal(t, []any{"m", "stop", 200, 14, 1}, []any{r.Model, r.FinishReason, r.Status, r.PromptTokens, r.OutputTokens})
	again, err := e.Do(t.Context(), raw(task.EndpointChat, `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"<a>"},{"role":"assistant"}]}`))
	require.NoError(t, err)
	require.Equal(t, string(r.Raw), string(again.Raw))

	r, err = e.Do(t.Context(), raw(task.EndpointCompletions, `{"prompt":["a","b"]}`))
	require.NoError(t, err)
	a = task.Answer{Body: r.Raw}
	require.Equal(t, []string{"a", "b"}, a.Contents())

	var out struct {
		Data []struct {
			Index     int             `json:"index"`
			Embedding json.RawMessage `json:"embedding"`
		} `json:"data"`
	}
	r, err = e.Do(t.Context(), raw(task.EndpointEmbeddings, `{"input":["a","a",[1,2]],"dimensions":20}`))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(r.Raw, &out))
	require.Len(t, out.Data, 3)
	require.Equal(t, out.Data[0].Embedding, out.Data[1].Embedding)
	require.NotEqual(t, out.Data[0].Embedding, out.Data[2].Embedding)
	var v []float64
	require.NoError(t, json.Unmarshal(out.Data[0].Embedding, &v))
	require.Len(t, v, 20)
	length := 0.0
	for _, x := range v {
		length += x * x
	}
	require.InDelta(t, 1, math.Sqrt(length), 1e-3)

	r, err = e.Do(t.Context(), raw(task.EndpointEmbeddings, `{"input":"a","encoding_format":"base64"}`))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(r.Raw, &out))
	var text string
	require.NoError(t, json.Unmarshal(out.Data[0].Embedding, &text))
	bytes, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	require.Len(t, bytes, 4*echoWidth)
}

func TestAnEchoRefusesAsEnginesDo(t *testing.T) {
	e := NewEcho(EchoOptions{Directives: true})
	chat := func(text string) string {
		b, _ := json.Marshal(map[string]any{"messages": []any{map[string]any{"role": "user", "content": text}}})
		return string(b)
	}
	for _, c := range []struct {
		endpoint, body string
		status         int // 0: no answer at all
		kind           fault.Kind
	}{
		{task.EndpointChat, `{}`, 400, fault.Invalid},
		{task.EndpointChat, `{"messages":7}`, 400, fault.Invalid},
		{task.EndpointCompletions, `{"prompt":[]}`, 400, fault.Invalid},
		{task.EndpointEmbeddings, `{}`, 400, fault.Invalid},
		{task.EndpointEmbeddings, `{"input":"a","dimensions":0}`, 400, fault.Invalid},
		{task.EndpointEmbeddings, `{"input":"a","dimensions":1000000000}`, 400, fault.Invalid},
		{task.EndpointResponses, `{}`, 404, fault.NotFound},
		{task.EndpointChat, chat("#echo fail=always kind=overloaded retry_after=3s\nx"), 429, fault.Overloaded},
		{task.EndpointChat, chat("#echo fail=always kind=refused\nx"), 403, fault.Refused},
		{task.EndpointChat, chat("#echo fail=always kind=timeout\nx"), 0, fault.Timeout},
	} {
		_, err := e.Do(t.Context(), raw(c.endpoint, c.body))
		require.Equal(t, c.kind, fault.KindOf(err), "%s: %v", c.body, err)
		f := task.FailureOf("t", err)
		require.Equal(t, c.status, f.Status, c.body)
		if c.status != 0 {
			require.Contains(t, string(f.Body), `"error"`)
		}
		if c.kind == fault.Overloaded {
			require.Equal(t, 3*time.Second, RetryAfterOf(err))
		}
	}
	r, err := e.Do(t.Context(), raw(task.EndpointChat, chat("#echo latency=1ms\nthe rest")))
	require.NoError(t, err)
	a := task.Answer{Body: r.Raw}
	require.Equal(t, "the rest", a.Content())
}

func TestAWholeAnswerIsHeldAgainstItsForm(t *testing.T) {
	run := &Runner{}
	schema := json.RawMessage(`{"type":"json_schema","json_schema":{"schema":{"type":"object","required":["a"]}}}`)
	for _, c := range []struct {
		format json.RawMessage
		body   string
		kind   fault.Kind
	}{
		{schema, `{"choices":[{"message":{"content":"{\"a\":1}"}}]}`, 0},
		{schema, `{"choices":[{"message":{"content":"{\"a\":1}"}},{"message":{"content":"{}"}}]}`, fault.Malformed},
		{schema, `{"choices":[{"message":{"content":"no"}}]}`, fault.Malformed},
		{schema, `{"choices":[{"message":{"content":null,"tool_calls":[{}]}}]}`, 0},
		{json.RawMessage(`{"type":"json_object"}`), `{"choices":[{"message":{"content":"[]"}}]}`, fault.Malformed},
		{nil, `{"choices":[{"message":{"content":"no"}}]}`, 0},
	} {
		err := run.Check(c.format, &task.Answer{Body: json.RawMessage(c.body)})
		require.Equal(t, c.kind, fault.KindOf(err), "%s: %v", c.body, err)
	}
}

func TestPrepareSendsTheEnginesOwnModelName(t *testing.T) {
	run := &Runner{Now: time.Now}
	w := &task.Work{ID: "t", Attempt: 2, Record: task.Record{Model: task.AnyModel, Trace: "00-a-b-01", Spec: &task.Spec{Request: json.RawMessage(`{"model":"default","input":"x"}`), Endpoint: task.EndpointEmbeddings}}}
	q, _, err := run.Prepare(t.Context(), []string{"glm-x", "y"}, w)
	require.NoError(t, err)
	require.Equal(t, &Request{Model: "glm-x", Endpoint: task.EndpointEmbeddings, Raw: json.RawMessage(`{"model":"glm-x","input":"x"}`), Key: "t/2", Trace: "00-a-b-01"}, q)
	q, _, err = run.Prepare(t.Context(), []string{"*"}, w)
	require.NoError(t, err)
	require.Equal(t, string(w.Record.Spec.Request), string(q.Raw))
}

// TestTheNodesFilesAreTheOperators: also for a line of a batch, which nobody looked at before.
func TestTheNodesFilesAreTheOperators(t *testing.T) {
	fetched := 0
	run := &Runner{Now: time.Now, Meter: meter.New(prometheus.NewRegistry()), Fetch: func(context.Context, string) (source.Data, error) { fetched++; return source.Data{}, nil }}
	for _, c := range []struct {
		id, url string
		ok      bool
	}{
		{"t", "file:///srv/a.csv", true},
		{"/acme/t", "file:///srv/a.csv", false},
		{"/acme/t", "FILE:///srv/a.csv", false},
		{"/acme/t", "https://example.com/a.csv", true},
	} {
		before := fetched
		_, _, err := run.Prepare(t.Context(), []string{"m"}, &task.Work{ID: c.id, Record: task.Record{Model: "m", Spec: &task.Spec{Prompt: "x", DataURL: c.url}}})
		require.Equal(t, c.ok, err == nil, "%+v: %v", c, err)
		require.Equal(t, c.ok, fetched > before)
		if !c.ok {
			require.Equal(t, fault.Refused, fault.KindOf(err), "no retry helps")
		}
	}
}

// FuzzDecodeRaw: whatever an engine answers, it is a whole answer or a fault, and its line is one line.
func FuzzDecodeRaw(f *testing.F) {
	f.Add(`{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":-1}}`, 0)
	f.Add(`{"data":[{}]}`, 2)
	f.Add("{\"output\":[1],\n\"error\":{}}", 3)
	f.Add(`{"error":{"code":1}}`, 1)
	f.Fuzz(func(t *testing.T, body string, n int) {
		endpoints := task.Endpoints()
		r, err := decodeRaw("e", raw(endpoints[uint(n)%uint(len(endpoints))], `{}`), []byte(body))
		if err != nil {
			require.NotEqual(t, fault.Unknown, fault.KindOf(err))
			return
		}
		require.True(t, json.Valid(r.Raw))
		require.NotContains(t, strings.TrimSpace(string(r.Raw)), "\n")
		require.GreaterOrEqual(t, r.PromptTokens, 0)
	})
}
