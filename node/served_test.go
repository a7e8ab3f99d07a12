package node

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestAnEngineThatIsDownServesWhatItsConfigurationSays: nothing else is taken for it, and no task that it would never run is explained by it.
func TestAnEngineThatIsDownServesWhatItsConfigurationSays(t *testing.T) {
	c := testConfig(t)
	c.Engines = []EngineConfig{
		{URL: EngineEcho, Models: []string{"there"}},
		{URL: "http://127.0.0.1:1/v1", Name: "away", Models: []string{"m"}, Aliases: []string{"fast"}},
		{URL: EngineCommand, Name: "own", Command: []string{"false", "{{.Port}}", "--name={{.Model}}"}},
	}
	n := boot(t, c)
	submit := func(id, model string) int {
		return call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "prompt": "p", "model": model}, nil).StatusCode
	}
	require.Equal(t, http.StatusUnprocessableEntity, submit("x", "nobody-has-it"))
	for _, model := range []string{"m", "fast", "own", "there"} {
		require.Equal(t, http.StatusCreated, submit("t-"+model, model), model)
	}
	for _, e := range n.sys.Engines() {
		require.False(t, e.Healthy && (e.Name == "away" || e.Name == "own-0"), e.Name)
	}
	var x wire.Explanation
	call(t, n, "GET", "/v1/tasks/t-fast/explain", nil, &x)
	require.Equal(t, explain.ForEngine, x.Why.Code)
	require.Contains(t, x.Why.Text, "/away (")
	require.NotContains(t, x.Why.Text, "/own-0")
}
