package persistence

import (
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
