package node

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

func TestDeadTasksAreTriedAgainAsOthers(t *testing.T) {
	n := boot(t, testConfig(t))
	var got wire.Task
	for i := range 6 {
		kind := []string{"invalid", "refused"}[i%2]
		spec := map[string]any{"task_id": fmt.Sprint("t", i), "prompt": "#echo fail=always kind=" + kind + "\nx"}
		require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", spec, nil).StatusCode)
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/t%d?wait=20s", i), nil, &got)
		require.Equal(t, "failed", got.State.String())
	}
	third := *got.EndedAt
	call(t, n, "GET", "/v1/tasks/t3", nil, &got)
	third = *got.EndedAt

	var sum wire.DeadSummary
	call(t, n, "GET", "/v1/dead/summary", nil, &sum)
	require.Equal(t, 6, sum.Total)
	require.Len(t, sum.Groups, 2)
	require.Equal(t, []any{"invalid", 3, "t4"}, []any{sum.Groups[0].Kind, sum.Groups[0].Count, sum.Groups[0].Example})
	ids := func(query string) (ids []string) {
		var l wire.List
		require.Equal(t, http.StatusOK, call(t, n, "GET", "/v1/dead"+query, nil, &l).StatusCode)
		for _, b := range l.Tasks {
			ids = append(ids, b.ID)
		}
		return ids
	}
	require.Equal(t, []string{"t0", "t1", "t2", "t3", "t4", "t5"}, ids(""))
	require.Equal(t, []string{"t1", "t3", "t5"}, ids("?kind=refused"))
	require.Equal(t, []string{"t3", "t4", "t5"}, ids("?since="+third.Format("2006-01-02T15:04:05.999999Z07:00")), "the third itself is among them")
	require.Empty(t, ids("?model=other"))
	require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "GET", "/v1/dead?since=x", nil, nil).StatusCode)

	retry := func(ids ...string) (out wire.DeadRetried) {
		require.Equal(t, http.StatusOK, call(t, n, "POST", "/v1/dead/retry", map[string]any{"task_ids": ids}, &out).StatusCode)
		return out
	}
	first := retry("t0", "t1", "nobody")
	require.Equal(t, "t0.retry-1", first.Results[0].ID)
	require.False(t, first.Results[0].Existed)
	require.Equal(t, 404, first.Results[2].Error.Status)
	require.True(t, retry("t0").Results[0].Existed, "a second wish finds the task of the first")
	call(t, n, "GET", "/v1/tasks/t0", nil, &got)
	require.Equal(t, []string{"failed", "t0.retry-1"}, []string{got.State.String(), got.RetriedAs})
	version := got.Version
	retry("t0")
	call(t, n, "GET", "/v1/tasks/t0", nil, &got)
	require.Equal(t, version, got.Version)
	call(t, n, "GET", "/v1/tasks/t0.retry-1?wait=20s", nil, &got)
	require.Equal(t, []string{"failed", "t0"}, []string{got.State.String(), got.RetryOf})
	call(t, n, "GET", "/v1/tasks/t1.retry-1?wait=20s", nil, &got)
	require.ElementsMatch(t, []string{"t2", "t3", "t4", "t5", "t0.retry-1", "t1.retry-1"}, ids(""))
	require.Len(t, ids("?retried=true"), 8)
	require.Equal(t, http.StatusUnprocessableEntity, call(t, n, "POST", "/v1/dead/retry", map[string]any{"task_ids": []string{}}, nil).StatusCode)
}
