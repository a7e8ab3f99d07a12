package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func request(body string) json.RawMessage { return json.RawMessage(body) }

func TestARequestExcludesWhatItSaysItself(t *testing.T) {
	one, seed := 1.0, int64(1)
	good := func() Spec { return Spec{Request: request(`{"messages":[]}`)} }
	for _, c := range []struct {
		name string
		edit func(*Spec)
		kind fault.Kind
		says string
	}{
		{"alone", func(*Spec) {}, 0, ""},
		{"each endpoint", func(s *Spec) { s.Endpoint = EndpointResponses }, 0, ""},
		{"with what is a task's own", func(s *Spec) { s.Model, s.Metadata, s.Timeout = "m", map[string]string{"k": "v"}, 1 }, 0, ""},
		{"prompt", func(s *Spec) { s.Prompt = "p" }, fault.Invalid, "request: excludes"},
		{"messages", func(s *Spec) { s.Messages = []Message{{"user", "x"}} }, fault.Invalid, "request: excludes"},
		{"none of the three", func(s *Spec) { s.Request = nil }, fault.Invalid, "prompt: is missing"},
		{"system", func(s *Spec) { s.System = "x" }, fault.Invalid, "system: cannot"},
		{"steps", func(s *Spec) { s.Steps = Texts("x") }, fault.Invalid, "steps: cannot"},
		{"data_url", func(s *Spec) { s.DataURL = "http://h" }, fault.Invalid, "data_url: cannot"},
		{"max_tokens", func(s *Spec) { s.MaxTokens = 1 }, fault.Invalid, "max_tokens: cannot"},
		{"temperature", func(s *Spec) { s.Temperature = &one }, fault.Invalid, "temperature: cannot"},
		{"top_p", func(s *Spec) { s.TopP = &one }, fault.Invalid, "top_p: cannot"},
		{"seed", func(s *Spec) { s.Seed = &seed }, fault.Invalid, "seed: cannot"},
		{"stop", func(s *Spec) { s.Stop = []string{"x"} }, fault.Invalid, "stop: cannot"},
		{"response_format", func(s *Spec) { s.Format = request(`{"type":"text"}`) }, fault.Invalid, "response_format: cannot"},
		{"endpoint alone", func(s *Spec) { *s = Spec{Prompt: "p", Endpoint: EndpointChat} }, fault.Invalid, "endpoint: goes with request only"},
		{"unknown endpoint", func(s *Spec) { s.Endpoint = "/v1/files" }, fault.Invalid, "endpoint: is"},
		{"no object", func(s *Spec) { s.Request = request(`[1]`) }, fault.Invalid, "no JSON object"},
		{"null", func(s *Spec) { s.Request = request(`null`) }, fault.Invalid, "no JSON object"},
		{"no JSON", func(s *Spec) { s.Request = request(`{`) }, fault.Invalid, "no JSON object"},
		{"no UTF-8", func(s *Spec) { s.Request = request("{\"a\":\"\xff\"}") }, fault.Invalid, "not UTF-8"},
		{"stream", func(s *Spec) { s.Request = request(`{"stream":true}`) }, fault.Invalid, "request.stream"},
		{"stream for engines that do not look at case", func(s *Spec) { s.Request = request(`{"Stream":true}`) }, fault.Invalid, "request.stream"},
		{"no stream", func(s *Spec) { s.Request = request(`{"stream":false}`) }, 0, ""},
		{"stream null", func(s *Spec) { s.Request = request(`{"stream":null}`) }, 0, ""},
		{"model of another type", func(s *Spec) { s.Request = request(`{"model":1}`) }, fault.Invalid, "request.model"},
		{"model that is no key", func(s *Spec) { s.Request = request(`{"model":"a\u0000b"}`) }, fault.Invalid, "request.model"},
		{"model null", func(s *Spec) { s.Request = request(`{"model":null}`) }, 0, ""},
		{"schema that does not compile", func(s *Spec) {
			s.Request = request(`{"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"nothing"}}}}`)
		}, fault.Invalid, "json_schema"},
		{"a format of the engine's own", func(s *Spec) { s.Request = request(`{"response_format":{"type":"grammar","grammar":"x"}}`) }, 0, ""},
		{"schema that is too large", func(s *Spec) {
			s.Request = request(`{"response_format":{"type":"json_object","x":"` + strings.Repeat("x", SchemaMax) + `"}}`)
		}, fault.Invalid, "the limit is"},
		{"too large", func(s *Spec) { s.Request = request(`{"x":"` + strings.Repeat("x", RequestMax) + `"}`) }, fault.TooLarge, "the limit is"},
	} {
		s := good()
		c.edit(&s)
		err := s.Validate()
		require.Equal(t, c.kind, fault.KindOf(err), "%s: %v", c.name, err)
		if c.kind != 0 {
			require.ErrorContains(t, err, c.says, c.name)
		}
	}
}

func TestWhoseQueueARequestWaitsIn(t *testing.T) {
	for _, c := range []struct {
		spec  Spec
		model string
		queue string
	}{
		{Spec{Prompt: "p"}, "def", "def"},
		{Spec{Prompt: "p", Model: "m"}, "m", "m"},
		{Spec{Request: request(`{}`)}, "def", "def"},
		{Spec{Request: request(`{"model":"r"}`)}, "r", "r"},
		{Spec{Request: request(`{"model":"r"}`), Model: "m"}, "m", "m"},
		{Spec{Request: request(`{"model":"r"}`), Endpoint: EndpointEmbeddings}, "r", "r\x1f/v1/embeddings"},
	} {
		require.Equal(t, c.model, c.spec.ModelOr("def"))
		r := Record{Spec: &c.spec, Model: c.spec.ModelOr("def")}
		require.Equal(t, c.queue, r.queue("id"))
		require.Equal(t, c.queue, r.queue("/acme/id"), "before tenants had queues of their own")
		r.Fair = true
		require.Equal(t, c.queue, r.queue("id"))
		require.Equal(t, c.queue+"\x1eacme", r.queue("/acme/id"))
		for whose, id := range map[string]string{"default": "id", "acme": "/acme/id"} {
			require.Equal(t, Lot{c.model, c.spec.EndpointOr(), whose}, SplitQueue(r.queue(id)))
		}
		require.LessOrEqual(t, len(QueueOf(Lot{strings.Repeat("m", IDMax), EndpointChat, strings.Repeat("t", tenant.NameMax)})), QueueMax)
	}
}

func TestAnEngineServesItsModelsAtItsEndpoints(t *testing.T) {
	chat, embed := []string{EndpointChat}, []string{EndpointEmbeddings}
	for _, c := range []struct {
		models, endpoints []string
		model, endpoint   string
		want              bool
	}{
		{[]string{"m"}, chat, "m", EndpointChat, true},
		{[]string{"m"}, chat, "n", EndpointChat, false},
		{[]string{"m"}, chat, AnyModel, EndpointChat, true},
		{[]string{"m"}, chat, "m", EndpointEmbeddings, false},
		{[]string{"m"}, embed, "m", EndpointEmbeddings, true},
		{[]string{"m"}, embed, "m", EndpointChat, false},
		{[]string{"m"}, embed, AnyModel, EndpointChat, false},
		{[]string{"m"}, embed, AnyModel, EndpointEmbeddings, true},
		{[]string{"*"}, chat, "x", EndpointChat, true},
		{[]string{"*"}, chat, "x", EndpointEmbeddings, false},
		{[]string{"*"}, Endpoints(), "x", EndpointResponses, true},
		{[]string{"a", "m"}, Endpoints(), "m", EndpointCompletions, true},
	} {
		for _, whose := range []string{tenant.Default, "acme"} {
			require.Equal(t, c.want, Serves(Offers(c.models, c.endpoints), QueueOf(Lot{c.model, c.endpoint, whose})), "%+v of %s", c, whose)
		}
	}
}

func TestOnlyTheModelsNameChangesOnTheWayToAnEngine(t *testing.T) {
	for in, want := range map[string]string{
		`{"model":"m","x":1}`:                 `{"model":"m","x":1}`,
		`{ "model" : "other" , "x" : 1.0e0 }`: `{ "model" : "m" , "x" : 1.0e0 }`,
		`{"x":{"model":"y"},"model":null}`:    `{"x":{"model":"y"},"model":"m"}`,
		`{"x":"\u003c"}`:                      `{"model":"m","x":"\u003c"}`,
		`{}`:                                  `{"model":"m"}`,
		` { } `:                               ` {"model":"m" } `,
		`{"a":1}`:                             `{"model":"m","a":1}`,
		`{"model":"a","model":"b"}`:           `{"model":"m","model":"m"}`,
		`{"Model":"a"}`:                       `{"model":"m","Model":"a"}`,
		`{"big":12345678901234567890,"model":""}`: `{"big":12345678901234567890,"model":"m"}`,
	} {
		got, err := RequestFor(request(in), "m")
		require.NoError(t, err, in)
		require.Equal(t, want, string(got))
	}
	_, err := RequestFor(request(`[]`), "m")
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

// FuzzRequestFor: the same object comes out, but for its model.
func FuzzRequestFor(f *testing.F) {
	f.Add([]byte(`{"model":"a","x":[1,{"model":2}]}`), "m")
	f.Add([]byte(` { "messages" : [ ] } `), "zai-org/<GLM>")
	f.Add([]byte(`{"model":1,"model":{"model":0}}`), "")
	f.Fuzz(func(t *testing.T, body []byte, model string) {
		before, err := requestFields(body)
		if err != nil {
			return
		}
		got, err := RequestFor(body, model)
		require.NoError(t, err)
		after, err := requestFields(got)
		require.NoError(t, err, "%s", got)
		var name string
		require.NoError(t, json.Unmarshal(after["model"], &name))
		require.Equal(t, string([]rune(model)), name)
		before["model"] = after["model"]
		require.Equal(t, before, after)
	})
}

func TestContentOfWholeAnswers(t *testing.T) {
	for body, want := range map[string][]string{
		`{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}`:           {"a", "b"},
		`{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]}}]}`: {"ab"},
		`{"choices":[{"message":{"content":null,"tool_calls":[]}}]}`:                      nil,
		`{"choices":[{"text":"a"}]}`: {"a"},
		`{"output":[{"type":"reasoning"},{"content":[{"text":"a"},{"text":"b"}]},{"content":null}]}`: {"ab"},
		`{"data":[{"embedding":[1]}]}`: nil,
		`{"choices":7}`:                nil,
	} {
		a := Answer{Body: request(body)}
		require.Equal(t, want, a.Contents(), body)
		if len(want) == 0 {
			require.Empty(t, a.Content())
		} else {
			require.Equal(t, want[0], a.Content())
		}
	}
	require.Equal(t, []string{"x"}, (&Answer{Text: "x"}).Contents())
}

func TestOnlyAFormThatCanBeCheckedCounts(t *testing.T) {
	object := `{"type":"json_object"}`
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{Format: request(object)}, object},
		{Spec{Request: request(`{"response_format":` + object + `}`)}, object},
		{Spec{Request: request(`{"response_format":{"type":"text"}}`)}, ""},
		{Spec{Request: request(`{"response_format":null}`)}, ""},
		{Spec{Request: request(`{}`)}, ""},
		{Spec{Request: request(`{"response_format":` + object + `}`), Endpoint: EndpointResponses}, ""},
	} {
		require.Equal(t, c.want, string(c.spec.FormatOr()))
	}
}

// TestAFailureNamesIdsAsTheirTenantDoes, and no steps of programs.
func TestAFailureNamesIdsAsTheirTenantDoes(t *testing.T) {
	for id, err := range map[string]error{
		"/acme/t1": fault.New(fault.Timeout, "task", "/acme/t1", "no word of /acme/t1"),
		"t1":       fault.New(fault.Timeout, "task", "t1", "no word of t1"),
	} {
		require.Equal(t, "t1: no word of t1", FailureOf(id, err).Message)
		require.Equal(t, "t1: no word of t1", FailureOf(id, SaidOf(err).Err()).Message)
	}
}

func TestAnEnginesOwnErrorIsKept(t *testing.T) {
	err := fmt.Errorf("engine e: %w", &EngineError{Status: 429, Body: SaidBody([]byte(` {"error": {"code": 1}} `), "m"),
		Err: fault.New(fault.Overloaded, "infer.http", "e", "slow down").WithRemedy("wait")})
	f := FailureOf("t", err)
	require.Equal(t, &Failure{Kind: "overloaded", Message: "engine e: e: slow down", Remedy: "wait", Status: 429, Body: request(`{"error":{"code":1}}`)}, f)
	back := FailureOf("t", SaidOf(err).Err())
	require.Equal(t, f, back, "over the wire, too")

	for _, long := range []string{`{"x":"` + strings.Repeat("x", SaidBodyMax) + `"}`, "<html>", "", "{\"a\":\"\xff\"}"} {
		body := SaidBody([]byte(long), "what it said")
		require.JSONEq(t, `{"error":{"message":"what it said","type":"engine_error","param":null,"code":null}}`, string(body))
	}
	require.Nil(t, FailureOf("t", errors.New("plain")).Body)
	cut := FailureOf("t", errors.New(strings.Repeat("x", 1999)+"ü"))
	require.Equal(t, strings.Repeat("x", 1999)+"…", cut.Message, "cut at a rune's edge")
}

func TestTheNewestErrorBodyIsKeptOnce(t *testing.T) {
	r := Record{}
	fail := &Failure{Kind: "overloaded", Status: 429, Body: request(`{"e":1}`)}
	for _, f := range []Fact{{Event: Submitted, Spec: &Spec{Prompt: "p"}}, {Event: Claimed, Attempt: 1}, {Event: AttemptFailed, Attempt: 1, Error: fail},
		{Event: Claimed, Attempt: 2}, {Event: Answered, Attempt: 2, Answer: &Answer{Status: 200, Body: request(`{}`)}}} {
		var err error
		r, err = r.Apply(f)
		require.NoError(t, err)
		if f.Event == AttemptFailed {
			require.Equal(t, fail, r.Error)
		}
	}
	require.Equal(t, &Failure{Kind: "overloaded", Status: 429}, r.Attempts[0].Error)
	require.Nil(t, r.Attempts[1].Answer.Body)
	require.NotNil(t, r.Answers[0].Body)
	require.NotNil(t, fail.Body, "the fact stays as it was")
}

// TestARequestFitsIntoAWork: as large as it may be, it can go to another node.
func TestARequestFitsIntoAWork(t *testing.T) {
	r := Record{Spec: &Spec{Request: request(`{"x":"` + strings.Repeat("x", RequestMax-8) + `"}`)}}
	require.NoError(t, r.Spec.Validate())
	require.NoError(t, NewRoom(math.MaxInt32).take("id", &r))
}
