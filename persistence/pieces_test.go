package persistence

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"
)

// TestPieceSize goes through bodies of every size and names of every length.
func TestPieceSize(t *testing.T) {
	require.Equal(t, WriteMax, piecesMax*bodyMax)
	for name := 2; name <= 2*KeyMax; name = name*3/2 + 1 {
		for body := 1; body <= WriteMax; body += 1 + body/97 {
			size := pieceSize(body, name)
			if body <= EraseBody {
				require.Zero(t, size, "the replicas' programs agree on what is whole")
			}
			if size == 0 {
				require.LessOrEqual(t, body, max(bodyWhole, nameShare*name))
				require.Equal(t, body, bodyCost(body, name))
				continue
			}
			pieces := (body + size - 1) / size
			what := fmt.Sprintf("%d bytes, name of %d: %d pieces of %d", body, name, pieces, size)
			require.LessOrEqual(t, size, bodyMax, what)
			require.LessOrEqual(t, pieces, piecesMax, what)
			require.Greater(t, pieces, 1, what)
			if body <= bodyMax { // what an entry costs beyond what its limit counts has room in txnBytes
				require.LessOrEqual(t, bodyCost(body, name)*100, body*106, what)
			}
		}
	}
	require.Less(t, AppendMax/100*106, txnBytes-txnBytes/64)
}

// named is a write with a body of so many random bytes under a long name.
func named(id string, after uint64, bytes, name int) Write {
	b := make([]byte, bytes)
	_, _ = rand.NewChaCha8([32]byte{byte(bytes)}).Read(b)
	return Write{Key: Key{"t", id + strings.Repeat("x", name)}, After: after, Data: b}
}

// TestFullAppends: an entry of AppendMax has room in a transaction, whatever its bodies are, and all of it is read again.
func TestFullAppends(t *testing.T) {
	for _, name := range []int{8, KeyMax - 8} {
		for _, size := range []int{bodyWhole, bodyWhole + 1, 4*bodyWhole + 1, 255<<10 + 20, bodyMax} {
			b := newBench(t, inMemory)
			var writes []Write
			for {
				more := append(writes, named(fmt.Sprintf("%4d", len(writes)), 0, size, name))
				if CheckAppend(more) != nil {
					break
				}
				writes = more
			}
			require.NoError(t, b.update([]sm.Entry{{Index: 1, Cmd: appendAcquire(nil, 0)}, {Index: 2, Cmd: appendAppend(nil, 1, writes, nil)}}))
			for _, w := range writes {
				require.True(t, bytes.Equal(w.Data, b.read(w.Key)), "%d writes of %d bytes", len(writes), size)
			}
			b.close()
		}
	}
}

// read returns the first row of a journal.
func (b *bench) read(key Key) (data []byte) {
	v := b.c.view()
	defer v.close()
	journal := journalKey(b.machine.prefix, key.Kind, key.ID)
	_, err := v.get(rowKey(journal, 1), func(value []byte) (err error) {
		var x body
		require.True(b.t, x.decode(value))
		data, err = (&shard{sm: b.machine}).body(v, journal, slotRowPiece, 1, x)
		return err
	})
	require.NoError(b.t, err)
	return data
}

// TestTruncatedPieces: a snapshot that stands for a row takes its pieces away with it, in the transaction of its own.
func TestTruncatedPieces(t *testing.T) {
	b := newBench(t, t.TempDir())
	long := named("long", 0, 200<<10, 0)
	bury := Write{Key: long.Key, After: 1, Data: []byte{0}, Snap: &Snapshot{State: []byte{0}, Truncate: true}}
	log := []sm.Entry{{Index: 1, Cmd: appendAcquire(nil, 0)}, {Index: 2, Cmd: appendAppend(nil, 1, []Write{long}, nil)}}
	require.NoError(t, b.update(log))
	require.Len(t, b.dump(), 1+25, "the row and its pieces")
	before := b.c.committed
	require.NoError(t, b.update(append(log, sm.Entry{Index: 3, Cmd: appendAppend(nil, 1, []Write{bury}, nil)})))
	require.Len(t, b.dump(), 2, "the first row, emptied, and the snapshot")
	require.Equal(t, before+1, b.c.committed)
}

// TestEarlierForms: a version before pieces of this size kept a body of up to bodyMax in its row, and more in pieces of bodyMax. So
// data directories, backups and snapshots from it have them, and it reads those of this one.
func TestEarlierForms(t *testing.T) {
	const earlierMax = WriteMax/(256<<10) + 1 // pieces that it reads
	old, whole := newBench(t, t.TempDir()), named("whole", 0, 255<<10+20, 0)
	large := named("large", 0, 700<<10, 0)
	old.stored(whole, 0)
	old.stored(large, 256<<10)
	fresh := newBench(t, t.TempDir())
	require.NoError(t, fresh.machine.RecoverFromSnapshot(bytes.NewReader(snapshotOf(t, old)), nil))
	for _, b := range []*bench{old, fresh} {
		for _, w := range []Write{whole, large} {
			require.True(t, bytes.Equal(w.Data, b.read(w.Key)), w.Key)
			bury := Write{Key: w.Key, After: 1, Data: []byte{0}, Snap: &Snapshot{State: []byte{0}, Truncate: true}}
			n := b.machine.meta.applied
			_, err := b.machine.Update([]sm.Entry{{Index: n + 1, Cmd: appendAppend(nil, 0, []Write{bury}, nil)}})
			require.NoError(t, err)
		}
		require.Len(t, b.dump(), 4, "rows emptied, and their snapshots")
	}
	for body := 1; body <= WriteMax; body += 1 + body/97 {
		if size := pieceSize(body, 2); size > 0 {
			require.LessOrEqual(t, (body+size-1)/size, earlierMax)
		}
	}
}
