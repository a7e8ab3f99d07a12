package persistence

import (
	"bytes"
	"testing"

	"github.com/dgraph-io/badger/v4"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func snapshotOf(t *testing.T, b *bench) []byte {
	var out bytes.Buffer
	p, err := b.machine.PrepareSnapshot()
	require.NoError(t, err)
	require.NoError(t, b.machine.SaveSnapshot(p, &out, nil))
	return out.Bytes()
}

// rowsOnDisk counts the rows of the shard in all generations.
func rowsOnDisk(b *bench) (n int) {
	v := b.c.view()
	defer v.close()
	it := v.NewIterator(badger.IteratorOptions{Prefix: dataPrefix(nil, 0, 0)[:3]})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	return n
}

// TestRecoverFromSnapshot moves a state to a replica that has an older one; a broken stream
// leaves that as it was, and the old generation goes away.
func TestRecoverFromSnapshot(t *testing.T) {
	log := history()
	from, to := newBench(t, t.TempDir()), newBench(t, t.TempDir())
	require.NoError(t, from.update(log))
	require.NoError(t, to.update(log[:4]))
	older := to.dump()
	stream := snapshotOf(t, from)
	for at := 0; at < len(stream); at += len(stream)/37 + 1 {
		bad := bytes.Clone(stream)
		bad[at] ^= 0x10
		require.Equal(t, fault.Corrupt, fault.KindOf(to.machine.RecoverFromSnapshot(bytes.NewReader(bad), nil)), "flip at %d", at)
		require.Equal(t, fault.Corrupt, fault.KindOf(to.machine.RecoverFromSnapshot(bytes.NewReader(stream[:at]), nil)), "cut at %d", at)
	}
	require.Equal(t, older, to.dump())
	require.EqualValues(t, 4, to.machine.meta.applied)

	require.NoError(t, to.machine.RecoverFromSnapshot(bytes.NewReader(stream), nil))
	same := func() {
		require.Equal(t, from.dump(), to.dump())
		require.Equal(t, from.machine.count(), to.machine.count())
		require.Equal(t, from.machine.meta.applied, to.machine.meta.applied)
		require.Equal(t, from.machine.epoch.Load(), to.machine.epoch.Load())
	}
	same()
	require.Greater(t, rowsOnDisk(to), len(to.dump()), "the old generation is still there")
	require.NoError(t, to.machine.sweepOld(nil))
	require.Equal(t, rowsOnDisk(to), len(to.dump()))
	same()
	more := append(log, sm.Entry{Index: uint64(len(log)) + 1, Cmd: appendAppend(nil, 2, []Write{{Key: Key{"t", "a"}, After: 6, Data: []byte("on")}}, nil)})
	require.NoError(t, from.update(more))
	require.NoError(t, to.update(more))
	same()
	to.close()
	to = newBench(t, to.dir)
	same()
}

// TestSnapshotIsPinned: what is applied while a snapshot streams is not in it.
func TestSnapshotIsPinned(t *testing.T) {
	log := history()
	b := newBench(t, t.TempDir())
	require.NoError(t, b.update(log[:5]))
	p, err := b.machine.PrepareSnapshot()
	require.NoError(t, err)
	want := b.dump()
	require.NoError(t, b.update(log))
	for range 3 * discardEvery { // Badger is told that older versions are free to go
		var x batch
		x.set([]byte("d\xff"), []byte("x"))
		require.NoError(t, b.c.commit(&x))
	}
	var out bytes.Buffer
	require.NoError(t, b.machine.SaveSnapshot(p, &out, nil))
	got := map[string]string{}
	info, err := readStream(&out, nil, func(k, v []byte) error { got[string(k)] = string(v); return nil })
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.EqualValues(t, 5, info.Applied)
}

func FuzzStream(f *testing.F) {
	b := newBench(f, f.TempDir())
	require.NoError(f, b.update(history()[:4]))
	var out bytes.Buffer
	_, err := writeStream(&out, 0, b.c.view(), b.machine.meta, nil)
	require.NoError(f, err)
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := readStream(bytes.NewReader(b), nil, func(_, _ []byte) error { return nil })
		require.True(t, err == nil || fault.KindOf(err) == fault.Corrupt)
	})
}
