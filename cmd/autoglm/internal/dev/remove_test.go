package dev

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A node that was forgotten does not come back with the next dev, and its name and ports are nobody else's.
func TestRemovedNodesStayAway(t *testing.T) {
	dir := t.TempDir()
	c, _ := open(t, options(dir, 3, nil))
	ctx := within(t, 4*patience)
	require.NoError(t, c.Start(ctx))
	k, err := Dial(dir)
	require.NoError(t, err)
	_, err = k.Remove(ctx, "node-2", patience)
	requireKind(t, fault.Conflict, err, "runs", "dev stop node-2")
	_, err = k.Remove(ctx, "node-9", patience)
	requireKind(t, fault.NotFound, err)
	for _, name := range []string{"node-1", "node-3"} {
		_, err = k.Stop(ctx, name, patience, true)
		require.NoError(t, err)
		n, err := k.Remove(ctx, name, patience)
		require.NoError(t, err)
		require.Equal(t, name, n.Name)
		require.NotEmpty(t, n.DataDir)
	}
	require.NoError(t, c.KillNode("node-2"))
	_, err = k.Remove(ctx, "node-2", patience)
	requireKind(t, fault.Refused, err, "last node")
	c.Close(ctx)

	c, _ = open(t, options(dir, 0, nil))
	require.NoError(t, c.Start(ctx))
	n, err := c.AddNode(ctx)
	require.NoError(t, err)
	require.Equal(t, "node-4", n.Name)
	require.NotContains(t, argsOf(t, n), "--bootstrap-expect", "it is none of those that began")
	var names []string
	for _, n := range c.Nodes() {
		names = append(names, n.Name)
	}
	require.Equal(t, []string{"node-2", "node-4"}, names)
	require.Contains(t, argsOf(t, c.Nodes()[0]), "--bootstrap-expect 3")
}
