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

// TestRetriesOverTheBudgetWait: of tasks that all fail, some come again at once, and the others say what they wait for.
func TestRetriesOverTheBudgetWait(t *testing.T) {
	c := testConfig(t)
	c.Task.RetryShare, c.Task.RetryFloor, c.Task.RetryWindow = 1, 3, time.Hour
	c.Task.Attempts = 2
	n := boot(t, c)
	const tasks = 12
	for i := range tasks {
		// a timeout, as it says nothing against the engine: its circuit stays closed
		spec := map[string]any{"task_id": fmt.Sprint("t", i), "prompt": "#echo fail=always kind=timeout\nx"}
		require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", spec, nil).StatusCode)
	}
	var failed, held int
	require.Eventually(t, func() bool {
		failed, held = 0, 0
		for i := range tasks {
			x := wire.Explanation{}
			call(t, n, "GET", fmt.Sprintf("/v1/tasks/t%d/explain", i), nil, &x)
			switch {
			case x.State.String() == "failed":
				failed++
			case x.Why.Code == explain.ForRetry && time.Until(*x.Why.Until) > time.Minute:
				require.Contains(t, x.Why.Text, "It waits longer than its backoff: the retries of model default are over task.retry_percent of its attempts.")
				held++
			}
		}
		return failed+held == tasks
	}, 30*time.Second, 5*time.Millisecond)
	require.InDelta(t, 4, failed, 1, "the floor's, and the first one over it")
	require.Contains(t, content(t, n, "/metrics"), fmt.Sprintf("autoglm_retries_held_total %d", held))
}
