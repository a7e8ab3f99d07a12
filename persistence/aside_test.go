package persistence

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestSetAside: what is damaged is kept, and in its place a new directory can be opened, also when
// the first try stopped halfway.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	open := func() (Store, error) { return Open(Options{Dir: dir, Shards: 2, DiskReserve: 1 << 20}) }
	s, err := open()
	require.NoError(t, err)
	first := s.Node()
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, storeName, "MANIFEST")))
	_, err = open()
	require.Equal(t, fault.Corrupt, fault.KindOf(err))

	now := time.Unix(1, 0)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "damaged-half"), 0o700)) // a crash came between two renames
	require.NoError(t, os.Rename(filepath.Join(dir, raftName), filepath.Join(dir, "damaged-half", raftName)))
	require.True(t, Exists(dir))
	to, err := SetAside(dir, now)
	require.NoError(t, err)
	require.False(t, Exists(dir))
	require.FileExists(t, filepath.Join(to, metaName))
	require.DirExists(t, filepath.Join(to, storeName))

	s, err = open()
	require.NoError(t, err)
	require.NotEqual(t, first, s.Node())
	require.NoError(t, s.Close())
}
