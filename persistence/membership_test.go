package persistence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestDecide(t *testing.T) {
	r := &roster{version: 7, voters: map[uint64]string{1: "a", 2: "b"}, learners: map[uint64]string{3: "c"}, removed: map[uint64]struct{}{4: {}}}
	add := func(id uint64, node string, voter bool) Change {
		return Change{Version: 7, Add: &Replica{ID: id, Node: node, Voter: voter}}
	}
	for name, x := range map[string]struct {
		c    Change
		step step
		kind fault.Kind
	}{
		"nothing":           {Change{Version: 7}, stepNone, fault.Invalid},
		"both":              {Change{Version: 7, Add: &Replica{ID: 5, Node: "d"}, Remove: 1}, stepNone, fault.Invalid},
		"old version":       {Change{Version: 6, Remove: 2}, stepNone, fault.Conflict},
		"newer version":     {Change{Version: 8, Remove: 2}, stepNone, fault.Conflict},
		"add":               {add(5, "d", false), stepAdd, 0},
		"add a voter":       {add(5, "d", true), stepNone, fault.Invalid},
		"add without id":    {add(0, "d", false), stepNone, fault.Invalid},
		"add without node":  {add(5, "", false), stepNone, fault.Invalid},
		"add removed":       {add(4, "d", false), stepNone, fault.Conflict},
		"add to same node":  {add(5, "b", false), stepNone, fault.Conflict},
		"add again":         {add(3, "c", false), stepNone, fault.Conflict},
		"promote":           {add(3, "c", true), stepPromote, 0},
		"promote elsewhere": {add(3, "d", true), stepNone, fault.Conflict},
		"promote a voter":   {add(2, "b", true), stepNone, fault.Conflict},
		"remove":            {Change{Version: 7, Remove: 2}, stepRemove, 0},
		"remove a learner":  {Change{Version: 7, Remove: 3}, stepRemove, 0},
		"remove a stranger": {Change{Version: 7, Remove: 9}, stepNone, fault.Conflict},
		"remove the leader": {Change{Version: 7, Remove: 1}, stepNone, fault.Conflict},
	} {
		got, err := decide(r, x.c, 1)
		require.Equal(t, x.step, got, name)
		require.Equal(t, x.kind, fault.KindOf(err), "%s: %v", name, err)
		require.Equal(t, x.kind == fault.Unknown, err == nil, name)
	}
	_, err := decide(&roster{version: 1, voters: map[uint64]string{1: "a"}}, Change{Version: 1, Remove: 1}, 2)
	require.Equal(t, fault.Conflict, fault.KindOf(err), "the only voter")
}

func TestMerge(t *testing.T) {
	seen := &roster{version: 5, voters: map[uint64]string{1: "a"}, learners: map[uint64]string{2: "b", 3: "c"}, removed: map[uint64]struct{}{4: {}}}
	info := dragonboat.ShardInfo{ConfigChangeIndex: 5, Replicas: map[uint64]string{1: "a"}}
	require.Same(t, seen, merge(seen, info, nil))
	require.Same(t, seen, merge(seen, dragonboat.ShardInfo{Pending: true}, nil))
	info = dragonboat.ShardInfo{ConfigChangeIndex: 9, Replicas: map[uint64]string{1: "a", 2: "b"}}
	r := merge(seen, info, map[uint64]string{1: "a", 2: "b", 5: "e"})
	require.Equal(t, []Replica{{1, "a", true}, {2, "b", true}, {5, "e", false}}, r.replicas())
	require.EqualValues(t, 9, r.version)
	require.EqualValues(t, 5, r.last())
	require.Equal(t, map[uint64]struct{}{3: {}, 4: {}}, r.removed)
	require.Equal(t, map[uint64]struct{}{4: {}}, seen.removed, "is not touched")
	r = merge(nil, info, nil)
	require.EqualValues(t, 2, r.last())
}

// TestReplicaIsMoved grows a group from one node to three, moves a replica to a fourth, and restarts nodes at
// each step: right after the learner was added, after it was promoted, and after its log was cut behind both.
func TestReplicaIsMoved(t *testing.T) {
	c := newCluster(t, 3, Options{Shards: 1, LogEntries: 1 << 30})
	a, b, third := c.nodes[0], c.nodes[1], c.nodes[2]
	for _, j := range []Journal{a.s.Journal(0)} {
		_, err := j.Acquire(within(t))
		require.Equal(t, fault.Unavailable, kind(err))
		_, err = j.Read(Key{"k", "a"}, 0)
		require.Equal(t, fault.Unavailable, kind(err))
		require.Equal(t, fault.Unavailable, kind(j.Scan("i", nil, nil, func(_, _ []byte) bool { return true })))
		_, err = j.Counters()
		require.Equal(t, fault.Unavailable, kind(err))
		require.Equal(t, fault.Unavailable, kind(barrier(j, within(t))))
		require.Equal(t, fault.Unavailable, kind(appendRaw(a, 0, 1, time.Second)))
		require.Empty(t, a.s.Groups())
	}
	require.NoError(t, a.s.Found(within(t)))
	require.Equal(t, fault.Conflict, kind(a.s.Found(within(t))))
	c.fill(0, 10, 10)
	a.restart()
	require.Equal(t, fault.Conflict, kind(a.s.Found(within(t))))
	require.NotNil(t, a.s.leads.leading(0), "Open waits for the groups it is the only voter of")

	id := b.learn(0)
	require.EqualValues(t, 2, id)
	require.Equal(t, fault.Conflict, kind(b.s.Join(within(t), 0, 99)))
	b.level(0)
	b.restart()
	b.level(0)
	require.Len(t, b.has(0), 10)
	g := c.leader(0).group(0)
	require.Equal(t, fault.Conflict, kind(a.s.Change(within(t), 0, Change{Version: g.Version - 1, Remove: id})), "another version")
	b.promote(0, id)
	b.restart()
	c.fill(0, 5, 10)
	b.level(0)
	require.Equal(t, []Replica{{1, a.id, true}, {2, b.id, true}}, c.leader(0).group(0).Replicas)
	b.cutLog(0)
	b.restart()
	c.eventually(func() bool { return b.s.groups.look()[0].ConfigChangeIndex > 0 && !b.s.groups.look()[0].IsNonVoting }, "it votes again")
	third.promote(0, third.learn(0))

	// a is gone: b, which joined as a learner once, must be able to lead.
	c.handTo(0, b)
	fourth := c.add()
	fourth.promote(0, fourth.learn(0))
	l := c.leader(0)
	require.Equal(t, fault.Conflict, kind(l.s.Change(within(t), 0, Change{Version: l.group(0).Version, Remove: l.group(0).Self})), "the leader")
	a.remove(0, 1)
	require.NoError(t, a.s.Drop(within(t), 0))
	require.NoError(t, a.s.Drop(within(t), 0), "again is harmless")
	require.Empty(t, a.s.Groups())
	require.Equal(t, fault.Unavailable, kind(appendRaw(a, 0, 1, time.Second)))
	c.fill(0, 5, 10)
	c.equal(0, b, third, fourth)
	require.Len(t, fourth.has(0), 20)
	a.restart()
	require.Empty(t, a.s.Groups())
	require.NoError(t, a.s.Close())
	a.open()

	// Back it comes under another id, with nothing left of its past.
	require.Equal(t, fault.Conflict, kind(a.s.Join(within(t), 0, 1)), "an id is never used again")
	a.restart()
	id = a.learn(0)
	require.EqualValues(t, 5, id)
	a.promote(0, id)
	c.equal(0, c.nodes...)
	for _, m := range c.nodes {
		m.restart()
	}
	c.fill(0, 1, 1)
	c.equal(0, c.nodes...)
}

// cutLog drops all of the node's log of a shard.
func (m *member) cutLog(shard int) {
	m.c.t.Helper()
	m.c.eventually(func() bool {
		rs, err := m.s.groups.cut(shard, 0, time.Second)
		if err == nil {
			m.s.await(within(m.c.t), "test", shard, rs, time.Second)
		}
		log, err := m.s.groups.host.GetLogReader(group(shard))
		require.NoError(m.c.t, err)
		first, _ := log.GetRange()
		return first > 5
	}, "the log is cut")
}

// TestWipedNode: a node that lost everything comes back as another one, and gets what the log does not hold any
// more as a snapshot. Then it works like the others: its counters, its epoch, its idea of what a journal is at.
func TestWipedNode(t *testing.T) {
	c := formed(t, 3, Options{Shards: 1, LogEntries: 40})
	l := c.leader(0)
	c.fill(0, 100, 40<<10)
	l.write(0, "large", make([]byte, 3<<20))
	wiped := c.nodes[2]
	was := wiped.group(0).Self
	if wiped == l {
		wiped, was = c.nodes[1], c.nodes[1].group(0).Self
	}
	wiped.close()
	require.NoError(t, os.RemoveAll(wiped.dir))
	c.fill(0, 60, 1<<10)
	l.cutLog(0)
	wiped.remove(0, was)
	old := wiped.id
	wiped.id = ""
	wiped.open()
	require.NotEqual(t, old, wiped.id)
	wiped.promote(0, wiped.learn(0))
	sm := wiped.s.machines[0]
	require.Greater(t, sm.generation.Load(), uint32(1), "a snapshot was loaded")
	require.Equal(t, l.s.machines[0].epoch.Load(), sm.epoch.Load())
	require.Equal(t, l.s.machines[0].count(), sm.count())
	c.eventually(func() bool { return onlyGeneration(wiped, 0) }, "older generations are swept in the background")
	c.equal(0, c.nodes...)
	wiped.restart()
	c.equal(0, c.nodes...)
	c.handTo(0, wiped)
	require.Equal(t, fault.Conflict, kind(wiped.try(0, "large", 0, []byte("x"), patience)))
	require.NoError(t, wiped.try(0, "large", 1, []byte("x"), patience))
	c.fill(0, 10, 100)
	c.equal(0, c.nodes...)

	// The same for a replica that was only away too long: it loads a second generation over its first.
	away := c.nodes[1]
	if away == wiped {
		away = c.nodes[2]
	}
	away.close()
	c.fill(0, 100, 1<<10)
	wiped.cutLog(0)
	away.open()
	away.level(0)
	c.eventually(func() bool { return onlyGeneration(away, 0) }, "swept")
	require.Greater(t, away.s.machines[0].generation.Load(), uint32(1))
	c.equal(0, c.nodes...)
}

// onlyGeneration tells whether the store holds nothing of a shard but its current generation.
func onlyGeneration(m *member, shard int) bool {
	v := m.s.db.view()
	defer v.close()
	it := v.NewIterator(badgerKeys(dataPrefix(nil, shard, 0)[:3]))
	defer it.Close()
	current := string(dataPrefix(nil, shard, m.s.machines[shard].generation.Load()))
	for it.Rewind(); it.Valid(); it.Next() {
		if string(it.Item().Key()[:dataPrefixLen]) != current {
			return false
		}
	}
	return true
}

// TestDropCrashes stops a Drop after each of its steps; the next Open finishes it, and a new replica begins
// with nothing.
func TestDropCrashes(t *testing.T) {
	c := formed(t, 2, Options{Shards: 1})
	a, b := c.nodes[0], c.nodes[1]
	c.fill(0, 20, 100)
	for steps := range 4 {
		id := b.group(0).Self
		b.level(0)
		b.remove(0, id)
		r := &b.s.dir.Replicas[0]
		r.Dropping = true
		require.NoError(t, b.s.dir.save())
		if steps > 0 {
			require.NoError(t, b.s.groups.halt(0, id))
		}
		if steps > 1 {
			require.NoError(t, b.s.groups.erase(within(t), 0, id))
		}
		if steps > 2 {
			require.NoError(t, b.s.machines[0].reset())
		}
		b.restart()
		require.Empty(t, b.s.Groups())
		require.Zero(t, b.s.dir.Replicas[0].ID)
		c.eventually(func() bool { return onlyGeneration(b, 0) }, "swept")
		require.Zero(t, b.s.machines[0].applied.Load())
		require.Empty(t, b.s.machines[0].count())
		b.promote(0, b.learn(0))
		c.equal(0, a, b)
		require.Len(t, b.has(0), 20)
	}
}

// TestRemovedReplica: a replica that was removed stops by itself if it hears of it, which nobody promises; its node
// works on, also after a restart, until it is told to drop it.
func TestRemovedReplica(t *testing.T) {
	c := formed(t, 3, Options{Shards: 2})
	out := c.nodes[2]
	c.handTo(0, c.nodes[0])
	id := out.group(0).Self
	out.remove(0, id)
	require.NotEqual(t, fault.Unknown, kind(appendRaw(out, 0, 1, time.Second)))
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	require.Error(t, barrier(out.s.Journal(0), short), "whether it has learned that it was removed or not")
	out.restart()
	c.fill(0, 3, 10)
	out.restart()
	require.NoError(t, barrier(out.s.Journal(1), within(t)), "the other shard works")
	require.NoError(t, out.s.Drop(within(t), 0))
	out.promote(0, out.learn(0))
	c.fill(0, 3, 10)
	c.equal(0, c.nodes...)
}

// TestAdoption: a node that was alone becomes the first of a cluster, with all it has; also when that came
// from a backup, of which its log knows nothing.
func TestAdoption(t *testing.T) {
	for _, restored := range []bool{false, true} {
		t.Run(fmt.Sprint("restored ", restored), func(t *testing.T) {
			c := newCluster(t, 0, Options{Shards: 2})
			first := &member{c: c, dir: filepath.Join(c.dir, "alone"), epoch: map[int]uint64{}}
			s, err := Open(Options{Dir: first.dir, Shards: 2})
			require.NoError(t, err)
			first.s = s.(*store)
			for i := range 10 {
				first.write(0, fmt.Sprint(i), []byte("x"))
			}
			require.Equal(t, fault.Conflict, kind(s.Found(within(t))))
			require.Equal(t, fault.Conflict, kind(s.Join(within(t), 0, 2)))
			require.Equal(t, fault.Conflict, kind(s.Drop(within(t), 0)))
			if restored {
				backup := filepath.Join(c.dir, "backup")
				require.NoError(t, s.Backup(within(t), backup))
				require.NoError(t, s.Close())
				first.dir = filepath.Join(c.dir, "restored")
				require.NoError(t, Restore(within(t), first.dir, backup, nil))
			} else {
				require.NoError(t, s.Close())
			}
			first.open()
			c.nodes = append(c.nodes, first)
			require.Equal(t, fault.Conflict, kind(first.s.Found(within(t))))
			second := c.add()
			for shard := range 2 {
				second.promote(shard, second.learn(shard))
				c.equal(shard, first, second)
			}
			require.Len(t, second.has(0), 10)
			first.restart()
			second.restart()
			first.close()
			for name, o := range map[string]Options{
				"another cluster":  {Cluster: "cluster-2", Network: newFakeNet().end()},
				"no cluster":       {},
				"half the options": {Cluster: "cluster-1"},
			} {
				o.Dir = first.dir
				_, err := Open(o)
				require.Equal(t, fault.Invalid, kind(err), name)
				var f *fault.Error
				require.True(t, errors.As(err, &f))
				require.Equal(t, name == "half the options", f.Remedy == "", name)
			}
			first.open()
			c.fill(0, 1, 1)
			c.equal(0, first, second)
		})
	}
}

// TestANewReplicaGetsThePast in one piece: the entries of a log in which the lead changed would cost it a synced
// transaction each.
func TestANewReplicaGetsThePast(t *testing.T) {
	c := formed(t, 2, Options{Shards: 1})
	l := c.leader(0)
	const rows = 300
	for i := range rows {
		if i == rows/2 {
			for _, o := range c.nodes {
				if o != l {
					c.handTo(0, o)
					l = o
					break
				}
			}
		}
		l.write(0, fmt.Sprint(i), []byte("x"))
	}
	m := c.add()
	committed := func() uint64 {
		m.s.db.mu.Lock()
		defer m.s.db.mu.Unlock()
		return m.s.db.committed
	}
	before := committed()
	id := m.learn(0)
	m.level(0)
	require.Len(t, m.has(0), rows)
	require.Less(t, committed()-before, uint64(rows/3))
	m.promote(0, id)
	c.equal(0, c.nodes...)
}
