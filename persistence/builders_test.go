package persistence

import (
	"testing"

	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/stretchr/testify/require"
)

// TestBuildersStaySmall also tells when another version of Badger has no such pool.
func TestBuildersStaySmall(t *testing.T) {
	db := newBench(t, inMemory).db
	b := &builders{pool: builderPool(db)}
	require.NotNil(t, b.pool, "Badger's pool of table builders has another name or type")
	for range buildersPooled {
		b.pool.Return(z.NewAllocator(4*buildersKept, "test"))
	}
	b.trim()
	var all []*z.Allocator
	for range buildersPooled {
		a := b.pool.Get(2*buildersKept, "test") // larger: one that is made would show
		require.LessOrEqual(t, a.Allocated(), uint64(buildersKept))
		all = append(all, a)
	}
	for _, a := range all {
		b.pool.Return(a)
	}
}
