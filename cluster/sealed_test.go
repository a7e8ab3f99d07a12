package cluster_test

import (
	"bytes"
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/clustertest"
	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func newKeys(t *testing.T) *seal.Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.key")
	require.NoError(t, seal.Create(path))
	b, err := seal.ReadFile(path)
	require.NoError(t, err)
	k, err := seal.Parse(b, false)
	require.NoError(t, err)
	return k
}

// TestOwnersThatSeal: what an owner hands to its journal is sealed, what it reads and tells its observers is clear, another owner with
// the key goes on, a repeat of a write by that one is a repeat, and one without the key ends, before it has touched anything.
func TestOwnersThatSeal(t *testing.T) {
	const shards = 2
	keys := newKeys(t)
	var asked atomic.Int64
	observed := make(chan persistence.Index, 16)
	ended := make(chan error, shards)
	nodes := clustertest.New(t, 3, shards, func() []cluster.Kind { return nil }, func(o *cluster.Options) {
		if o.Self != "node-2" {
			o.Keys = keys
		}
		o.Fatal = func(err error) { ended <- err }
		o.MaySeal = func() error {
			for shard := range shards {
				l, err := o.Store.Journal(shard).Read(persistence.Key{Kind: "encryption", ID: "keys"}, 0)
				if n := asked.Load(); n < 8 && (err != nil || l.Last > 0) {
					t.Errorf("a key was used after %d of 8 refusals: %v", n, err)
				}
			}
			if asked.Add(1) <= 8 {
				return fault.New(fault.Unavailable, "test", "", "not yet")
			}
			return nil
		}
		o.Observers = func(*cluster.Owner) map[string][]cluster.Observer {
			return map[string][]cluster.Observer{"i": {func(rows []persistence.Index) {
				for _, r := range rows {
					observed <- r
				}
			}}}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w := persistence.Write{Key: persistence.Key{Kind: "k", ID: "1"}, Data: []byte("clear data"), Index: []persistence.Index{{Name: "i", Key: []byte("a"), Value: []byte("clear value")}}}
	shard := nodes.Router(0).ShardOf(w.Key)
	on := func(node int) {
		t.Helper()
		require.NoError(t, nodes.Router(node).Create(ctx, []persistence.Write{w})[0], "the same write twice is one, whoever seals it")
		l, err := nodes.Router(node).Read(ctx, w.Key, 0)
		require.NoError(t, err)
		require.Equal(t, "clear data", string(l.Rows[0].Data))
		p, err := nodes.Router(node).Scan(ctx, shard, "i", nil, nil, 10)
		require.NoError(t, err)
		require.Equal(t, "clear value", string(p.Rows[0].Value))
		require.Equal(t, "clear value", string((<-observed).Value))
	}
	on(0)
	require.EqualValues(t, 8+shards, asked.Load(), "once for each shard, when it may")
	l, err := nodes.Store.Journal(shard).Read(w.Key, 0)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(l.Rows[0].Data, []byte("\x00sealed\x01")))
	require.NoError(t, nodes.Store.Journal(shard).Scan("i", nil, nil, func(_, v []byte) bool {
		require.True(t, bytes.HasPrefix(v, []byte("\x00sealed\x01")))
		return true
	}))
	nodes.Move(1)
	on(1)
	require.NoError(t, cluster.CheckKeys(nodes.Store, keys))
	for _, other := range []*seal.Keys{nil, newKeys(t)} {
		require.Equal(t, fault.Refused, fault.KindOf(cluster.CheckKeys(nodes.Store, other)))
	}
	nodes.Move(2)
	err = <-ended
	require.Equal(t, fault.Refused, fault.KindOf(err), "%v", err)
	require.Contains(t, fault.RemedyOf(err), "encryption.key_file")
	nodes.Move(0)
	on(0)
}
