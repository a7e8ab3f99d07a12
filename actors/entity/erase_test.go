package entity_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// indexed is a kind that has a row, a counter and maybe a timer while it has a sum.
func indexed() *entity.Kind[ledger, entry] {
	k := kind()
	k.Index = func(id string, before, after ledger) []persistence.Index {
		return []persistence.Index{{Name: "sums", Key: []byte(id), Value: fmt.Append(nil, after.Sum), Delete: after.Sum == 0}}
	}
	k.Count = func(_ string, before, after ledger) []persistence.Count {
		return []persistence.Count{{Name: "sum", Delta: int64(after.Sum - before.Sum)}}
	}
	k.Timer = func(l ledger) time.Time { return l.Until }
	return k
}

// TestErase: nothing stays of an entity, however long its journal is, and its id may be used again at once. It is the same when the answer to any of the
// appends is lost.
func TestErase(t *testing.T) {
	for _, rows := range []int{1, persistence.EraseRows, persistence.EraseRows + 1, 100} {
		for _, snapshots := range []int{0, 10} {
			for _, lose := range []int{0, 1, 2} { // which of the appends of erasing
				t.Run(fmt.Sprint(rows, snapshots, lose), func(t *testing.T) {
					k := indexed()
					k.SnapshotEvery, k.Truncate = snapshots, snapshots > 0
					w := newWorld(t, k, nil)
					for range rows - 1 {
						w.must("a", add{1})
					}
					w.must("a", nap{time.Now().Add(time.Hour)})
					w.must("b", add{1})
					var lost atomic.Bool
					at := w.mem.Appends() + lose
					w.mem.LoseAppend = func(n int) error {
						if n == at && lose > 0 && lost.CompareAndSwap(false, true) {
							return fault.New(fault.Timeout, "test", "", "append %d", n)
						}
						return nil
					}
					require.Equal(t, "gone", w.must("a", erase{}))
					l, err := w.mem.Read(persistence.Key{Kind: "ledger", ID: "a"}, 0)
					require.NoError(t, err)
					require.Equal(t, persistence.Log{}, l)
					counters, err := w.mem.Counters()
					require.NoError(t, err)
					require.Equal(t, map[string]int64{"sum": 1}, counters, "b's")
					require.Equal(t, []string{"b"}, w.rows("sums"))
					require.Empty(t, w.rows(cluster.TimerIndex))

					require.Equal(t, ledger{}, w.must("a", get{}))
					require.Equal(t, 5, w.must("a", add{5}))
					require.Equal(t, []string{"a", "b"}, w.rows("sums"))
				})
			}
		}
	}
}

// TestCreatedBesideAnActor: an actor that is awake for an entity that is not there, because it was erased or never was, does not hide one that is created past it.
func TestCreatedBesideAnActor(t *testing.T) {
	k := indexed()
	w := newWorld(t, k, nil)
	create := func(id string) {
		t.Helper()
		_, write, err := k.First(id, add{7}, time.Now)
		require.NoError(t, err)
		require.NoError(t, w.router.Create(t.Context(), []persistence.Write{write})[0])
		require.Equal(t, 7, w.must(id, get{}).(ledger).Sum)
	}
	require.Zero(t, w.must("never", get{}).(ledger).Sum)
	create("never")
	w.must("erased", add{1})
	require.Equal(t, "gone", w.must("erased", erase{}))
	create("erased")
}

// TestEraseFails: what could not be erased is as it was.
func TestEraseFails(t *testing.T) {
	w := newWorld(t, indexed(), nil)
	w.must("a", add{3})
	w.mem.FailAppend = func(int) error { return fault.New(fault.NoSpace, "test", "", "full") }
	_, err := w.ask("a", erase{})
	require.Equal(t, fault.NoSpace, fault.KindOf(err), "%v", err)
	w.mem.FailAppend = nil
	require.Equal(t, 4, w.must("a", add{1}))
	require.Equal(t, []string{"a"}, w.rows("sums"))
}

// TestEraseWaitsForAllReplicas: while one may run a program that does not know how, nothing is written.
func TestEraseWaitsForAllReplicas(t *testing.T) {
	older := fault.New(fault.Unavailable, "test", "", "an older node has a replica").WithRemedy("upgrade it")
	w := newWorldWith(t, indexed(), cluster.Options{MayErase: func(int) error { return older }})
	w.must("a", add{3})
	appends := w.mem.Appends()
	_, err := w.ask("a", erase{})
	require.ErrorIs(t, err, older)
	require.Equal(t, appends, w.mem.Appends())
	require.Equal(t, 3, w.must("a", get{}).(ledger).Sum)
}

func (w *world) rows(index string) (keys []string) {
	require.NoError(w.t, w.mem.Scan(index, nil, nil, func(key, _ []byte) bool { keys = append(keys, string(key)); return true }))
	return keys
}
