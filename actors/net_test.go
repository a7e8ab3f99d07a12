package actors_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/mesh"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// fate is what becomes of one message.
type fate struct {
	lost, twice bool
	late        time.Duration
}

// network carries requests between the nodes of one process. Rule decides over each message; it may be replaced
// at any time.
type network struct {
	mu    sync.Mutex
	nodes map[string]*link
	rule  func(from, to, op string, answer bool) fate
	count map[string]int // requests by op, as sent
	over  bool
	wg    sync.WaitGroup
}

// end returns after the last message.
func (n *network) end() {
	n.mu.Lock()
	n.over = true
	n.mu.Unlock()
	n.wg.Wait()
}

// spawn runs a part of a message's way, unless the network ended.
func (n *network) spawn(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		n.wg.Go(f)
	}
}

// link is one node's cluster.Mesh.
type link struct {
	net      *network
	name     string
	handlers map[string]mesh.Handler
	up       atomic.Bool
}

func newNetwork() *network {
	return &network{nodes: map[string]*link{}, count: map[string]int{}}
}

func (n *network) setRule(f func(from, to, op string, answer bool) fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rule = f
}

func (n *network) sent(op string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count[op]
}

func (n *network) join(name string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &link{net: n, name: name, handlers: map[string]mesh.Handler{}}
	n.nodes[name] = l
	return l
}

func (l *link) Handle(op string, h mesh.Handler) { l.handlers[op] = h }

// route finds the receiver, and says what becomes of a message to it.
func (n *network) route(from *link, to, op string, answer bool) (*link, fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !answer {
		n.count[op]++
	}
	x := n.nodes[to]
	if x == nil || !x.up.Load() || !from.up.Load() || n.over {
		return nil, fate{}
	}
	if n.rule == nil {
		return x, fate{}
	}
	return x, n.rule(from.name, to, op, answer)
}

func delay(ctx context.Context, d time.Duration) {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

func (l *link) Ask(ctx context.Context, node string, r *mesh.Request) (mesh.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	timeout := func() (mesh.Answer, error) {
		<-ctx.Done()
		return mesh.Answer{}, fault.New(fault.Timeout, "net", node, "%w", context.Cause(ctx))
	}
	to, f := l.net.route(l, node, r.Op, false)
	if to == nil {
		return mesh.Answer{}, fault.New(fault.Unavailable, "net", node, "it cannot be reached")
	}
	delay(ctx, f.late)
	if f.lost {
		return timeout()
	}
	h := to.handlers[r.Op]
	if h == nil {
		return mesh.Answer{}, fault.New(fault.Invalid, "net", r.Op, "no such op")
	}
	if f.twice {
		l.net.spawn(func() { _, _ = h(ctx, l.name, r) })
	}
	type result struct {
		a   mesh.Answer
		err error
	}
	c := make(chan result, 1)
	l.net.spawn(func() {
		a, err := h(ctx, l.name, r)
		c <- result{a, err}
	})
	select {
	case res := <-c:
		back, f := to.net.route(to, l.name, r.Op, true)
		if back == nil || f.lost {
			return timeout()
		}
		delay(ctx, f.late)
		if res.err != nil { // what travels is the kind and the text
			res.err = &fault.Error{Op: "net", Kind: fault.KindOf(res.err), Remedy: fault.RemedyOf(res.err), Err: errors.New(res.err.Error())}
		}
		return res.a, res.err
	case <-ctx.Done():
		return timeout()
	}
}

func (l *link) Tell(node string, r *mesh.Request) error {
	to, f := l.net.route(l, node, r.Op, false)
	if to == nil || f.lost {
		return nil // lost without a word, as on a real network
	}
	if h := to.handlers[r.Op]; h != nil {
		l.net.spawn(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			delay(ctx, f.late)
			_, _ = h(ctx, l.name, r)
			if f.twice {
				_, _ = h(ctx, l.name, r)
			}
		})
	}
	return nil
}

// world is the nodes of one test.
type world struct {
	t     *testing.T
	net   *network
	disks *persisttest.Cluster

	mu    sync.Mutex
	alive []cluster.Peer
	nodes map[string]*node
	names map[string]string // by node id
}

type node struct {
	*actors.System
	name string
	link *link
	stop func()
}

func newWorld(t *testing.T, shards int, names ...string) *world {
	w := &world{t: t, net: newNetwork(), disks: persisttest.NewCluster(shards, names...), nodes: map[string]*node{}, names: map[string]string{}}
	t.Cleanup(func() {
		w.net.setRule(nil)
		for _, n := range w.systems() {
			n.stop()
		}
		w.net.end()
	})
	return w
}

// Alive is gossip that is never wrong.
func (w *world) Alive() []cluster.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]cluster.Peer(nil), w.alive...)
}

func (w *world) Name(node string) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, ok := w.names[node]
	return name, ok
}

func (w *world) systems() (all []*node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		all = append(all, n)
	}
	return all
}

// start runs a node.
func (w *world) start(name string, change func(*actors.Options), engines ...actors.Engine) *node {
	w.t.Helper()
	n := &node{name: name, link: w.net.join(name)}
	store := w.disks.Store(name)
	w.mu.Lock()
	w.names[store.Node()] = name
	w.alive = append(w.alive, cluster.Peer{Name: name, Node: store.Node(), Boot: uuid.NewString(), Engines: len(engines), Seconds: true})
	w.mu.Unlock()
	o := options(store, engines...)
	o.Self, o.Mesh, o.Peers = name, n.link, w
	o.Policy.Timeout, o.Policy.LeaseMargin = time.Hour, time.Hour // no test here waits for a lease
	o.Rumor = func(b []byte) {
		for _, x := range w.systems() {
			if x.System != nil && x.name != name {
				x.Shards.Merge(b)
			}
		}
	}
	if change != nil {
		change(&o)
	}
	sys, err := actors.Start(o)
	require.NoError(w.t, err)
	n.System = sys
	n.link.up.Store(true)
	n.stop = sync.OnceFunc(func() {
		sys.Stop()
		require.NoError(w.t, store.Close())
		sys.Shards.Wait()
	})
	w.mu.Lock()
	w.nodes[name] = n
	w.mu.Unlock()
	for _, x := range w.systems() {
		x.PeersChanged()
	}
	return n
}

// kill ends a node from one moment to the next: nothing leaves it any more. Its shards go to another.
func (w *world) kill(name, heir string) {
	w.mu.Lock()
	n := w.nodes[name]
	delete(w.nodes, name)
	for i, p := range w.alive {
		if p.Name == name {
			w.alive = append(w.alive[:i:i], w.alive[i+1:]...)
			break
		}
	}
	w.mu.Unlock()
	n.link.up.Store(false)
	for _, shard := range w.disks.Leads(name) {
		w.disks.Lead(shard, heir)
	}
	n.stop()
	for _, x := range w.systems() {
		x.PeersChanged()
	}
}

// spread gives the shards to nodes in turn.
func (w *world) spread(names ...string) {
	for shard := range w.disks.Store(names[0]).Shards() {
		w.disks.Lead(shard, names[shard%len(names)])
	}
}

// rough loses, repeats and delays messages by chance.
func rough(rng *rand.Rand, lost, twice float64, late time.Duration) func(from, to, op string, answer bool) fate {
	var mu sync.Mutex
	return func(string, string, string, bool) fate {
		mu.Lock()
		defer mu.Unlock()
		return fate{lost: rng.Float64() < lost, twice: rng.Float64() < twice, late: time.Duration(rng.Float64() * float64(late))}
	}
}
