// Package clustertest has a cluster in one process for tests: nodes that share journals in memory, a mesh of
// function calls, and leads that move when the test says so.
package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/mesh"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// Nodes is a cluster. Node 0 leads all shards at first.
type Nodes struct {
	Store *persisttest.Store // of the shared journals

	nodes []*node
	peers []cluster.Peer

	mu   sync.Mutex
	term uint64
	lead int // the node that leads all shards
}

// node is one of them. It is a cluster.Mesh and a persistence.Store.
type node struct {
	*persisttest.Store // for what it does not override: the shared one
	all                *Nodes
	peer               cluster.Peer
	leads              chan persistence.Lead
	shards             *cluster.Shards
	down               atomic.Bool
	once               sync.Once

	mu  sync.RWMutex
	ops map[string]mesh.Handler
}

// leadsMax is how many moves a test may ask for ahead of a node.
const leadsMax = 1 << 14

// New starts n nodes with the same kinds; each node gets its own from kinds. Changes of options are made by opts, before a
// node starts. It waits until node 0 serves.
func New(t testing.TB, n, shards int, kinds func() []cluster.Kind, opts ...func(*cluster.Options)) *Nodes {
	t.Helper()
	c := &Nodes{Store: persisttest.NewStore(shards)}
	for i := range n {
		c.peers = append(c.peers, cluster.Peer{Name: fmt.Sprint("node-", i), Node: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), Boot: "1"})
	}
	quiet := slog.New(slog.DiscardHandler)
	for i := range n {
		d := &node{Store: c.Store, all: c, peer: c.peers[i], leads: make(chan persistence.Lead, leadsMax), ops: map[string]mesh.Handler{}}
		c.nodes = append(c.nodes, d)
		sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }))
		o := cluster.Options{Store: d, System: sys, Kinds: kinds(), Self: d.peer.Name, Mesh: d, Peers: d, Log: quiet, Tick: 10 * time.Millisecond}
		for _, f := range opts {
			f(&o)
		}
		s, err := cluster.NewShards(o)
		if err != nil {
			t.Fatal(err)
		}
		d.shards = s
		t.Cleanup(func() { s.Stop(); _ = d.Close(); s.Wait(); sys.Shutdown() })
	}
	c.Move(0)
	select {
	case <-c.nodes[0].shards.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("node 0 does not own its shards")
	}
	return c
}

// Router returns a node's router.
func (c *Nodes) Router(i int) *cluster.Router { return c.nodes[i].shards.Router() }

// Move makes node to lead all shards. It does not wait.
func (c *Nodes) Move(to int) {
	c.mu.Lock()
	defer c.mu.Unlock() // every node hears of the moves in their order
	c.term++
	c.lead = to
	for i, n := range c.nodes {
		for shard := range c.Store.Shards() {
			n.leads <- persistence.Lead{Shard: shard, Leading: i == to, Node: c.peers[to].Node, Term: c.term}
		}
	}
}

// Cut takes a node off the mesh, or puts it back. Its leads stay; Move them.
func (c *Nodes) Cut(i int, off bool) { c.nodes[i].down.Store(off) }

// seat is a shard's journal as one node has it.
type seat struct {
	*persisttest.Memory
	n     *node
	shard int
}

// Acquire raises the epoch where this node leads. One that is late with an earlier move must not fence who leads now: nothing would open the shard
// again before the next move.
func (j seat) Acquire(ctx context.Context) (uint64, error) {
	c := j.n.all
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[c.lead] != j.n {
		return 0, fault.New(fault.Unavailable, "journal.acquire", "", "%s does not lead shard %d", j.n.peer.Name, j.shard)
	}
	return j.Memory.Acquire(ctx)
}

// Journal is persistence.Store's.
func (n *node) Journal(shard int) persistence.Journal {
	return seat{Memory: n.Store.Memory(shard), n: n, shard: shard}
}

// Leads is persistence.Store's.
func (n *node) Leads() <-chan persistence.Lead { return n.leads }

// Node is persistence.Store's.
func (n *node) Node() string { return n.peer.Node }

// Close is persistence.Store's.
func (n *node) Close() error {
	n.once.Do(func() { close(n.leads) })
	return nil
}

// Alive is cluster.Peers'.
func (n *node) Alive() []cluster.Peer { return n.all.peers }

// Name is cluster.Peers'.
func (n *node) Name(id string) (string, bool) {
	for _, p := range n.all.peers {
		if p.Node == id {
			return p.Name, true
		}
	}
	return "", false
}

// Handle is cluster.Mesh's.
func (n *node) Handle(op string, h mesh.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ops[op] = h
}

// Ask is cluster.Mesh's.
func (n *node) Ask(ctx context.Context, to string, r *mesh.Request) (mesh.Answer, error) {
	h, err := n.reach(to, r.Op)
	if err != nil {
		return mesh.Answer{}, err
	}
	a, err := h(ctx, n.peer.Name, r)
	if _, cut := n.reach(to, r.Op); cut != nil {
		return mesh.Answer{}, cut // the answer is lost
	}
	return a, err
}

// Tell is cluster.Mesh's.
func (n *node) Tell(to string, r *mesh.Request) error {
	h, err := n.reach(to, r.Op)
	if err == nil {
		_, _ = h(context.Background(), n.peer.Name, r)
	}
	return err
}

func (n *node) reach(to, op string) (mesh.Handler, error) {
	for _, d := range n.all.nodes {
		if d.peer.Name != to {
			continue
		}
		if d.down.Load() || n.down.Load() {
			break
		}
		d.mu.RLock()
		defer d.mu.RUnlock()
		if h := d.ops[op]; h != nil {
			return h, nil
		}
		return nil, fault.New(fault.Invalid, "clustertest", op, "node %s does not know this op", to)
	}
	return nil, fault.New(fault.Unavailable, "clustertest", to, "it cannot be reached")
}
