package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/coordinator"
	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/mesh"
	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/raftnet"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	leaveWithin = 3 * time.Second
	bossAgain   = time.Second // before a coordinator that ended by itself is followed by another
	namedWithin = time.Minute // for the advertised name to have an address
	diskEvery   = time.Second // between two looks at the disk
)

// joint is what makes a node one of several.
//
//	identity ─► Raft network ─► mesh ─► gossip ─► (found or enter a cluster) ─► store ─► actors
type joint struct {
	n       *Node
	id      *pki.Identity
	raft    *raftnet.Network
	mesh    *mesh.Mesh
	list    *members.List
	lineage string // which founding this node's data comes from; "" before it has any. See lineage.go
	aside   bool   // damaged data was set aside here

	host  string                // that others reach this node under
	peers atomic.Pointer[peers] // nil until gossip has started
	vote  atomic.Pointer[replicas.Handler]

	done chan struct{} // closed by stop
	wg   sync.WaitGroup

	leading sync.Mutex
	boss    *coordinator.Coordinator // while this node owns shard 0

	places  func() []byte // late: the actors come after the gossip
	merge   func([]byte)
	changed func()
	late    atomic.Bool // the three are set
}

// startJoint listens for the other nodes and begins to look for them.
func (n *Node) startJoint(ctx context.Context) (err error) {
	c := n.cfg.Cluster
	j := &joint{n: n, done: make(chan struct{})}
	n.joint = j
	if j.id, err = pki.Load(c.Identity); err != nil {
		return err
	}
	j.id.OnReload = func(err error) {
		if err != nil {
			n.log.Error("new certificates cannot be used: the old ones stay", "err", err)
			return
		}
		n.log.Info("new certificates are in use")
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fault.New(fault.Invalid, "config", "cluster.listen", "%w", err)
	}
	base, err := strconv.Atoi(port)
	if err != nil {
		return fault.New(fault.Invalid, "config", "cluster.listen", "%w", err)
	}
	at := func(offset int) string {
		if base == 0 {
			return net.JoinHostPort(host, "0")
		}
		return net.JoinHostPort(host, strconv.Itoa(base+offset))
	}
	if err = j.listenRaft(at(1)); err != nil {
		return err
	}
	newer := func(what string) { n.meter.Newer.WithLabelValues(what).Inc() }
	if j.mesh, err = mesh.New(mesh.Options{Listen: at(2), TLS: j.id, Version: n.version, Newer: newer, Log: n.log,
		Resolve: func(name string) (string, bool) { return j.who().remote(name) },
	}); err != nil {
		return err
	}
	j.mesh.Handle(coordinator.OpVote, j.serveVote)
	if err = j.mesh.Start(); err != nil {
		return err
	}
	advertise := c.Advertise
	if advertise != "" {
		if err := j.named(ctx, advertise); err != nil {
			return err
		}
		advertise = net.JoinHostPort(advertise, strconv.Itoa(base))
	}
	if j.list, err = members.Start(members.Options{
		Self:   members.Member{Name: j.id.Name, Cluster: j.id.Cluster, Zone: c.Zone, Version: n.version, Keys: tellKeys(n.keys), Knows: knowsAll},
		Listen: at(0), Advertise: advertise, Keys: j.id.GossipKeys, Join: c.Join, Newer: newer, Log: n.log,
		OnConflict: n.fatal,
		OnRumor:    j.merged, Merge: j.merged,
		State: func() []byte {
			if !j.late.Load() {
				return nil
			}
			return j.places()
		},
	}); err != nil {
		return err
	}
	if j.host, _, err = net.SplitHostPort(j.list.Addr()); err != nil {
		return fault.New(fault.Unknown, "node.cluster", j.list.Addr(), "%w", err)
	}
	if c.Advertise != "" {
		j.host = c.Advertise // a name may outlive its address
	}
	if err := j.list.Update(func(m *members.Member) {
		m.Raft, m.Remote = onHost(j.host, j.raft.Addr()), onHost(j.host, j.mesh.Addr())
	}); err != nil {
		return err
	}
	j.peers.Store(newPeers(j.list, n.log, func(gone []string) {
		for _, name := range gone {
			j.mesh.Gone(name)
		}
		j.compareLineages()
		j.compareKeys()
		j.endTwin()
		if j.late.Load() {
			j.changed()
		}
	}))
	return nil
}

// named waits until the name that this node advertises has an address: where names are given out as programs start, they come a
// little later.
func (j *joint) named(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, namedWithin)
	defer cancel()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		_, err := net.DefaultResolver.LookupHost(ctx, host)
		if err == nil {
			return nil
		}
		j.n.log.Info("waiting for this node's name to have an address", "advertise", host, "err", err)
		select {
		case <-again.C:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "node.cluster", "cluster.advertise", "%q has no address after %v: %w", host, namedWithin, err).
				WithRemedy("advertise a name that the other nodes can look up, or an address")
		}
	}
}

func (j *joint) listenRaft(addr string) (err error) {
	j.raft, err = raftnet.Listen(raftnet.Options{Listen: addr, TLS: j.id, Log: j.n.log,
		Resolve: func(node string) (string, string, bool) { return j.who().raft(node) },
		NodeOf:  func(name string) (string, bool) { return j.who().nodeOf(name) },
	})
	return err
}

// nobody stands in until gossip has started.
var nobody = func() *peers {
	p := &peers{}
	p.now.Store(&snapshot{})
	return p
}()

func (j *joint) who() *peers {
	if p := j.peers.Load(); p != nil {
		return p
	}
	return nobody
}

func onHost(host, addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // of an own listener: it has a port
	}
	return net.JoinHostPort(host, port)
}

func (j *joint) merged(b []byte) {
	if j.late.Load() {
		j.merge(b)
	}
}

// openStore opens this node's part of the cluster: it enters one that exists, or takes part in
// starting one. It waits until that is decided or ctx ends.
func (j *joint) openStore(ctx context.Context, o persistence.Options) (persistence.Store, error) {
	changed, stop := j.list.Changed()
	defer stop()
	o.Cluster, o.Damaged = j.id.Cluster, func(err error) {
		j.n.fatal(fmt.Errorf("%w: this node ends, for others have what it cannot read; started again it gets a new copy", err))
	}
	if err := j.readLineage(); err != nil {
		return nil, err
	}
	store, err := j.open(ctx, o, changed)
	if fault.KindOf(err) == fault.Corrupt && persistence.Exists(o.Dir) {
		if err = j.setAside(o.Dir, err); err == nil {
			store, err = j.open(ctx, o, changed)
		}
	}
	if err != nil {
		return nil, err
	}
	if err = cluster.CheckKeys(store, j.n.keys); err == nil {
		err = j.renamed()
	}
	if err != nil {
		store.Close()
		return nil, err
	}
	founded := len(store.Groups()) > 0
	if founded && j.lineage == "" { // it was alone, or older than lineages: it is the first of its cluster
		if err := j.keepLineage(newLineage(store.Node(), j.n.now())); err != nil {
			store.Close()
			return nil, err
		}
	}
	if err := j.list.Update(func(m *members.Member) {
		m.Node, m.Shards, m.Founded, m.Lineage = store.Node(), store.Shards(), founded, j.lineage
	}); err != nil {
		store.Close()
		return nil, err
	}
	if !founded {
		if err := j.found(ctx, store); err != nil {
			store.Close()
			return nil, err
		}
	}
	return store, nil
}

// open opens the data directory, after others were met where it is new.
func (j *joint) open(ctx context.Context, o persistence.Options, changed <-chan struct{}) (persistence.Store, error) {
	o.Network = j.raft
	if !persistence.Exists(o.Dir) {
		shards, err := j.meet(ctx, changed)
		if err != nil {
			return nil, err
		}
		if shards != 0 {
			o.Shards = shards
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // opening takes a while and cannot be ended
	}
	return persistence.Open(o)
}

// setAside moves a damaged data directory out of the way. The node starts as a new one, which the coordinator gives
// copies of what the others have; of what no majority has, nothing is made up: those shards wait for
// the directories that were set aside to be repaired or for a backup.
func (j *joint) setAside(dir string, why error) error {
	to, err := persistence.SetAside(dir, j.n.now())
	if err != nil {
		return fmt.Errorf("%w, after: %w", err, why)
	}
	j.aside = true
	j.n.log.Warn("the data directory is damaged: it was set aside, and this node starts as a new one, to be filled again by the others. There is nothing to do; "+
		"remove the folder when autoglm cluster status --wait returns", "moved_to", to, "err", fault.Bare(why))
	return j.listenRaft(j.raft.Addr()) // the failed Open closed it
}

// actors gives the actors their way to the other nodes.
func (j *joint) actors(o *actors.Options) {
	o.Mesh, o.Peers, o.Opened, o.Closed, o.MaySeal, o.MayErase = j.mesh, j.who(), j.lead, j.follow, j.maySeal, j.mayErase
	for op, h := range replicas.New(j.n.store).Handlers() {
		j.mesh.Handle(op, func(ctx context.Context, from string, r *mesh.Request) (mesh.Answer, error) {
			body, err := h(ctx, from, r.Body)
			return mesh.Answer{Body: body}, err
		})
	}
	o.Rumor = func(b []byte) {
		if err := j.list.Rumor(b); err != nil {
			j.n.log.Debug("a rumor was not told: the next exchange carries it", "err", err)
		}
	}
}

// watchDisk gives the leads away while the disk is too full to take new tasks, and takes part again when there is room.
func (j *joint) watchDisk() {
	t := time.NewTicker(diskEvery)
	defer t.Stop()
	full := false
	for {
		select {
		case <-j.done:
			return
		case <-t.C:
		}
		now := j.n.store.Space().Refusing
		if now != full {
			full = now
			j.n.log.Warn("disk", "too_full_to_lead", full)
			if err := j.list.Update(func(m *members.Member) { m.Stopping = full }); err != nil {
				j.n.log.Debug("the others were not told", "err", err)
			}
		}
		if full {
			j.handOver(context.Background(), j.n.store)
		}
	}
}

// started joins gossip and actors, once there are both.
func (j *joint) started() error {
	sys := j.n.sys
	j.places, j.merge, j.changed = sys.Shards.Places, sys.Shards.Merge, sys.PeersChanged
	j.late.Store(true)
	j.wg.Go(j.watchDisk)
	return j.tellEngines()
}

// tellEngines says how many engines this node has: one that has none is not asked what it serves.
func (j *joint) tellEngines() error {
	return j.list.Update(func(m *members.Member) { m.Engines = len(j.n.Engines()) + j.n.tools })
}

// shows lets the API tell of the whole cluster, here and for the other nodes.
func (j *joint) shows(s *service) {
	s.replicas = j.n.cfg.Cluster.Replicas
	s.cluster, s.events, s.known = j.id.Cluster, j.events, func() []knownMember { return j.who().known() }
	j.n.sys.Router.HandleNode(opFacts, s.serveFacts)
	j.n.sys.Router.HandleNode(opDrain, j.serveDrain)
	j.n.sys.Router.HandleNode(opEngines, s.serveEngines)
	j.mesh.Complete()
	ctx, cancel := context.WithCancel(context.Background())
	j.wg.Go(func() { s.catchUp(ctx, j.n.log) })
	j.wg.Go(func() { <-j.done; cancel() })
}

// serving tells the others where the API is.
func (j *joint) serving(addr string) {
	if host, _, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host).IsUnspecified() {
		addr = onHost(j.host, addr)
	}
	if err := j.list.Update(func(m *members.Member) { m.HTTP = addr }); err != nil {
		j.n.log.Warn("the others do not know where the API is", "err", err)
	}
}

// stopping tells the others to send nothing more.
func (j *joint) stopping() {
	close(j.done)
	j.wg.Wait()
	if j.list == nil {
		return
	}
	if err := j.list.Update(func(m *members.Member) { m.Stopping = true }); err != nil {
		j.n.log.Debug("the others were not told of the stop", "err", err)
	}
}

// expect is how many nodes start a cluster together; 0: this node starts none. One that was part of a cluster
// before starts none again, whatever it is told: its cluster exists, and another one under the same id would answer for it.
func (j *joint) expect() int {
	if j.lineage != "" || j.aside {
		return 0
	}
	return j.n.cfg.Cluster.Expect
}

// meet waits until there is a cluster, whose number of shards it returns, or enough nodes to start one: then 0.
func (j *joint) meet(ctx context.Context, changed <-chan struct{}) (shards int, err error) {
	j.n.waitsOn(j.company())
	for {
		ms := j.list.Members()
		for _, m := range ms {
			if m.Founded && m.Shards > 0 {
				return m.Shards, nil
			}
		}
		if e := j.expect(); e > 0 && len(ms) >= e {
			return 0, nil
		}
		if len(j.n.cfg.Cluster.Join) == 0 && j.expect() == 0 && len(ms) == 1 && !j.aside {
			return 0, fault.New(fault.Invalid, "node.cluster", j.id.Name, "this node has no data, and is told neither to enter a cluster nor to start one").
				WithRemedy("name nodes of the cluster with --join; or start a new one with --bootstrap-expect, 1 for a first node that others join")
		}
		switch e := j.expect(); {
		case j.aside:
			j.n.log.Warn("this node's data was damaged and set aside: it waits for its cluster, to be filled again; where no node has good data left, restore a backup", "here", len(ms))
		case e > 0:
			j.n.log.Info("waiting for nodes to start a cluster with", "here", len(ms), "expected", e)
		default:
			j.n.log.Info("waiting for a cluster to enter: check that one of these addresses is a node of it, and that it has the same cluster id and gossip key",
				"here", len(ms), "join", j.n.cfg.Cluster.Join)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, fault.New(fault.Timeout, "node.cluster", j.id.Name, "no cluster was found: %w", context.Cause(ctx))
		}
	}
}

// company returns what says, whenever it is asked, whom this node without a cluster waits for.
func (j *joint) company() func() string {
	e, aside := j.expect(), j.aside // these belong to Start
	return func() string {
		here := len(j.list.Members())
		switch {
		case aside:
			return fmt.Sprintf("its cluster, to be filled again: %d other nodes seen", here-1)
		case e > here:
			return fmt.Sprintf("the cluster: %d of %d nodes seen", here, e)
		case e > 0:
			return fmt.Sprintf("the cluster: %d nodes seen, which agree to start it", here)
		default:
			return fmt.Sprintf("a cluster to enter: %d other nodes seen, none of them part of one", here-1)
		}
	}
}

// found takes part in starting a cluster, until this node belongs to one.
func (j *joint) found(ctx context.Context, store persistence.Store) error {
	j.n.waitsOn(j.company())
	voter, err := placement.OpenVoter(j.n.dataPath("vote.json"), j.list.Self())
	if err != nil {
		return err
	}
	expect := j.expect()
	if expect == 0 {
		expect = expectNever
	}
	vote := coordinator.VoteHandler(voter, j.list.Self, j.list.Members)
	j.vote.Store(&vote)
	belongs := func(m *members.Member) { m.Founded, m.Lineage = true, j.lineage }
	err = coordinator.Bootstrap(ctx, coordinator.Boot{Voter: voter, Expect: expect, Self: j.list.Self, Members: j.list.Members,
		Changed: j.list.Changed, Ask: j.ask, Log: j.n.log,
		Found: func(ctx context.Context) error {
			// Kept and said first: from here on the store may have replicas.
			if err := j.keepLineage(newLineage(store.Node(), j.n.now())); err != nil {
				return err
			}
			if err := j.list.Update(belongs); err != nil {
				return err
			}
			return store.Found(ctx)
		}})
	if err != nil {
		return err
	}
	if err := j.enter(); err != nil {
		return err
	}
	return j.list.Update(belongs)
}

const expectNever = 1 << 30 // nodes that never come together

// serveVote answers once this node may vote.
func (j *joint) serveVote(ctx context.Context, from string, r *mesh.Request) (mesh.Answer, error) {
	vote := j.vote.Load()
	if vote == nil {
		return mesh.Answer{}, fault.New(fault.Unavailable, coordinator.OpVote, from, "node %s is not ready to vote", j.id.Name)
	}
	body, err := (*vote)(ctx, from, r.Body)
	return mesh.Answer{Body: body}, err
}

// ask sends a request to a node and decodes its answer into out.
func (j *joint) ask(ctx context.Context, name, op string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fault.New(fault.Invalid, op, name, "%w", err)
	}
	a, err := j.mesh.Ask(ctx, name, &mesh.Request{Op: op, Shard: -1, Body: body})
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(a.Body, out); err != nil {
		return fault.New(fault.Unavailable, op, name, "its answer does not decode: %w", err)
	}
	return nil
}

// lead runs the coordinator while this node owns shard 0.
func (j *joint) lead(o *cluster.Owner) {
	if o.Shard() != 0 {
		return
	}
	c := j.n.cfg.Cluster
	boss, err := coordinator.New(coordinator.Options{Shard0: o, Self: j.id.Name, Shards: j.n.store.Shards(), Members: j.list.Members,
		Changed: j.list.Changed, NameOf: func(node string) string { return j.who().named(node) }, Ask: j.ask, Now: j.n.now, Log: j.n.log,
		Settings: placement.Settings{Replicas: c.Replicas, Grace: c.DeadAfter}})
	if err != nil {
		j.n.log.Error("this node leads and cannot coordinate", "err", err)
		return
	}
	j.leading.Lock()
	defer j.leading.Unlock()
	j.boss = boss
	boss.Start()
	go func() { // ends with boss, which follow stops
		<-boss.Done()
		if err := boss.Err(); err != nil && fault.KindOf(err) != fault.Fenced {
			j.again(o, boss, err)
		}
	}()
}

// again starts another coordinator where one ended although this node owns shard 0 still: a row of unknown outcome was
// written after all, say.
func (j *joint) again(o *cluster.Owner, ended *coordinator.Coordinator, why error) {
	j.n.log.Warn("the coordinator ended and is started again", "err", why)
	t := time.NewTimer(bossAgain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-j.done:
		return
	}
	j.leading.Lock()
	mine := j.boss == ended
	j.leading.Unlock()
	if mine {
		j.lead(o)
	}
}

// follow ends the coordinator when shard 0 has moved away.
func (j *joint) follow(o *cluster.Owner) {
	if o.Shard() != 0 {
		return
	}
	j.leading.Lock()
	defer j.leading.Unlock()
	if j.boss != nil {
		j.boss.Stop()
		j.boss = nil
	}
}

// events reads what the coordinators wrote.
func (j *joint) events(ctx context.Context) ([]api.ClusterEvent, error) {
	l, err := j.n.sys.Router.ReadIn(ctx, 0, coordinator.Key, 0)
	if err != nil {
		return nil, err
	}
	es, err := coordinator.DecodeEvents(l)
	if err != nil {
		return nil, err
	}
	all := make([]api.ClusterEvent, len(es))
	for i, e := range es {
		all[i] = api.ClusterEvent{At: e.At, Epoch: e.Epoch, What: e.Kind, Shard: -1, Text: e.Text, Outcome: e.Outcome}
		if e.Action != nil {
			all[i].Shard, all[i].Node = e.Action.Shard, e.Action.Node
		}
	}
	return all, nil
}

// stop ends everything but the store, which the caller has closed.
func (j *joint) stop() {
	if j.mesh != nil {
		j.mesh.Stop()
	}
	if j.list != nil {
		ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
		if err := j.list.Leave(ctx); err != nil {
			j.n.log.Debug("the others were not told of the leave: they find out", "err", err)
		}
		cancel()
	}
	if p := j.peers.Load(); p != nil {
		p.close()
	}
	if j.list != nil {
		if err := j.list.Stop(); err != nil {
			j.n.log.Debug("gossip did not stop cleanly", "err", err)
		}
	}
	if j.raft != nil {
		if err := j.raft.Close(); err != nil {
			j.n.log.Debug("the Raft network did not close cleanly", "err", err)
		}
	}
}
