package node

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestExplainsWhatATaskWaitsFor asks a real node about tasks that wait for different things.
func TestExplainsWhatATaskWaitsFor(t *testing.T) {
	c := testConfig(t)
	c.Engines = []EngineConfig{{URL: "http://127.0.0.1:1/v1", Name: "away"}}
	n := boot(t, c)
	submit := func(spec map[string]any) {
		t.Helper()
		require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", spec, nil).StatusCode)
	}
	var x wire.Explanation
	for i := range 12 {
		submit(map[string]any{"task_id": fmt.Sprint("t", i), "prompt": "p", "priority": 3 + i%2})
	}
	submit(map[string]any{"task_id": "later", "prompt": "p", "not_before": time.Now().Add(time.Hour)})
	require.Equal(t, http.StatusOK, call(t, n, "GET", "/v1/tasks/later/explain", nil, &x).StatusCode)
	require.Equal(t, explain.ForTime, x.Why.Code)
	require.WithinDuration(t, time.Now().Add(time.Hour), *x.Why.Until, time.Minute)
	call(t, n, "GET", "/v1/tasks/t0/explain", nil, &x)
	require.Equal(t, explain.ForEngine, x.Why.Code)
	require.Contains(t, x.Why.Text, n.svc.id+"/away (")
	require.Equal(t, 0, *x.Why.Ahead)
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/tasks/nobody/explain", nil, nil).StatusCode)

	// Of 12 tasks of two priorities, all before it are counted, over all shards.
	w := map[string]int{}
	for i := range 12 {
		id := fmt.Sprint("t", i)
		rec, err := n.svc.Get(t.Context(), id)
		require.NoError(t, err)
		a := n.svc.ahead(t.Context(), id, rec)
		require.Equal(t, explain.Waiting{Known: true, Count: a.Count}, a)
		w[id] = a.Count
	}
	for i := range 12 {
		require.Equal(t, i/2+6*(i%2), w[fmt.Sprint("t", i)], "t%d", i)
	}
	rec, err := n.svc.Get(t.Context(), "t11")
	require.NoError(t, err)
	other := n.svc.ahead(t.Context(), "/acme/t", rec)
	require.Equal(t, explain.Waiting{Known: true, Own: true}, other, "another tenant's tasks are not counted for one")
}

func TestExplainsWhatHappened(t *testing.T) {
	n := boot(t, testConfig(t))
	var got taskView
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "#echo fail=1 kind=unavailable\nhello"}, nil)
	call(t, n, "GET", "/v1/tasks/a?wait=20s", nil, &got)
	require.Equal(t, "completed", got.State)
	var x wire.Explanation
	call(t, n, "GET", "/v1/tasks/a/explain", nil, &x)
	var events []string
	for _, e := range x.Events {
		events = append(events, e.Event.String())
	}
	require.Equal(t, []string{"submitted", "claimed", "attempt_failed", "claimed", "answered"}, events)
	require.Equal(t, "unavailable", x.Events[2].Error.Kind)
	require.NotNil(t, x.Events[4].Ran)
	require.Equal(t, n.svc.id, x.Events[4].Node)
	require.Equal(t, explain.Why{Code: explain.Nothing, Text: "It is completed, after 2 attempts."}, x.Why)
}
