package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/node"
)

// TestStoppedWhileItWaits: a node that is told to stop before it has found its cluster did nothing wrong.
func TestStoppedWhileItWaits(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, pki.Init(filepath.Join(dir, "pki"), pki.InitOptions{Nodes: []string{"a", "b"}}))
	c := node.Default()
	c.DataDir, c.HTTP.Listen, c.Engines = filepath.Join(dir, "data"), "127.0.0.1:0", []node.EngineConfig{{URL: node.EngineEcho}}
	c.Cluster.Identity, c.Cluster.Listen, c.Cluster.Join, c.Cluster.Expect = filepath.Join(dir, "pki", "nodes", "a"), "127.0.0.1:0", []string{"127.0.0.1:1"}, 2
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, serve(ctx, c, slog.New(slog.DiscardHandler), "test"))
}
