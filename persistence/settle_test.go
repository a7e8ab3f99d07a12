package persistence

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	sm "github.com/lni/dragonboat/v4/statemachine"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawLog is a log of small commands about few journals: writes that fit, repeat others or come too early, snapshots
// that truncate, bodies in pieces, journals that are erased, owners that change.
func drawLog(t *rapid.T) (log []sm.Entry) {
	epoch, last := uint64(0), map[string]uint64{}
	for i := range rapid.IntRange(1, 40).Draw(t, "entries") {
		var cmd []byte
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			cmd = appendAcquire(nil, epoch)
			epoch++
		case 1: // an entry without a command
		default:
			var ws []Write
			for range rapid.IntRange(1, 4).Draw(t, "writes") {
				id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
				w := Write{Key: Key{"t", id}, After: last[id], Data: []byte(fmt.Sprint("row ", rapid.IntRange(0, 2).Draw(t, "data"))),
					Index: []Index{{Name: "i", Key: []byte(id), Value: []byte(fmt.Sprint(i))}, {Name: "i", Key: []byte(id + "x"), Delete: i%2 == 0}},
					Count: []Count{{"n", 1}, {"flip", 1 - 2*int64(i%2)}}}
				if rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
					w.After = rapid.Uint64Range(0, last[id]+1).Draw(t, "after")
				}
				if w.After == last[id] {
					last[id]++
				}
				large := make([]byte, rapid.SampledFrom([]int{0, 0, 0, 0, 0, 20 << 10}).Draw(t, "large"))
				w.Data = append(w.Data, large...)
				switch x := rapid.IntRange(0, 9).Draw(t, "snap"); {
				case x < 3:
					w.Snap = &Snapshot{State: append([]byte(fmt.Sprint("state ", i)), large...), Truncate: rapid.Bool().Draw(t, "truncate")}
				case x < 5 && w.After > 0:
					if w.Erase = true; w.After+1 == last[id] {
						last[id] = 0
					}
				}
				ws = append(ws, w)
			}
			cmd = appendAppend(nil, epoch, ws, nil)
		}
		log = append(log, sm.Entry{Index: uint64(i) + 1, Cmd: cmd})
	}
	return log
}

// state is all that is on disk of the bench's shard, as a stream, and its index.
func (b *bench) state() (string, uint64) {
	v := b.c.view()
	defer v.close()
	m, err := readMeta(v, 0)
	require.NoError(b.t, err)
	var out bytes.Buffer
	_, err = writeStream(&out, 0, v, m, nil)
	require.NoError(b.t, err)
	return out.String(), m.applied
}

// follow makes a machine one that does not lead: what it applies is put off.
func (b *bench) follow() {
	b.machine.follows, b.machine.putOff = func(int) bool { return true }, func() {}
}

// crash forgets all that is in memory.
func (b *bench) crash() {
	b.machine = newStateMachine(0, b.c, 1, nil)
	require.NoError(b.t, b.machine.load())
}

// TestPutOffIsTheSame applies a log entry by entry, each with a commit, and again as a replica does that puts commits
// off, in batches of any size, with losses and gains of the lead, settling and crashes between. At every index that is on disk
// the two are equal, and so is what each entry answers; and nothing that asked for it to be on disk is told too early.
func TestPutOffIsTheSame(t *testing.T) {
	putOff := 0
	one, two := newBench(t, inMemory), newBench(t, inMemory)
	rapid.Check(t, func(rt *rapid.T) {
		log := drawLog(rt)
		require.NoError(rt, one.machine.reset())
		require.NoError(rt, two.machine.reset())
		want := make([]string, len(log)+1)
		results := make([]sm.Result, len(log)+1)
		counters := make([]map[string]int64, len(log)+1)
		want[0], _ = one.state()
		counters[0] = one.machine.count()
		for i := range log {
			done, err := one.machine.Update([]sm.Entry{log[i]})
			require.NoError(rt, err)
			var at uint64
			want[i+1], at = one.state()
			require.EqualValues(rt, i+1, at)
			results[i+1], counters[i+1] = done[0].Result, one.machine.count()
		}
		two.follow()
		for applied := 0; applied < len(log) || two.machine.pending.Load(); {
			settled := -1
			switch step := rapid.SampledFrom([]string{"one", "some", "some", "lead", "settle", "sync", "snapshot", "crash", "close"}).Draw(rt, "step"); step {
			case "one", "some", "lead":
				if applied == len(log) {
					break
				}
				n := 1
				if step == "some" {
					n = rapid.IntRange(1, len(log)-applied).Draw(rt, "n")
				}
				if step == "lead" {
					two.machine.follows = func(int) bool { return false }
					settled = applied + n
				}
				done, err := two.machine.Update(append([]sm.Entry{}, log[applied:applied+n]...))
				require.NoError(rt, err)
				for _, e := range done {
					require.Equal(rt, results[e.Index], e.Result)
				}
				applied += n
				two.follow()
			case "settle":
				require.NoError(rt, two.machine.settle())
				settled = applied
			case "sync":
				require.NoError(rt, two.machine.Sync())
				settled = applied
			case "close":
				require.NoError(rt, two.machine.Close())
				settled = applied
			case "snapshot":
				p, err := two.machine.PrepareSnapshot()
				require.NoError(rt, err)
				var out bytes.Buffer
				require.NoError(rt, two.machine.SaveSnapshot(p, &out, nil))
				require.Equal(rt, want[applied], out.String())
				settled = applied
			case "crash":
				two.crash()
				two.follow()
				applied = int(two.machine.meta.applied) // the log has the rest
				settled = applied
			}
			got, at := two.state()
			require.Equal(rt, want[at], got, "at %d", at)
			require.Equal(rt, counters[at], two.machine.count())
			require.Equal(rt, at, two.machine.applied.Load())
			if settled >= 0 {
				require.EqualValues(rt, settled, at)
				require.False(rt, two.machine.pending.Load())
			}
			require.Equal(rt, int(at) < applied, two.machine.pending.Load())
			if two.machine.pending.Load() {
				putOff++
			}
		}
	})
	require.NotZero(t, putOff)
}

// TestPutOffIsBounded: a batch is committed once it is large, whoever leads, and a snapshot of another replica replaces
// what was put off.
func TestPutOffIsBounded(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.follow()
	next := uint64(1)
	apply := func(cmd []byte) {
		_, err := b.machine.Update([]sm.Entry{{Index: next, Cmd: cmd}})
		require.NoError(t, err)
		next++
	}
	row := func() []byte {
		return appendAppend(nil, 0, []Write{{Key: Key{"k", fmt.Sprint(next)}, Data: make([]byte, 100<<10)}}, nil)
	}
	for i := 0; b.machine.applied.Load() == 0; i++ {
		require.Less(t, i*100<<10, settleBytes)
		apply(row())
	}
	apply(row())
	require.True(t, b.machine.pending.Load())

	other := newBench(t, t.TempDir())
	for i := range uint64(20) {
		_, err := other.machine.Update([]sm.Entry{{Index: i + 1, Cmd: appendAcquire(nil, i)}})
		require.NoError(t, err)
	}
	stream, _ := other.state()
	require.NoError(t, b.machine.RecoverFromSnapshot(bytes.NewReader([]byte(stream)), nil))
	got, at := b.state()
	require.EqualValues(t, 20, at)
	require.Equal(t, stream, got)
	require.False(t, b.machine.pending.Load())
}

// TestBrokenStaysBroken: after a commit that failed, or an entry that could not be applied, nothing is written any more.
func TestBrokenStaysBroken(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.follow()
	good := sm.Entry{Index: 1, Cmd: appendAppend(nil, 0, []Write{{Key: Key{"k", "a"}, Data: []byte("x")}}, nil)}
	_, err := b.machine.Update([]sm.Entry{good})
	require.NoError(t, err)
	_, err = b.machine.Update([]sm.Entry{{Index: 2, Cmd: []byte{0xff}}})
	require.Error(t, err)
	require.ErrorIs(t, b.machine.settle(), err)
	_, at := b.state()
	require.Zero(t, at)
	_, again := b.machine.Update([]sm.Entry{{Index: 3, Cmd: nil}})
	require.ErrorIs(t, again, err)
}

// TestWhoIsToldFindsItOnDisk: on a replica that puts off and is never settled by itself, a barrier, a backup and
// an answer find everything.
func TestWhoIsToldFindsItOnDisk(t *testing.T) {
	c := formed(t, 3, Options{Shards: 1})
	lead := c.leader(0)
	var other *member
	for _, m := range c.nodes {
		m.s.settler.close()
		if m != lead {
			other = m
		}
	}
	require.NoError(t, barrier(other.s.Journal(0), within(t)))
	putOff := func(id string) {
		lead.write(0, id, []byte("x"))
		c.eventually(func() bool { return other.s.machines[0].pending.Load() }, "%s is put off", id)
		require.NotContains(t, other.has(0), id)
	}
	putOff("a")
	epoch, err := other.s.Journal(0).Barrier(within(t))
	require.NoError(t, err)
	require.Equal(t, lead.epoch[0], epoch)
	require.Contains(t, other.has(0), "a")
	putOff("b")
	require.NoError(t, other.s.Backup(within(t), filepath.Join(t.TempDir(), "backup")))
	require.Contains(t, other.has(0), "b")

	lead.s.machines[0].follows = func(int) bool { return true } // as for a leader that was deposed, and does not know
	lead.write(0, "c", []byte("x"))
	require.Contains(t, lead.has(0), "c")
}

// TestTheLogIsCutBehindTheDisk: a replica that puts off and is never settled by itself has on disk what its log does not
// have any more.
func TestTheLogIsCutBehindTheDisk(t *testing.T) {
	c := formed(t, 3, Options{Shards: 1})
	lead := c.leader(0)
	for _, m := range c.nodes {
		if m == lead {
			continue
		}
		m.s.settler.close()
		lead.write(0, m.id, []byte("x"))
		c.eventually(func() bool { return m.s.machines[0].pending.Load() }, "it is put off")
		rs, err := m.s.groups.cut(0, 0, changeTimeout)
		require.NoError(t, err)
		require.NoError(t, m.s.await(within(t), "test", 0, rs, changeTimeout))
		require.Contains(t, m.has(0), m.id)
		log, err := m.s.groups.host.GetLogReader(1)
		require.NoError(t, err)
		c.eventually(func() bool { first, _ := log.GetRange(); return first > 1 }, "the log is cut")
	}
}
