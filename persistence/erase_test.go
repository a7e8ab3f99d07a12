package persistence

import (
	"bytes"
	"fmt"
	"testing"

	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"
)

// TestEraseTakesWhatACrashLeft: between a truncation and its cleanup a crash leaves rows and pieces that no reader sees. Erasing the journal
// must take them too, or they would be its rows again.
func TestEraseTakesWhatACrashLeft(t *testing.T) {
	b := newBench(t, t.TempDir())
	key := Key{"t", "a"}
	const last = 300
	var many []Write
	for seq := range uint64(last) {
		many = append(many, Write{Key: key, After: seq, Data: []byte("row")})
	}
	cut := Write{Key: key, After: last, Data: []byte("cut"), Snap: &Snapshot{State: []byte("s"), Truncate: true}}
	log := []sm.Entry{
		{Index: 1, Cmd: appendAcquire(nil, 0)},
		{Index: 2, Cmd: appendAppend(nil, 1, many, nil)},
		{Index: 3, Cmd: appendAppend(nil, 1, []Write{cut}, nil)},
	}
	require.NoError(t, b.update(log))
	journal := journalKey(b.machine.prefix, "t", "a")
	var left batch
	for seq := uint64(2); seq <= last; seq++ {
		left.set(rowKey(journal, seq), emptied)
		for part := range 20 {
			left.set(pieceKey(journal, slotRowPiece, seq, part), []byte("piece"))
		}
		if left.rows() > 1000 {
			require.NoError(t, b.c.commit(&left))
			left.reset()
		}
	}
	left.set(pieceKey(journal, slotSnapPiece, 1, 0), []byte("piece"))
	require.NoError(t, b.c.commit(&left))
	neighbor := journalKey(b.machine.prefix, "t", "ab")
	var other batch
	other.set(rowKey(neighbor, 1), emptied)
	require.NoError(t, b.c.commit(&other))

	erase := Write{Key: key, After: last + 1, Data: []byte("end"), Erase: true}
	again := []Write{{Key: key, Data: []byte("new")}, {Key: key, After: last + 1, Data: []byte("late")}}
	log = append(log, sm.Entry{Index: 4, Cmd: appendAppend(nil, 1, []Write{erase}, nil)})
	require.NoError(t, b.update(log))
	require.Equal(t, 1, len(b.dump()), "the neighbor's row, and nothing else")

	log = append(log, sm.Entry{Index: 5, Cmd: appendAppend(nil, 1, again, nil)})
	require.NoError(t, b.update(log))
	require.Equal(t, 2, len(b.dump()), "a row of the new life, and none that was late for the old one")
}

// stored puts the first row of a journal, or its snapshot with an empty row, on disk as a version does that keeps it in pieces of size
// bytes; 0: in its row.
func (b *bench) stored(w Write, size int) {
	var rows batch
	journal := journalKey(b.machine.prefix, w.Key.Kind, w.Key.ID)
	row, slot, data := body{hash: 1}, byte(slotRowPiece), w.Data
	if w.Snap != nil {
		slot, data = slotSnapPiece, w.Snap.State
	}
	held := body{hash: 1, data: data}
	if size > 0 {
		for held.data = nil; len(data) > 0; held.pieces++ {
			n := min(size, len(data))
			rows.set(pieceKey(journal, slot, 1, held.pieces), data[:n])
			data = data[n:]
		}
	}
	if w.Snap != nil {
		rows.set(snapKey(journal), snapRow{seq: 1, first: 1, body: held}.encode(nil))
	} else {
		row = held
	}
	rows.set(rowKey(journal, 1), row.encode(nil))
	require.NoError(b.t, b.c.commit(&rows))
}

// TestEraseKnowsNoForms: replicas of one log have a body in the form of the version that applied it, and answer the same when it is
// erased, and so have the same afterwards.
func TestEraseKnowsNoForms(t *testing.T) {
	for _, name := range []int{0, KeyMax - 8} {
		for bytes, sizes := range map[int][]int{EraseBody: {0}, EraseBody + 1: {0, pieceMin, bodyMax}, 20 << 10: {0, pieceMin}, 200 << 10: {0, 100 << 10, pieceMin}} {
			for _, snap := range []bool{false, true} {
				w := named("task", 0, bytes, name)
				if snap {
					w.Snap, w.Data = &Snapshot{State: w.Data}, []byte("row")
				}
				var forms []func(*bench)
				for _, size := range sizes {
					forms = append(forms, func(b *bench) { b.stored(w, size) })
				}
				forms = append(forms, func(b *bench) {
					_, err := b.machine.Update([]sm.Entry{{Index: 2, Cmd: appendAppend(nil, 1, []Write{w}, nil)}})
					require.NoError(t, err)
				})
				for i, form := range forms {
					what := fmt.Sprintf("%d bytes, names of %d, snapshot %v, form %d", bytes, name, snap, i)
					b := newBench(t, inMemory)
					require.NoError(t, b.update([]sm.Entry{{Index: 1, Cmd: appendAcquire(nil, 0)}}))
					form(b)
					b.crash()
					erase := func(index, after uint64) sm.Result {
						out, err := b.machine.Update([]sm.Entry{{Index: index, Cmd: appendAppend(nil, 1, []Write{{Key: w.Key, After: after, Data: []byte("end"), Erase: true}}, nil)}})
						require.NoError(t, err)
						return out[0].Result
					}
					if bytes <= EraseBody {
						require.Equal(t, sm.Result{Value: didAppend}, erase(3, 1), what)
						require.Empty(t, b.dump(), what)
						continue
					}
					before := b.dump()
					require.Equal(t, sm.Result{Value: didMixed, Data: []byte{codeLarge, 1}}, erase(3, 1), what)
					require.Equal(t, before, b.dump(), what)
					cut := Write{Key: w.Key, After: 1, Data: []byte("cut"), Snap: &Snapshot{State: []byte("null"), Truncate: true}}
					_, err := b.machine.Update([]sm.Entry{{Index: 4, Cmd: appendAppend(nil, 1, []Write{cut}, nil)}})
					require.NoError(t, err)
					require.Equal(t, sm.Result{Value: didAppend}, erase(5, 2), what)
					require.Empty(t, b.dump(), what)
					b.close()
				}
			}
		}
	}
}

// TestEraseIsPutOff: a replica puts off that a journal of large rows is cut, erased, and begun anew with larger ones, and crashes, or does
// not. What is on disk can be read at any moment, and in the end it is the new life.
func TestEraseIsPutOff(t *testing.T) {
	for _, size := range []int{20 << 10, 200 << 10, 600 << 10} {
		for _, anew := range []int{20 << 10, 600 << 10} {
			for crashed := 2; crashed <= 6; crashed++ { // the index that was applied; 6: it did not crash
				w, next := named("task", 0, size, 0), named("task", 0, anew, 0)
				cut := Write{Key: w.Key, After: 1, Data: []byte("cut"), Snap: &Snapshot{State: []byte("null"), Truncate: true}}
				erase := Write{Key: w.Key, After: 2, Data: []byte("end"), Erase: true}
				log := []sm.Entry{{Index: 1, Cmd: appendAcquire(nil, 0)}}
				for i, x := range []Write{w, cut, erase, next} {
					log = append(log, sm.Entry{Index: uint64(i) + 2, Cmd: appendAppend(nil, 1, []Write{x}, nil)})
				}
				b := newBench(t, inMemory)
				require.NoError(t, b.update(log[:2]))
				b.follow()
				for i := range log[2:min(crashed, len(log))] {
					require.NoError(t, b.update(log[:3+i]))
					switch got := b.read(w.Key); b.machine.applied.Load() {
					case 2:
						require.True(t, bytes.Equal(w.Data, got))
					case 3:
						require.Empty(t, got, "emptied")
					default:
						require.Fail(t, "it was not put off")
					}
				}
				if crashed <= len(log) {
					b.crash()
					require.NoError(t, b.update(log))
				}
				require.NoError(t, b.machine.settle())
				what := fmt.Sprintf("of %d bytes, then of %d, a crash at %d", size, anew, crashed)
				require.True(t, bytes.Equal(next.Data, b.read(w.Key)), what)
				one := newBench(t, inMemory)
				require.NoError(t, one.update([]sm.Entry{log[0], {Index: 2, Cmd: log[4].Cmd}}))
				require.Equal(t, one.dump(), b.dump(), what)
				one.close()
				b.close()
			}
		}
	}
}
