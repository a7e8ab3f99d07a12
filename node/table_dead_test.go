package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// mortal is an engine of OpenAI's API that a test may end.
func mortal(t testing.TB, model, says string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprintf(w, `{"data":[{"id":%q}]}`, model)
			return
		}
		fmt.Fprintf(w, `{"model":%q,"choices":[{"message":{"content":%q},"finish_reason":"stop"}]}`, model, says)
	}))
	t.Cleanup(s.Close)
	return s
}

// TestADeadEngineTakesNobodysPlace: neither a canary nor a former one, and nothing has changed then.
func TestADeadEngineTakesNobodysPlace(t *testing.T) {
	c := testConfig(t)
	c.Engines[0].Models = []string{"other"}
	n := boot(t, c)
	one, two, three := mortal(t, "m", "one"), mortal(t, "m", "two"), mortal(t, "m", "three")
	e := change(t, n, "POST", "/v1/engines", wire.EngineLoad{Name: "gpu", Spec: wire.EngineSpec{URL: one.URL}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	swap := func(s wire.EngineSwap) wire.EngineEntry { return change(t, n, "POST", "/v1/engines/gpu/swap", s) }

	e = swap(wire.EngineSwap{Canary: 10, Spec: wire.EngineSpec{URL: mortal(t, "hm", "hm").URL}})
	require.Equal(t, "failed", e.Change.State)
	require.Contains(t, e.Change.Error, "it serves hm, and gpu serves m: no task would come to it (name --model or --alias)")
	require.Nil(t, e.Canary)

	e = swap(wire.EngineSwap{Canary: 10, Spec: wire.EngineSpec{URL: two.URL}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	two.Close()
	for _, percent := range []int{50, 0} {
		e = change(t, n, "POST", "/v1/engines/gpu/promote", wire.EnginePromote{Percent: percent})
		require.Equal(t, "failed", e.Change.State)
		require.Contains(t, e.Change.Error, "it did not answer a probe")
		require.Contains(t, e.Change.Error, "autoglm model rollback gpu")
		require.Equal(t, 1, e.Version)
		require.Equal(t, 10, e.Canary.Percent)
	}
	e = change(t, n, "POST", "/v1/engines/gpu/promote", wire.EnginePromote{Percent: 5})
	require.Equal(t, "done", e.Change.State, "less of the work")
	change(t, n, "POST", "/v1/engines/gpu/rollback", nil)

	e = swap(wire.EngineSwap{Spec: wire.EngineSpec{URL: three.URL}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Empty(t, e.Change.Lost)
	version, until := e.Version, e.Former.Until
	one.Close()
	e = change(t, n, "POST", "/v1/engines/gpu/rollback", nil)
	require.Equal(t, "failed", e.Change.State)
	require.Contains(t, e.Change.Error, "version 1: it did not answer a probe")
	require.Contains(t, e.Change.Error, "autoglm model swap gpu")
	require.Equal(t, version, e.Version)
	require.True(t, e.Former.Loaded)
	require.Equal(t, until, e.Former.Until)
	require.Equal(t, "three", ask(t, n, "a", "m").Answer)

	e = swap(wire.EngineSwap{Spec: wire.EngineSpec{URL: mortal(t, "hm", "hm").URL}})
	require.Equal(t, "done", e.Change.State, e.Change.Error)
	require.Equal(t, []string{"m"}, e.Change.Lost)
}
