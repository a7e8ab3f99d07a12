package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// world is a cluster of fake stores. A store does what persistence.Store says of the membership, and nothing else.
type world struct {
	t      *testing.T
	mu     sync.Mutex
	rand   *rand.Rand
	harm   float64 // share of requests that fail, or whose answer is lost
	nodes  []*fakeNode
	groups []persistence.Group // the truth: Self and Applied are the leader's
	asked  map[string]int      // requests that reached a node, by op
	watch  map[chan struct{}]struct{}
	ids    int
}

type fakeNode struct {
	*persisttest.Store
	w      *world
	member members.Member
	alive  bool
	runs   map[int]*persistence.Group // local replica: Self and Applied count
	agent  *replicas.Agent
	serve  map[string]replicas.Handler
}

func newWorld(t *testing.T, shards int, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), asked: map[string]int{}, watch: map[chan struct{}]struct{}{}}
	w.groups = make([]persistence.Group, shards)
	return w
}

// found makes a node the only member of all groups.
func (w *world) found(n *fakeNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.groups {
		w.groups[i] = persistence.Group{Shard: i, Leader: 1, Term: 1, Applied: 5000, Version: 1, Last: 1,
			Replicas: []persistence.Replica{{ID: 1, Node: n.member.Node, Voter: true}}}
		n.runs[i] = &persistence.Group{Self: 1, Applied: 5000}
	}
	n.member.Founded = true
}

func (w *world) add() *fakeNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := fmt.Sprintf("n%d", len(w.nodes)+1)
	n := &fakeNode{Store: persisttest.NewStore(len(w.groups)), w: w, member: members.Member{Name: name, Cluster: "c"}}
	w.nodes = append(w.nodes, n)
	n.boot(true)
	w.signal()
	return n
}

// boot starts a node's process; wiped gives it a new data directory. The caller holds mu.
func (n *fakeNode) boot(wiped bool) {
	n.w.ids++
	n.member.Boot = fmt.Sprintf("boot%04d", n.w.ids)
	if wiped {
		n.member.Node = fmt.Sprintf("id-%s-%d", n.member.Name, n.w.ids)
		n.runs = map[int]*persistence.Group{}
	}
	n.alive = true
	n.agent = replicas.New(n)
	n.serve = n.agent.Handlers()
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.elect()
	w.signal()
}

func (w *world) kill(n *fakeNode) { w.change(func() { n.alive = false }) }
func (w *world) back(n *fakeNode) { w.change(func() { n.boot(false) }) }
func (w *world) wipe(n *fakeNode) { w.change(func() { n.boot(true) }) }
func (w *world) leave(n *fakeNode) {
	w.change(func() { n.member.Leaving = true })
}

// signal runs under mu.
func (w *world) signal() {
	for c := range w.watch {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (w *world) changed() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch[c] = struct{}{}
	return c, func() { w.mu.Lock(); defer w.mu.Unlock(); delete(w.watch, c) }
}

func (w *world) members() (all []members.Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.alive {
			all = append(all, n.member)
		}
	}
	return all
}

// elect runs under mu.
func (w *world) elect() {
	for i := range w.groups {
		g := &w.groups[i]
		var living []persistence.Replica
		voters := 0
		for _, r := range g.Replicas {
			if r.Voter {
				voters++
				if n := w.byID(r.Node); n != nil && n.alive && n.runs[i] != nil && n.runs[i].Self == r.ID {
					living = append(living, r)
				}
			}
		}
		switch {
		case len(living) < voters/2+1:
			g.Leader = 0
		case !slices.ContainsFunc(living, func(r persistence.Replica) bool { return r.ID == g.Leader }):
			g.Leader, g.Term = living[0].ID, g.Term+1
		}
	}
}

func (w *world) byID(id string) *fakeNode {
	for _, n := range w.nodes {
		if n.member.Node == id {
			return n
		}
	}
	return nil
}

// ask is the mesh. A dead node never answers; with harm, a living one may not hear, or its answer is lost.
func (w *world) ask(ctx context.Context, name, op string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if q, ok := in.(replicas.Ask); ok && q.Epoch == 0 {
		w.t.Errorf("%s without an epoch", op)
	}
	w.mu.Lock()
	var n *fakeNode
	for _, x := range w.nodes {
		if x.member.Name == name && x.alive {
			n = x
		}
	}
	luck := w.rand.Float64()
	var h replicas.Handler
	if n != nil {
		h = n.serve[op]
	}
	lost := w.rand.Float64() < w.harm
	w.mu.Unlock()
	if h == nil || luck < w.harm {
		<-ctx.Done()
		return &fault.Error{Op: op, Key: name, Kind: fault.Timeout, Err: ctx.Err()}
	}
	w.mu.Lock()
	w.asked[op]++
	w.mu.Unlock()
	answer, err := h(ctx, "n1", body)
	if lost {
		<-ctx.Done()
		return &fault.Error{Op: op, Key: name, Kind: fault.Timeout, Err: ctx.Err()}
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

func (w *world) count(ops ...string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, op := range ops {
		n += w.asked[op]
	}
	return n
}

// What a store does.

func (n *fakeNode) Node() string { n.w.mu.Lock(); defer n.w.mu.Unlock(); return n.member.Node }

func (n *fakeNode) Groups() (all []persistence.Group) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for i := range n.w.groups {
		local := n.runs[i]
		if local == nil {
			continue
		}
		g := n.w.groups[i]
		if g.Leader != 0 { // it catches up a bit each time that somebody looks
			local.Applied = min(g.Applied, local.Applied+2000)
		}
		g.Self, g.Applied, g.Replicas = local.Self, local.Applied, slices.Clone(g.Replicas)
		all = append(all, g)
	}
	return all
}

func (n *fakeNode) Change(_ context.Context, shard int, c persistence.Change) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	g := &n.w.groups[shard]
	if n.runs[shard] == nil || g.Leader != n.runs[shard].Self {
		return fault.New(fault.Unavailable, "store.change", "", "not the leader")
	}
	if c.Version != g.Version {
		return fault.New(fault.Conflict, "store.change", "", "version %d is not %d", c.Version, g.Version)
	}
	at := func(id uint64) int {
		return slices.IndexFunc(g.Replicas, func(r persistence.Replica) bool { return r.ID == id })
	}
	switch {
	case c.Remove != 0:
		g.Replicas = slices.Delete(slices.Clone(g.Replicas), at(c.Remove), at(c.Remove)+1)
	case at(c.Add.ID) >= 0:
		g.Replicas = slices.Clone(g.Replicas)
		g.Replicas[at(c.Add.ID)].Voter = true
	case c.Add.ID <= g.Last:
		n.w.t.Errorf("replica id %d is used again", c.Add.ID)
	default:
		g.Replicas = append(slices.Clone(g.Replicas), *c.Add)
		g.Last = c.Add.ID
	}
	g.Version++
	voters, living := 0, 0
	for _, r := range g.Replicas {
		if r.Voter {
			voters++
			if x := n.w.byID(r.Node); x != nil && x.alive && x.runs[shard] != nil {
				living++
			}
		}
	}
	if living < voters/2+1 {
		n.w.t.Errorf("shard %d lost its quorum by %+v: %+v", shard, c, g)
	}
	n.w.elect()
	return nil
}

func (n *fakeNode) Join(_ context.Context, shard int, replica uint64) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if local := n.runs[shard]; local == nil {
		n.runs[shard] = &persistence.Group{Self: replica}
	} else if local.Self != replica {
		return fault.New(fault.Conflict, "store.join", "", "replica %d is here", local.Self)
	}
	return nil
}

func (n *fakeNode) Drop(_ context.Context, shard int) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if local := n.runs[shard]; local != nil && slices.ContainsFunc(n.w.groups[shard].Replicas, func(r persistence.Replica) bool { return r.ID == local.Self }) {
		n.w.t.Errorf("%s drops a member of shard %d", n.member.Name, shard)
	}
	delete(n.runs, shard)
	return nil
}

func (n *fakeNode) Transfer(_ context.Context, shard int, to uint64) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	g := &n.w.groups[shard]
	if n.runs[shard] == nil || g.Leader != n.runs[shard].Self {
		return fault.New(fault.Unavailable, "store.transfer", "", "not the leader")
	}
	g.Leader, g.Term = to, g.Term+1
	n.w.elect()
	return nil
}

// load returns replicas and leads of each node, in the order of the nodes.
func (w *world) load() (replicas, leads []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		r, l := 0, 0
		for _, g := range w.groups {
			for _, x := range g.Replicas {
				if x.Node == n.member.Node && x.Voter {
					r++
					if x.ID == g.Leader {
						l++
					}
				}
			}
		}
		replicas, leads = append(replicas, r), append(leads, l)
	}
	return replicas, leads
}

// owner is shard 0 as a memory journal.
type owner struct {
	mem   *persisttest.Memory
	epoch uint64
}

func newOwner(t *testing.T, mem *persisttest.Memory) *owner {
	epoch, err := mem.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &owner{mem, epoch}
}

func (o *owner) Epoch() uint64 { return o.epoch }
func (o *owner) Append(w persistence.Write, done func(persistence.Outcome, error)) {
	o.mem.Append(o.epoch, []persistence.Write{w}, time.Second, func(out []persistence.Outcome, err error) {
		if err != nil {
			done(persistence.Outcome{}, err)
			return
		}
		done(out[0], nil)
	})
}
func (o *owner) Read(k persistence.Key, after uint64) (persistence.Log, error) {
	return o.mem.Read(k, after)
}

func (w *world) coordinate(o Owner) *Coordinator {
	c, err := New(Options{Shard0: o, Self: "n1", Shards: len(w.groups), Members: w.members, Changed: w.changed, Ask: w.ask,
		Settings: placement.Settings{Grace: 10 * time.Second}})
	if err != nil {
		w.t.Fatal(err)
	}
	c.Start()
	return c
}
