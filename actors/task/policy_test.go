package task

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestBackoff(t *testing.T) {
	half := func() float64 { return 0 }
	full := func() float64 { return 1 }
	for _, c := range []struct {
		name   string
		jitter func() float64
		retry  *Retry
		n      int
		kind   fault.Kind
		asked  time.Duration
		want   time.Duration
	}{
		{"first, least", half, nil, 1, fault.Timeout, 0, 500 * time.Millisecond},
		{"first, most", full, nil, 1, fault.Timeout, 0, time.Second},
		{"doubles", full, nil, 4, fault.Timeout, 0, 8 * time.Second},
		{"is capped", full, nil, 60, fault.Timeout, 0, 2 * time.Minute},
		{"overloaded is slower", full, nil, 1, fault.Overloaded, 0, 4 * time.Second},
		{"the engine's wish is the least", full, nil, 1, fault.Overloaded, time.Minute, time.Minute},
		{"the task's own", full, &Retry{BackoffMin: Duration(time.Minute), BackoffMax: Duration(3 * time.Minute)}, 3, fault.Timeout, 0, 3 * time.Minute},
		{"a minimum above the default maximum", full, &Retry{BackoffMin: Duration(time.Hour)}, 2, fault.Timeout, 0, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := DefaultPolicy(c.jitter)
			require.Equal(t, c.want, p.Backoff(&Spec{Retry: c.retry}, c.n, c.kind, c.asked))
		})
	}
}

func TestVerdict(t *testing.T) {
	p := DefaultPolicy(func() float64 { return 0 })
	for _, c := range []struct {
		kind  fault.Kind
		tries int
		again bool
	}{
		{fault.Timeout, 1, true}, {fault.Unavailable, 1, true}, {fault.Overloaded, 3, true}, {fault.Malformed, 1, true}, {fault.Unknown, 1, true},
		{fault.Timeout, 4, false}, // used up
		{fault.Invalid, 1, false}, {fault.NotFound, 1, false}, {fault.TooLarge, 1, false}, {fault.Refused, 1, false},
	} {
		again, _ := p.verdict(&Record{Tries: c.tries, Spec: &Spec{}}, c.kind, 0)
		require.Equal(t, c.again, again, "%v after %d tries", c.kind, c.tries)
	}
}

func TestValidate(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	now := time.Now()
	for _, c := range []struct {
		field string // "" is valid
		spec  Spec
	}{
		{"", Spec{Prompt: "p"}},
		{"", Spec{Messages: []Message{{"system", "s"}, {"user", "u"}}}},
		{"", Spec{Prompt: "p", Format: []byte(`{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}`)}},
		{"prompt", Spec{}},
		{"prompt", Spec{Prompt: "p", Messages: []Message{{"user", "u"}}}},
		{"prompt", Spec{Prompt: string(make([]byte, PromptMax+1))}},
		{"system", Spec{System: "s", Messages: []Message{{"user", "u"}}}},
		{"messages[0].role", Spec{Messages: []Message{{"tool", "u"}}}},
		{"task_id", Spec{ID: "a/b", Prompt: "p"}},
		{"task_id", Spec{ID: "..", Prompt: "p"}},
		{"task_id", Spec{ID: string(make([]byte, IDMax+1)), Prompt: "p"}},
		{"model", Spec{Model: "a\x00b", Prompt: "p"}},
		{"steps[0]", Spec{Prompt: "p", Steps: Texts("")}},
		{"temperature", Spec{Prompt: "p", Temperature: f(3)}},
		{"top_p", Spec{Prompt: "p", TopP: f(0)}},
		{"priority", Spec{Prompt: "p", Priority: new(Priority(10))}},
		{"deadline", Spec{Prompt: "p", Deadline: &now, NotBefore: &now}},
		{"metadata", Spec{Prompt: "p", Metadata: map[string]string{"": "x"}}},
		{"retry.attempts", Spec{Prompt: "p", Retry: &Retry{Attempts: 101}}},
		{"retry.backoff_min", Spec{Prompt: "p", Retry: &Retry{BackoffMin: 2, BackoffMax: 1}}},
		{"callback_url", Spec{Prompt: "p", CallbackURL: "file:///etc/passwd"}},
		{"callback_url", Spec{Prompt: "p", CallbackURL: "http://"}},
		{"data_url", Spec{Prompt: "p", DataURL: "gopher://x/"}},
		{"response_format", Spec{Prompt: "p", Format: []byte(`{"type":"xml"}`)}},
		{"response_format", Spec{Prompt: "p", Format: []byte(`{"type":"json_schema","json_schema":{"schema":{"type":"nope"}}}`)}},
		{"response_format", Spec{Prompt: "p", Format: []byte(`{"type":"json_schema","json_schema":{"schema":{"$ref":"http://example.com/s.json"}}}`)}},
	} {
		err := c.spec.Validate()
		if c.field == "" {
			require.NoError(t, err)
			continue
		}
		var fe *fault.Error
		require.ErrorAs(t, err, &fe, c.field)
		require.Equal(t, c.field, fe.Key, "%v", err)
		require.Contains(t, []fault.Kind{fault.Invalid, fault.TooLarge}, fe.Kind)
	}
}
