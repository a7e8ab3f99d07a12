package persistence

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/dgraph-io/badger/v4"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"
)

// bench is a state machine on a database, without Raft.
type bench struct {
	t       testing.TB
	dir     string
	db      *badger.DB
	c       *committer
	machine *stateMachine
}

// inMemory is the directory of a bench whose database keeps nothing, for tests with many commits.
const inMemory = "memory"

func newBench(t testing.TB, dir string) *bench {
	o, err := Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}.withDefaults()
	require.NoError(t, err)
	files := badgerOptions(dir, o)
	if dir == inMemory {
		files = files.WithDir("").WithValueDir("").WithInMemory(true)
	}
	db, err := badger.OpenManaged(files)
	require.NoError(t, err)
	b := &bench{t: t, dir: dir, db: db, c: newCommitter(db, 4)}
	b.machine = newStateMachine(0, b.c, 1, nil)
	require.NoError(t, b.machine.load())
	t.Cleanup(b.close)
	return b
}

func (b *bench) close() {
	if b.db != nil {
		b.c.close()
		require.NoError(b.t, b.db.Close())
		b.db = nil
	}
}

// update applies the entries after what is applied, in one batch.
func (b *bench) update(log []sm.Entry) error {
	log = log[b.machine.meta.applied:]
	_, err := b.machine.Update(append([]sm.Entry{}, log...))
	return err
}

// dump is everything that a reader can see. The pieces of a large row that a snapshot
// replaced may outlive a crash, which no reader can see.
func (b *bench) dump() map[string]string {
	all := map[string]string{}
	v := b.c.view()
	defer v.close()
	it := v.NewIterator(badger.IteratorOptions{Prefix: dataPrefix(nil, 0, b.machine.meta.generation), PrefetchValues: true})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		value, err := it.Item().ValueCopy(nil)
		require.NoError(b.t, err)
		all[string(it.Item().Key()[dataPrefixLen:])] = string(value)
	}
	return all
}

// history is a log with everything in it: conflicts that a half applied entry would turn
// into successes, large bodies, truncation, counters that come and go.
func history() []sm.Entry {
	w := func(id string, after uint64, data string) Write {
		return Write{Key: Key{"t", id}, After: after, Data: []byte(data), Count: []Count{{"n", 1}, {"flip", 1 - 2*int64(after%2)}},
			Index: []Index{{Name: "i", Key: []byte(id)}, {Name: "i", Key: []byte(fmt.Sprint(id, after)), Delete: after%2 == 0}}}
	}
	snap := w("a", 4, "five")
	snap.Snap = &Snapshot{State: make([]byte, 700<<10), Truncate: true}
	cut := w("b", 2, "three")
	cut.Snap = &Snapshot{State: []byte("s"), Truncate: true}
	erase := func(id string, after uint64) Write {
		return Write{Key: Key{"t", id}, After: after, Data: []byte("end"), Erase: true, Count: []Count{{"n", -1}}, Index: []Index{{Name: "i", Key: []byte(id), Delete: true}}}
	}
	large := w("c", 0, string(make([]byte, 900<<10)))
	middle := w("d", 0, string(make([]byte, 100<<10)))
	gone := w("d", 1, "gone")
	gone.Snap = &Snapshot{State: make([]byte, 40<<10), Truncate: true}
	cmds := [][]byte{
		nil, appendAcquire(nil, 0),
		appendAppend(nil, 1, []Write{w("a", 0, "one"), w("b", 0, "one")}, nil),
		appendAppend(nil, 1, []Write{w("a", 2, "early"), w("a", 1, "two"), w("a", 2, "three")}, nil),
		appendAppend(nil, 0, []Write{w("a", 3, "fenced")}, nil),
		appendAppend(nil, 1, []Write{large}, nil),
		appendAppend(nil, 1, []Write{w("a", 3, "four"), w("b", 1, "two")}, nil),
		appendAcquire(nil, 1), appendAcquire(nil, 1),
		appendAppend(nil, 2, []Write{middle}, nil),
		appendAppend(nil, 2, []Write{snap, gone}, nil),
		appendAppend(nil, 2, []Write{w("a", 5, "six"), w("a", 5, "six")}, nil),
		appendAppend(nil, 2, []Write{cut, erase("a", 6), w("d", 0, "one"), w("d", 1, "two")}, nil),
		appendAppend(nil, 2, []Write{erase("d", 2), w("d", 0, "new"), w("d", 1, "two"), w("d", 2, "three")}, nil),
		appendAppend(nil, 2, []Write{erase("b", 3), erase("c", 1), erase("b", 3)}, nil),
		appendAppend(nil, 2, []Write{w("b", 0, "anew"), w("b", 3, "late"), erase("d", 3)}, nil),
	}
	var log []sm.Entry
	for i, c := range cmds {
		log = append(log, sm.Entry{Index: uint64(i) + 1, Cmd: c})
	}
	return log
}

// TestCommitFails fails every commit of a history in turn, in batches of every size, put off or not, and
// replays from the applied index that is on disk then, as Raft does.
func TestCommitFails(t *testing.T) {
	for _, follows := range []bool{false, true} {
		t.Run(fmt.Sprint("follows=", follows), func(t *testing.T) { commitFails(t, follows) })
	}
}

func commitFails(t *testing.T, follows bool) {
	log := history()
	whole := newBench(t, t.TempDir())
	require.NoError(t, whole.update(log))
	want := whole.dump()
	require.NotEmpty(t, want)
	boom := errors.New("boom")
	for batch := 1; batch <= len(log); batch += 3 {
		for n, failed := uint64(1), true; failed; n++ {
			b := newBench(t, t.TempDir())
			start, commits := b.c.committed, uint64(0)
			b.c.fail = func(ts uint64) error {
				if commits = ts - start; commits == n {
					return boom
				}
				return nil
			}
			failed = false
			if follows {
				b.follow()
			}
			for at := batch; !failed && int(b.machine.meta.applied) < len(log); at += batch {
				if err := b.update(log[:min(at, len(log))]); err != nil {
					require.ErrorIs(t, err, boom)
					failed = true
				}
			}
			if !failed && b.machine.settle() != nil {
				failed = true
			}
			b.close()
			b = newBench(t, b.dir)
			require.NoError(t, b.update(log))
			got := b.dump()
			require.Equal(t, len(want), len(got), "batch %d, commit %d", batch, n)
			for k, v := range want {
				require.Equal(t, v, got[k], "batch %d, commit %d, %q", batch, n, k)
			}
			require.Equal(t, whole.machine.count(), b.machine.count())
			require.Equal(t, len(b.machine.count()), b.machine.live)
			require.Equal(t, whole.machine.meta.epoch, b.machine.meta.epoch)
			b.close()
		}
	}
}

func TestHeadsKeepsWhatABatchTouches(t *testing.T) {
	h := newHeads(1)
	for i := range 3 * AppendCount {
		h.put([]byte(fmt.Sprint(i)), head{seq: uint64(i)})
		back := max(0, i-AppendCount+1)
		v, ok := h.get([]byte(fmt.Sprint(back)))
		require.True(t, ok && v.seq == uint64(back))
	}
	require.LessOrEqual(t, len(h.new)+len(h.old), 2*AppendCount)
}
