package node

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestASchedulesTasksRun: at their time, by hand, and with the results that any task has.
func TestASchedulesTasksRun(t *testing.T) {
	var ahead atomic.Int64
	n := boot(t, testConfig(t), WithClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
	plan := map[string]any{"name": "hourly", "cron": "@hourly", "zone": "Europe/Berlin", "task": map[string]any{"prompt": "hello", "metadata": map[string]string{"k": "v"}}}
	var s wire.Schedule
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/schedules", plan, &s).StatusCode)
	require.Equal(t, "active", s.Status)
	require.Len(t, s.Upcoming, wire.UpcomingMax)
	require.Equal(t, "hello", s.Task.Prompt)
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/schedules", plan, nil).StatusCode, "the same again is harmless")
	plan["cron"] = "@daily"
	require.Equal(t, http.StatusConflict, call(t, n, "POST", "/v1/schedules", plan, nil).StatusCode)
	for field, value := range map[string]any{"cron": "x", "zone": "Moon", "nonsense": 1, "task": map[string]any{"prompt": "p", "task_id": "x"}, "overlap": "sometimes"} {
		bad := map[string]any{"name": "bad", "cron": "@daily", "task": map[string]any{"prompt": "p"}}
		bad[field] = value
		var p wire.Problem
		require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "POST", "/v1/schedules", bad, &p).StatusCode, field)
		require.Contains(t, p.Key, field)
	}

	finished := func(id string) (got wire.Task) {
		t.Helper()
		require.Eventually(t, func() bool {
			return call(t, n, "GET", "/v1/tasks/"+id+"?wait=20s", nil, &got).StatusCode == http.StatusOK && got.State.Final()
		}, 30*time.Second, 5*time.Millisecond)
		return got
	}
	require.Equal(t, http.StatusOK, call(t, n, "POST", "/v1/schedules/hourly/run", nil, &s).StatusCode)
	require.True(t, s.Recent[0].ByHand)
	require.Equal(t, "hello", finished(s.Recent[0].Task).Answer)

	planned := s.Upcoming[0]
	ahead.Store(int64(time.Until(planned) + time.Second))
	require.Eventually(t, func() bool {
		s = wire.Schedule{} // what is absent would stay
		call(t, n, "GET", "/v1/schedules/hourly", nil, &s)
		return s.Fired == 2 && s.Pending == 0
	}, 30*time.Second, 5*time.Millisecond)
	got := finished(s.Recent[1].Task)
	require.Equal(t, map[string]string{"k": "v", "schedule": "hourly", "scheduled_at": planned.UTC().Format(time.RFC3339)}, got.Metadata)

	call(t, n, "POST", "/v1/schedules/hourly/pause", nil, &s)
	require.Equal(t, "paused", s.Status)
	require.Empty(t, s.Upcoming)
	call(t, n, "POST", "/v1/schedules/hourly/resume", nil, &s)
	require.Equal(t, "active", s.Status)
	var all wire.Schedules
	call(t, n, "GET", "/v1/schedules", nil, &all)
	require.Len(t, all.Schedules, 1)
	require.Equal(t, http.StatusNoContent, call(t, n, "DELETE", "/v1/schedules/hourly", nil, nil).StatusCode)
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/schedules/hourly", nil, nil).StatusCode)
	require.Equal(t, http.StatusOK, call(t, n, "GET", "/v1/tasks/"+got.ID, nil, nil).StatusCode, "its tasks stay")
}
