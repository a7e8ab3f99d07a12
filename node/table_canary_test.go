package node

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestACanaryGetsItsPart: never more of the tasks than its percent, all of them when it is promoted, none when it is rolled back.
func TestACanaryGetsItsPart(t *testing.T) {
	c := testConfig(t)
	c.Engines[0].Models = []string{"other"}
	n := boot(t, c)
	var one, two atomic.Int64
	e := change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "gpu", Spec: wire.EngineSpec{URL: teller(t, "one", &one)}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, http.StatusConflict, call(t, n, "POST", "/v1/engines/gpu/promote", nil, nil).StatusCode, "nothing is tried")
	canary := func(percent int) wire.EngineEntry {
		return change(t, n, "POST", "/v1/engines/gpu/swap", wire.EngineSwap{Canary: percent, Spec: wire.EngineSpec{URL: teller(t, "two", &two)}})
	}
	batch := 0
	run := func(tasks int) (byTwo int) {
		batch++
		for i := range tasks {
			res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprintf("b%d-%d", batch, i), "model": "m", "prompt": "x"}, nil)
			require.Equal(t, http.StatusCreated, res.StatusCode)
		}
		for i := range tasks {
			var got taskView
			call(t, n, "GET", fmt.Sprintf("/v1/tasks/b%d-%d?wait=60s", batch, i), nil, &got)
			require.Equal(t, "completed", got.State)
			require.Len(t, got.Attempts, 1)
			if got.Answer == "two" {
				byTwo++
			}
		}
		return byTwo
	}

	e = canary(10)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, 1, e.Version)
	require.Equal(t, 2, e.Canary.Version)
	require.Equal(t, http.StatusConflict, call(t, n, "POST", "/v1/engines/gpu/swap", wire.EngineSwap{Spec: wire.EngineSpec{URL: "http://h"}}, nil).StatusCode, "one at a time")
	got := run(300)
	require.LessOrEqual(t, got, 31, "a tenth, and one")
	require.GreaterOrEqual(t, got, 10, "it is used")

	e = change(t, n, "POST", "/v1/engines/gpu/promote", wire.EnginePromote{Percent: 50})
	require.Equal(t, 50, e.Canary.Percent)
	require.LessOrEqual(t, run(100), 51)
	require.Eventually(t, func() bool { e, _ = engineNamed(t, n, "gpu"); return e.Canary.Engines[0].Answered > 20 }, 10*time.Second, 5*time.Millisecond, "and its figures are shown")

	e = change(t, n, "POST", "/v1/engines/gpu/rollback", nil)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Nil(t, e.Canary)
	require.Nil(t, e.Former, "it was no swap")
	require.Zero(t, run(20))

	e = canary(1)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, 3, e.Canary.Version)
	e = change(t, n, "POST", "/v1/engines/gpu/promote", nil)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Nil(t, e.Canary)
	require.Equal(t, 3, e.Version)
	require.Equal(t, 20, run(20), "and no bound is left")
	e = change(t, n, "POST", "/v1/engines/gpu/rollback", nil)
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Zero(t, run(20))

	require.Equal(t, "done", canary(50).Change.State)
	halt(t, n)
	n = boot(t, c) // a canary ends with the process
	require.Eventually(t, func() bool { e, _ = engineNamed(t, n, "gpu"); return e.State == "ready" }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, 1, e.Version)
	require.Nil(t, e.Canary)
	require.Equal(t, "done", canary(50).Change.State)
	change(t, n, "DELETE", "/v1/engines/gpu", nil)
	require.Len(t, n.sys.Engines(), 2, "nothing of it is left beside echo and the tools")
}
