package persistence_test

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

func open(t testing.TB, o persistence.Options) persistence.Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := persistence.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// TestStore runs the suite on the shards of one store, each case on a fresh one.
func TestStore(t *testing.T) {
	s := open(t, persistence.Options{Shards: 64})
	var next atomic.Int64
	persisttest.Run(t, func(t *testing.T) persistence.Journal { return s.Journal(int(next.Add(1)) - 1) })
}
