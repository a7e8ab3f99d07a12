package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestWhatNotAllNodesKnowIsNotBegun: an older node that lives refuses it, one that is gone does not.
func TestWhatNotAllNodesKnowIsNotBegun(t *testing.T) {
	now := knownMember{Member: members.Member{Name: "a", Knows: knowsAll}, Alive: true}
	later := knownMember{Member: members.Member{Name: "b", Knows: knowsAll + 1}, Alive: true}
	old := knownMember{Member: members.Member{Name: "c", Version: "v0.9"}, Alive: true}
	require.NoError(t, allKnow([]knownMember{now, later}, knowsTenants, "keys"))
	err := allKnow([]knownMember{now, old, later}, knowsTenants, "keys")
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	require.ErrorContains(t, err, "c (v0.9)")
	old.Alive = false
	require.NoError(t, allKnow([]knownMember{now, old}, knowsTenants, "keys"))
}

// TestNoKeysWhileAnOldNodeIsIn: neither keys nor sinks, and the answer names the node.
func TestNoKeysWhileAnOldNodeIsIn(t *testing.T) {
	l := bootLocked(t, nil)
	l.key("acme", "read")
	old := &members.Member{Name: "old", Version: "v0.9"}
	l.n.svc.known = func() []knownMember { return []knownMember{{Member: *old, Alive: true}} }
	for path, body := range map[string]any{"/v1/keys": map[string]any{"name": "x", "role": "read"}, "/v1/sinks": map[string]any{"name": "x", "url": "file:///x"}} {
		require.Contains(t, l.ask(l.root, "POST", path, body, 409)["detail"], "old (v0.9)")
	}
	steps := map[string]any{"steps": []any{map[string]any{"prompt": "p"}}}
	require.Contains(t, l.ask(l.root, "POST", "/v1/tasks", steps, 409)["detail"], "old (v0.9)")
	plan := map[string]any{"name": "x", "cron": "@daily", "task": steps}
	require.Contains(t, l.ask(l.root, "POST", "/v1/schedules", plan, 409)["detail"], "old (v0.9)")
	l.ask(l.root, "POST", "/v1/tasks", map[string]any{"prompt": "p", "steps": []string{"q"}}, 201)
	l.ask(l.root, "GET", "/v1/keys", nil, 200)
	old.Knows = knowsSteps
	l.ask(l.root, "POST", "/v1/tasks", steps, 201)
	lanes := map[string]any{"steps": []any{map[string]any{"http": map[string]any{"url": "http://h/"}}}}
	require.Contains(t, l.ask(l.root, "POST", "/v1/tasks", lanes, 409)["detail"], "old (v0.9)")
	old.Knows = knowsAll
	l.ask(l.root, "POST", "/v1/tasks", lanes, 201)
	l.ask(l.root, "POST", "/v1/tasks", steps, 201)
	l.ask(l.root, "POST", "/v1/keys", map[string]any{"name": "x", "role": "read"}, 201)
}
