package infer

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// plain is an engine with these models that keeps what it was asked last.
type plain struct {
	models []string
	last   Request
}

func (p *plain) Name() string { return "plain" }
func (p *plain) Models(context.Context) ([]string, error) {
	if p.models == nil {
		return nil, fault.New(fault.Unavailable, "plain", "", "away")
	}
	return p.models, nil
}
func (p *plain) Do(_ context.Context, r *Request) (*Response, error) {
	p.last = *r
	return &Response{Text: "ok"}, nil
}

func TestAliases(t *testing.T) {
	raw := json.RawMessage(`{"model":"fast","input":"x"}`)
	for _, c := range []struct {
		models    []string
		ask, want string
	}{
		{[]string{"glm", "other"}, "fast", "glm"},
		{[]string{"glm", "other"}, "other", "other"},
		{[]string{"glm", "fast"}, "fast", "fast"}, // it has a model of that name itself
		{[]string{"*"}, "fast", "fast"},
	} {
		p := &plain{models: c.models}
		e := WithAliases(p, []string{"fast"})
		all, err := e.Models(t.Context())
		require.NoError(t, err)
		require.Contains(t, all, "fast")
		require.Equal(t, c.models[0], all[0], "tasks that name no model get the engine's own")
		_, err = e.Do(t.Context(), &Request{Model: c.ask})
		require.NoError(t, err)
		require.Equal(t, c.want, p.last.Model)
		q := &Request{Model: c.ask, Endpoint: task.EndpointEmbeddings, Raw: raw}
		_, err = e.Do(t.Context(), q)
		require.NoError(t, err)
		if c.want == "glm" {
			require.JSONEq(t, `{"model":"glm","input":"x"}`, string(p.last.Raw))
		}
		require.Equal(t, c.ask, q.Model, "the caller's request is left alone")
		require.JSONEq(t, `{"model":"fast","input":"x"}`, string(q.Raw))
	}
	away := WithAliases(&plain{}, []string{"fast"})
	_, err := away.Models(t.Context())
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	_, err = away.Do(t.Context(), &Request{Model: "fast"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.Equal(t, Engine(&plain{}), WithAliases(&plain{}, nil))
}
