package pki

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A file that only the cluster's folder has is not to be had from a node's.
func TestLostFilesOfTheClustersFolder(t *testing.T) {
	for _, name := range []string{caKey, caCrt, gossipFile} {
		dir := filepath.Join(t.TempDir(), "pki")
		require.NoError(t, Init(dir, InitOptions{Nodes: []string{"a"}}))
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
		err := AddNode(dir, "b")
		require.Equal(t, fault.NotFound, fault.KindOf(err))
		require.ErrorContains(t, err, "put "+name+" back from your copy of the cluster's folder")
		require.NotContains(t, err.Error(), "copy the node's folder")
	}
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, Init(dir, InitOptions{Nodes: []string{"a"}}))
	require.ErrorContains(t, AddNode(filepath.Join(dir, nodesDir, "a"), "b"), "is a node's folder: name the cluster's own")
}
