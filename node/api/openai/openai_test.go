package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// fake is Completions whose every task ends as end says.
type fake struct {
	end func(ctx context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error)
}

func (f fake) Complete(ctx context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error) {
	return f.end(ctx, id, endpoint, body)
}
func (f fake) ServedModels(context.Context) []string { return []string{"default", "org/glm"} }
func (f fake) CheckModel(_ context.Context, m string) error {
	if m != "org/glm" {
		return fault.New(fault.Invalid, "task.validate", "model", "is unknown")
	}
	return nil
}

func answered(body string) *task.Record {
	return &task.Record{State: task.Completed, Spec: &task.Spec{ID: "t"}, Answers: []task.Answer{{Status: 200, Body: json.RawMessage(body)}}}
}

func serveWith(end func(ctx context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error), edit func(*Deps)) *http.ServeMux {
	mux := http.NewServeMux()
	d := Deps{Completions: fake{end}, BodyMax: 1 << 10, Started: time.Unix(7, 0)}
	if edit != nil {
		edit(&d)
	}
	Routes(mux, d)
	return mux
}

func post(h http.Handler, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// errorIn reads an error body strictly: its clients know these four fields.
func errorIn(t *testing.T, w *httptest.ResponseRecorder) Error {
	t.Helper()
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var body map[string]map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), "%s", w.Body)
	require.Len(t, body["error"], 4)
	var e struct{ Error Error }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
	return e.Error
}

func TestErrorsInOpenAIsWords(t *testing.T) {
	for _, c := range []struct {
		err               error
		status            int
		typ, param, code  string
		retryAfter, final string
	}{
		{fault.New(fault.Invalid, "o", "endpoint", "is wrong"), 400, "invalid_request_error", "endpoint", "", "", ""},
		{fault.New(fault.Invalid, "o", "model", "is unknown"), 404, "invalid_request_error", "model", "model_not_found", "", ""},
		{fault.New(fault.Unknown, "o", "t", "%w", fault.New(fault.Invalid, "o", "request.tools", "is deep")), 400, "invalid_request_error", "tools", "", "", ""},
		{fault.New(fault.NotFound, "o", "k", "none"), 404, "invalid_request_error", "", "", "", ""},
		{fault.New(fault.Conflict, "o", "k", "other"), 409, "invalid_request_error", "", "", "", "false"},
		{fault.New(fault.TooLarge, "o", "k", "long"), 413, "invalid_request_error", "k", "request_too_large", "", ""},
		{fault.New(fault.Overloaded, "o", "k", "busy"), 429, "rate_limit_exceeded", "", "rate_limit_exceeded", "2", ""},
		{fault.New(fault.Unavailable, "o", "k", "down"), 503, "server_error", "", "", "1", ""},
		{fault.New(fault.NoSpace, "o", "k", "full"), 503, "server_error", "", "", "30", ""},
		{fault.New(fault.Timeout, "o", "k", "late"), 503, "server_error", "", "", "1", ""},
		{fault.New(fault.Malformed, "o", "k", "odd"), 503, "server_error", "", "", "1", ""},
		{fault.New(fault.Refused, "o", "k", "no"), 403, "invalid_request_error", "", "", "", ""},
		{fault.New(fault.Corrupt, "o", "k", "bits"), 500, "server_error", "", "", "", ""},
		{errors.New("a bug"), 500, "server_error", "", "", "", ""},
		{wire.NewProblem(405, fault.Invalid, "GET", "no"), 405, "invalid_request_error", "", "", "", ""},
		{wire.NewProblem(401, fault.Refused, "", "who?"), 401, "invalid_request_error", "", "invalid_api_key", "", ""},
		{Conflict("over"), 409, "invalid_request_error", "", "", "", "false"},
		{NotFound("file_id", "none"), 404, "invalid_request_error", "file_id", "", "", ""},
		{Invalid("a", "b", "c"), 400, "invalid_request_error", "a", "b", "", ""},
	} {
		w := httptest.NewRecorder()
		WriteError(w, httptest.NewRequest("GET", "/", nil), c.err)
		e := errorIn(t, w)
		text := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		require.Equal(t, c.status, w.Code, "%v", c.err)
		require.Equal(t, []string{c.typ, c.param, c.code}, []string{e.Type, text(e.Param), text(e.Code)}, "%v", c.err)
		require.Regexp(t, `^['A-Z].*[.?]$`, e.Message, "a sentence")
		require.NotContains(t, e.Message, "o k", "the step is for logs")
		require.NotContains(t, e.Message, "request.")
		require.Equal(t, []string{c.retryAfter, c.final}, []string{w.Header().Get("Retry-After"), w.Header().Get("X-Should-Retry")}, "%v", c.err)
	}
}

func TestWhatEndsARequest(t *testing.T) {
	failed := func(f task.Failure) *task.Record {
		return &task.Record{State: task.Failed, Spec: &task.Spec{ID: "t"}, Error: &f}
	}
	for _, c := range []struct {
		name   string
		record *task.Record
		err    error
		status int
		body   string // "": an error object
	}{
		{"answer", answered(`{"a":1}`), nil, 200, `{"a":1}`},
		{"the engine's error", failed(task.Failure{Kind: "invalid", Status: 422, Body: json.RawMessage(`{"odd":true}`)}), nil, 422, `{"odd":true}`},
		{"no answer", failed(task.Failure{Kind: "unavailable", Message: "m"}), nil, 503, ""},
		{"expired", failed(task.Failure{Kind: "timeout", Message: "m"}), nil, 503, ""},
		{"a failure without a reason", &task.Record{State: task.Failed, Spec: &task.Spec{}}, nil, 500, ""},
		{"cancelled by somebody", &task.Record{State: task.Cancelled, Spec: &task.Spec{}}, nil, 409, ""},
		{"not taken", nil, fault.New(fault.Overloaded, "o", "", "busy"), 429, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serveWith(func(_ context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error) {
				require.Equal(t, []string{"", task.EndpointEmbeddings, `{"x": 1 }`}, []string{id, endpoint, string(body)})
				return c.record, c.err
			}, nil)
			w := post(h, task.EndpointEmbeddings, `{"x": 1 }`)
			require.Equal(t, c.status, w.Code, "%s", w.Body)
			if c.body == "" {
				errorIn(t, w)
				return
			}
			require.Equal(t, c.body, w.Body.String())
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			require.Equal(t, "t", w.Header().Get(TaskHeader))
		})
	}
}

func TestBodiesThatBecomeNoTask(t *testing.T) {
	h := serveWith(func(context.Context, string, string, json.RawMessage) (*task.Record, error) {
		t.Error("a task was made")
		return nil, nil
	}, nil)
	for _, c := range []struct {
		path, body, encoding string
		status               int
	}{
		{task.EndpointChat, ``, "", 400},
		{task.EndpointChat, `nonsense`, "", 400},
		{task.EndpointChat, `[]`, "", 400},
		{task.EndpointChat, `null`, "", 400},
		{task.EndpointChat, `{"stream":1}`, "", 400},
		{task.EndpointChat, `{"stream":true,"stream_options":7}`, "", 400},
		{task.EndpointEmbeddings, `{"stream":true}`, "", 400},
		{task.EndpointResponses, `{"stream":true}`, "", 400},
		{task.EndpointChat, `{}`, "gzip", 415},
		{task.EndpointChat, `{"x":"` + strings.Repeat("x", 1<<10) + `"}`, "", 413},
	} {
		w := post(h, c.path, c.body, "Content-Encoding", c.encoding)
		require.Equal(t, c.status, w.Code, "%s %s", c.path, c.body)
		errorIn(t, w)
	}
}

// events splits a stream; the last one must be [DONE].
func events(t *testing.T, w *httptest.ResponseRecorder) (pieces []string) {
	t.Helper()
	require.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
	for e := range strings.SplitSeq(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(e, "data: ")
		require.True(t, ok, "%q", e)
		pieces = append(pieces, data)
	}
	require.Equal(t, "[DONE]", pieces[len(pieces)-1])
	return pieces[:len(pieces)-1]
}

func TestAStreamIsOneTaskInPieces(t *testing.T) {
	const answer = `{"id":"i","created":5,"model":"m","object":"chat.completion","choices":[` +
		`{"index":0,"message":{"role":"assistant","content":"<a>","tool_calls":[{"id":"c","function":{}},{"id":"d"}]},"logprobs":{"content":[]},"finish_reason":"stop"},` +
		`{"index":1,"message":{"role":"assistant","content":"b"},"finish_reason":"length"}],"usage":{"total_tokens":9}}`
	h := serveWith(func(_ context.Context, _, _ string, body json.RawMessage) (*task.Record, error) {
		require.JSONEq(t, `{"model":"m","x":1.50}`, string(body), "the engine is not asked for a stream")
		return answered(answer), nil
	}, nil)
	got := events(t, post(h, task.EndpointChat, `{"model":"m","stream":true,"x":1.50}`))
	head := `{"id":"i","created":5,"model":"m","object":"chat.completion.chunk","choices":[`
	want := []string{
		head + `{"index":0,"delta":{"role":"assistant","content":"<a>","tool_calls":[{"index":0,"id":"c","function":{}},{"index":1,"id":"d"}]},"logprobs":{"content":[]},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}`,
		head + `{"index":1,"delta":{"role":"assistant","content":"b"},"logprobs":null,"finish_reason":null}]}`,
		head + `{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}]}`,
	}
	require.Len(t, got, len(want))
	for i := range want {
		require.JSONEq(t, want[i], got[i])
	}
	got = events(t, post(h, task.EndpointChat, `{"model":"m","stream":true,"stream_options":{"include_usage":true},"x":1.50}`))
	require.Len(t, got, len(want)+1)
	require.Contains(t, got[0], `"usage":null`)
	require.JSONEq(t, head+`],"usage":{"total_tokens":9}}`, got[len(want)])

	plain := serveWith(func(context.Context, string, string, json.RawMessage) (*task.Record, error) {
		return answered(`{"id":"i","created":5,"model":"m","choices":[{"index":0,"text":"t","finish_reason":"stop"}]}`), nil
	}, nil)
	got = events(t, post(plain, task.EndpointCompletions, `{"stream":true}`))
	require.JSONEq(t, `{"id":"i","created":5,"model":"m","object":"text_completion","choices":[{"index":0,"text":"t","logprobs":null,"finish_reason":null}]}`, got[0])
	require.Len(t, got, 2)

	refused := serveWith(func(context.Context, string, string, json.RawMessage) (*task.Record, error) {
		return &task.Record{State: task.Failed, Spec: &task.Spec{}, Error: &task.Failure{Status: 429, Body: json.RawMessage(`{}`)}}, nil
	}, nil)
	w := post(refused, task.EndpointChat, `{"stream":true}`)
	require.Equal(t, 429, w.Code, "an error has its status, also of a stream")
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
}

func TestAKeyNamesItsTask(t *testing.T) {
	var ids []string
	h := serveWith(func(_ context.Context, id, _ string, _ json.RawMessage) (*task.Record, error) {
		ids = append(ids, id)
		return nil, fault.New(fault.Conflict, "task.submit", id, "another body")
	}, nil)
	for _, key := range []string{"a", "a", "b", "../" + strings.Repeat("x", 900)} {
		w := post(h, task.EndpointChat, `{}`, "Idempotency-Key", key)
		require.Equal(t, 409, w.Code)
		require.Contains(t, errorIn(t, w).Message, "Idempotency-Key")
		require.Equal(t, "false", w.Header().Get("X-Should-Retry"))
	}
	require.Equal(t, ids[0], ids[1])
	require.NotEqual(t, ids[0], ids[2])
	for _, id := range ids {
		require.NoError(t, (&task.Spec{ID: id, Prompt: "p"}).Validate())
	}
}

func TestModelsThatEnginesServe(t *testing.T) {
	h := serveWith(nil, nil)
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	require.JSONEq(t, `{"object":"list","data":[{"id":"default","object":"model","created":7,"owned_by":"open-autoglm"},{"id":"org/glm","object":"model","created":7,"owned_by":"open-autoglm"}]}`, get("/v1/models").Body.String())
	for _, path := range []string{"/v1/models/org/glm", "/v1/models/org%2Fglm"} {
		require.JSONEq(t, `{"id":"org/glm","object":"model","created":7,"owned_by":"open-autoglm"}`, get(path).Body.String())
	}
	w := get("/v1/models/gpt")
	require.Equal(t, 404, w.Code)
	require.Equal(t, "model_not_found", *errorIn(t, w).Code)
}

func TestAWaitEndsWithTheServer(t *testing.T) {
	closing, held := make(chan struct{}), 0
	h := serveWith(func(ctx context.Context, _, _ string, _ json.RawMessage) (*task.Record, error) {
		close(closing)
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), errStopping)
		return nil, fault.New(fault.Unavailable, "o", "", "given up")
	}, func(d *Deps) {
		d.Closing = closing
		d.Hold = func(context.Context) (func(), error) { held++; return func() { held-- }, nil }
	})
	require.Equal(t, 503, post(h, task.EndpointChat, `{}`).Code)
	require.Zero(t, held, "its token came back")

	full := serveWith(nil, func(d *Deps) {
		d.Hold = func(context.Context) (func(), error) {
			return nil, fault.New(fault.Overloaded, "o", "", "http.streams_max is reached")
		}
	})
	require.Equal(t, 429, post(full, task.EndpointChat, `{}`).Code)
}

func TestPathsOfOpenAIsAPI(t *testing.T) {
	for path, want := range map[string]bool{"/v1/chat/completions": true, "/v1/models": true, "/v1/models/a/b": true, "/v1/files/x/content": true,
		"/v1/batches": true, "/v1/chat/": true, "/v1/tasks": false, "/v1/tasks/x": false, "/v1/keys": false, "/v1": false, "/": false,
		"/v1/moderations": true, "/v1/images/generations": true, "/metrics": false} {
		require.Equal(t, want, Owns(path), path)
	}
}

// FuzzCutStream: what is not asked for as a stream stays as it is; a stream's body says nothing of it any more.
func FuzzCutStream(f *testing.F) {
	f.Add([]byte(`{"stream":true,"stream_options":{"include_usage":true},"a":[1]}`))
	f.Add([]byte(`{"stream":null}`))
	f.Add([]byte(`{"stream":false,"stream":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, l, err := cutStream(task.EndpointChat, body)
		switch {
		case err != nil:
			require.Equal(t, http.StatusBadRequest, ErrorOf(err).Status)
		case l == nil:
			require.True(t, bytes.Equal(body, got))
		default:
			var fields map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(got, &fields))
			require.NotContains(t, fields, "stream")
			require.NotContains(t, fields, "stream_options")
		}
	})
}

// FuzzEvents: no answer of an engine breaks the stream's form.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"choices":[{"message":{"tool_calls":[1,{"index":"x"}]}}],"usage":null}`), true)
	f.Add([]byte(`{"choices":[{"text":"a\n\n"}],"created":{}}`), false)
	f.Fuzz(func(t *testing.T, answer []byte, chat bool) {
		l := &live{endpoint: task.EndpointCompletions, usage: true}
		if chat {
			l.endpoint = task.EndpointChat
		}
		out, err := l.events(answer)
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.Copy(w.Body, bytes.NewReader(out))
		for _, e := range events(t, w) {
			require.True(t, json.Valid([]byte(e)), "%s", e)
		}
	})
}
