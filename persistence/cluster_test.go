package persistence

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const patience = 20 * time.Second // for a condition that comes true soon, on a slow machine

// cluster is several stores over a fakeNet.
type cluster struct {
	t     testing.TB
	dir   string
	net   *fakeNet
	o     Options
	nodes []*member

	filled int // rows of fill
}

type member struct {
	c     *cluster
	dir   string
	id    string
	s     *store
	epoch map[int]uint64
	leads *leadLog
}

// leadLog reads Leads and remembers.
type leadLog struct {
	mu   sync.Mutex
	all  []Lead
	last map[int]Lead
	done chan struct{}
}

func (l *leadLog) of(shard int) Lead {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[shard]
}

func newCluster(t testing.TB, nodes int, o Options) *cluster {
	c := &cluster{t: t, dir: t.TempDir(), net: newFakeNet(), o: o} // removed after all are closed
	c.o.Cluster = "cluster-1"
	if path := os.Getenv("PLOG"); path != "" {
		f, _ := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		c.o.Logger = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.close()
		}
	})
	for range nodes {
		c.add()
	}
	return c
}

// add makes one more node, with nothing in it.
func (c *cluster) add() *member {
	m := &member{c: c, dir: filepath.Join(c.dir, fmt.Sprint("node-", len(c.nodes)))}
	c.nodes = append(c.nodes, m)
	m.open()
	return m
}

func (m *member) open() {
	m.c.t.Helper()
	o := m.c.o
	end := m.c.net.end()
	if m.id != "" {
		m.c.net.name(end, m.id)
	}
	o.Dir, o.Network = m.dir, end
	s, err := Open(o)
	require.NoError(m.c.t, err)
	m.s, m.id, m.epoch = s.(*store), s.Node(), map[int]uint64{}
	m.c.net.name(end, m.id)
	m.leads = &leadLog{last: map[int]Lead{}, done: make(chan struct{})}
	go func(l *leadLog) {
		defer close(l.done)
		for lead := range s.Leads() {
			l.mu.Lock()
			l.all, l.last[lead.Shard] = append(l.all, lead), lead
			l.mu.Unlock()
		}
	}(m.leads)
}

func (m *member) close() {
	if m.s != nil {
		require.NoError(m.c.t, m.s.Close())
		<-m.leads.done
		m.s = nil
	}
}

func (m *member) restart() { m.c.t.Helper(); m.close(); m.open() }

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition. f runs here, so it may end the test.
func (c *cluster) eventually(f func() bool, what string, args ...any) {
	c.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !f() {
		select {
		case <-again.C:
		case <-end.C:
			if os.Getenv("PLOG") != "" {
				panic("stuck")
			}
			c.t.Fatalf("after %v still not: "+what, append([]any{patience}, args...)...)
		}
	}
}

// leader waits for the node that leads a shard, and whose other voters that run know it.
func (c *cluster) leader(shard int) (leader *member) {
	c.t.Helper()
	c.eventually(func() bool {
		for _, m := range c.nodes {
			if m.s != nil && m.s.leads.leading(shard) != nil && m.leads.of(shard).Leading {
				leader = m
				return barrier(m.s.Journal(shard), within(c.t)) == nil
			}
		}
		return false
	}, "shard %d has a leader", shard)
	return leader
}

// handTo makes a node lead a shard: it is asked for as often as it takes.
func (c *cluster) handTo(shard int, to *member) {
	c.t.Helper()
	self := to.group(shard).Self
	c.eventually(func() bool {
		lead := c.leader(shard)
		if lead == to {
			return true
		}
		lead.s.Transfer(within(c.t), shard, self)
		return to.leads.of(shard).Leading
	}, "%s leads shard %d", to.id, shard)
}

func (m *member) group(shard int) Group {
	for _, g := range m.s.Groups() {
		if g.Shard == shard {
			return g
		}
	}
	return Group{}
}

// change changes the membership on the leader of the shard, as often as it takes.
func (c *cluster) change(shard int, f func(g Group) Change) Group {
	c.t.Helper()
	var g Group
	c.eventually(func() bool {
		l := c.leader(shard)
		g = l.group(shard)
		if l.s.Change(within(c.t), shard, f(g)) != nil {
			return false
		}
		g = l.group(shard)
		return true
	}, "a change of shard %d", shard)
	return g
}

// learn adds a replica on m as a learner and starts it.
func (m *member) learn(shard int) uint64 {
	m.c.t.Helper()
	id := uint64(0)
	m.c.change(shard, func(g Group) Change {
		id = g.Last + 1
		return Change{Version: g.Version, Add: &Replica{ID: id, Node: m.id}}
	})
	require.NoError(m.c.t, m.s.Join(within(m.c.t), shard, id))
	require.NoError(m.c.t, m.s.Join(within(m.c.t), shard, id), "again is harmless")
	return id
}

// level waits until m has what the leader had applied when it was asked.
func (m *member) level(shard int) {
	m.c.t.Helper()
	want := m.c.leader(shard).s.machines[shard].applied.Load()
	m.c.eventually(func() bool { return m.s.machines[shard].applied.Load() >= want }, "shard %d of %s has caught up", shard, m.id)
}

func (m *member) promote(shard int, id uint64) {
	m.c.t.Helper()
	m.level(shard)
	m.c.change(shard, func(g Group) Change {
		return Change{Version: g.Version, Add: &Replica{ID: id, Node: m.id, Voter: true}}
	})
}

func (m *member) remove(shard int, id uint64) {
	m.c.t.Helper()
	m.c.change(shard, func(g Group) Change { return Change{Version: g.Version, Remove: id} })
}

// formed is a cluster whose nodes all vote in all groups; the first one leads them.
func formed(t testing.TB, nodes int, o Options) *cluster {
	c := newCluster(t, nodes, o)
	require.NoError(t, c.nodes[0].s.Found(within(t)))
	for shard := range c.nodes[0].s.Shards() {
		for _, m := range c.nodes[1:] {
			m.promote(shard, m.learn(shard))
		}
	}
	return c
}

// try appends one row, with the epoch the node acquired.
func (m *member) try(shard int, id string, after uint64, data []byte, timeout time.Duration) error {
	if m.epoch[shard] == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		epoch, err := m.s.Journal(shard).Acquire(ctx)
		if err != nil {
			return err
		}
		m.epoch[shard] = epoch
	}
	done := make(chan error, 1)
	m.s.Journal(shard).Append(m.epoch[shard], []Write{{Key: Key{"k", id}, After: after, Data: data,
		Index: []Index{{Name: "i", Key: []byte(id)}}, Count: []Count{{"n", 1}}}}, timeout, func(out []Outcome, err error) {
		if err == nil {
			err = out[0].Err
		}
		done <- err
	})
	return <-done
}

func (m *member) write(shard int, id string, data []byte) {
	m.c.t.Helper()
	require.NoError(m.c.t, m.try(shard, id, 0, data, patience))
}

// fill writes rows of so many bytes through whoever leads; a write whose outcome is unknown is repeated.
func (c *cluster) fill(shard, rows, size int) {
	c.t.Helper()
	for range rows {
		c.filled++
		id := fmt.Sprint("fill-", c.filled)
		c.eventually(func() bool {
			l := c.leader(shard)
			err := l.try(shard, id, 0, make([]byte, size), patience)
			if kind(err) == fault.Fenced {
				l.epoch[shard] = 0
			}
			return err == nil
		}, "%s is written", id)
	}
}

// has lists the journals of a shard in the node's own store.
func (m *member) has(shard int) (ids []string) {
	m.c.t.Helper()
	require.NoError(m.c.t, m.s.Journal(shard).Scan("i", nil, nil, func(k, _ []byte) bool {
		ids = append(ids, string(k))
		return true
	}))
	return ids
}

// sum is the checksum of the shard's whole state, and its index.
func (m *member) sum(shard int) (uint32, uint64) {
	v := m.s.db.view()
	defer v.close()
	meta, err := readMeta(v, shard)
	require.NoError(m.c.t, err)
	h := crc32.New(castagnoli)
	applied := meta.applied
	_, err = writeStream(io.MultiWriter(h, io.Discard), shard, v, meta, nil)
	require.NoError(m.c.t, err)
	return h.Sum32(), applied
}

// equal waits until all given replicas are at one index, where they must be equal (I8).
func (c *cluster) equal(shard int, nodes ...*member) {
	c.t.Helper()
	c.eventually(func() bool {
		sums := map[uint64]map[uint32]bool{}
		for _, m := range nodes {
			sum, at := m.sum(shard)
			if sums[at] == nil {
				sums[at] = map[uint32]bool{}
			}
			sums[at][sum] = true
			require.Len(c.t, sums[at], 1, "replicas of shard %d differ at index %d", shard, at)
		}
		return len(sums) == 1
	}, "replicas of shard %d are at one index", shard)
}

func kind(err error) fault.Kind { return fault.KindOf(err) }

func badgerKeys(prefix []byte) badger.IteratorOptions { return badger.IteratorOptions{Prefix: prefix} }

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// barrier is Journal.Barrier for a test that does not ask for the epoch.
func barrier(j Journal, ctx context.Context) error {
	_, err := j.Barrier(ctx)
	return err
}
