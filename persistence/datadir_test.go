package persistence

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHostIsRenamed: a data directory that comes to a machine of another name, as a
// container's does at every start, keeps working. Each step may be the last before a crash.
func TestHostIsRenamed(t *testing.T) {
	o, err := Options{Dir: t.TempDir(), Shards: 1}.withDefaults()
	require.NoError(t, err)
	s, err := Open(o)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	here, err := os.Hostname()
	require.NoError(t, err)
	for _, halfWay := range []bool{false, true} {
		d := &dataDir{path: o.Dir}
		require.NoError(t, d.takeLock())
		require.NoError(t, d.identify(o))
		require.Equal(t, here, d.Host)
		require.NoError(t, d.rename("elsewhere"))
		if halfWay { // the log has moved back already, meta.json was not written
			require.NoError(t, os.Rename(d.raft()+"/elsewhere", d.raft()+"/"+here))
		}
		d.close()
		s, err := Open(o)
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}
