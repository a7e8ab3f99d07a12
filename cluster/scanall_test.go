package cluster_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/clustertest"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestNewest: rows of all shards come in one order, page by page, on the owner and through another node.
func TestNewest(t *testing.T) {
	const rows = 1500 // of about 500 a shard: more than one page of a shard
	c := clustertest.New(t, 2, 3, func() []cluster.Kind { return nil })
	key := func(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	var writes []persistence.Write
	for i, n := range rand.Perm(rows) {
		writes = append(writes, persistence.Write{Key: persistence.Key{Kind: "k", ID: fmt.Sprint(i)}, Data: []byte("x"),
			Index: []persistence.Index{{Name: "n", Key: key(n), Value: []byte{byte(n % 10)}}}})
	}
	for _, err := range c.Router(1).Create(t.Context(), writes) {
		require.NoError(t, err)
	}
	for node := range 2 {
		r := c.Router(node)
		for _, limit := range []int{1, 7, 700, cluster.NewestMax} {
			got, from := 0, []byte(nil)
			for {
				page, err := r.Newest(t.Context(), "n", from, limit, nil)
				require.NoError(t, err)
				for _, row := range page {
					require.Equal(t, key(got), row.Key)
					got++
				}
				if len(page) < limit || limit < 100 && got > 50 {
					break
				}
				from = append(page[len(page)-1].Key, 0)
			}
			require.True(t, got == rows || limit < 100 && got > 50, "%d of %d rows by %d", got, rows, limit)
		}
		page, err := r.Newest(t.Context(), "n", key(5), 30, func(row cluster.IndexRow) bool { return row.Value[0] == 3 })
		require.NoError(t, err)
		require.Len(t, page, 30)
		for i, row := range page {
			require.Equal(t, key(13+10*i), row.Key)
		}
		page, err = r.Newest(t.Context(), "nothing", nil, 5, nil)
		require.NoError(t, err)
		require.Empty(t, page)
		for _, limit := range []int{0, cluster.NewestMax + 1} {
			_, err = r.Newest(t.Context(), "n", nil, limit, nil)
			require.Equal(t, fault.Invalid, fault.KindOf(err))
		}
	}
	c.Cut(0, true)
	_, err := c.Router(1).Newest(t.Context(), "n", nil, 5, nil)
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "a list with holes is none: %v", err)
}

// TestAppend: rows behind rows, once, from any node.
func TestAppend(t *testing.T) {
	c := clustertest.New(t, 2, 3, func() []cluster.Kind { return nil })
	k := persistence.Key{Kind: "k", ID: "a"}
	second := persistence.Write{Key: k, After: 1, Data: []byte("2")}
	first := persistence.Write{Key: k, Data: []byte("1")}
	r := c.Router(1)
	require.Equal(t, fault.Conflict, fault.KindOf(r.Append(t.Context(), []persistence.Write{second})[0]), "there is no journal")
	require.Equal(t, fault.Invalid, fault.KindOf(r.Append(t.Context(), []persistence.Write{first})[0]))
	require.NoError(t, r.Create(t.Context(), []persistence.Write{first})[0])
	for node := range 2 {
		require.NoError(t, c.Router(node).Append(t.Context(), []persistence.Write{second})[0], "the same twice is one")
	}
	other := second
	other.Data = []byte("3")
	require.Equal(t, fault.Conflict, fault.KindOf(r.Append(t.Context(), []persistence.Write{other})[0]))
	l, err := r.Read(t.Context(), k, 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, l.Last)
}
