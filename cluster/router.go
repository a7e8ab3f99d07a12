package cluster

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/cluster/mesh"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	askTry     = 6 * time.Second  // one try of an Ask, when its context has no earlier end
	retryFor   = 10 * time.Second // all tries, when the caller's context has no end of its own
	askWaitMin = 5 * time.Millisecond
	askWaitMax = 200 * time.Millisecond

	createBytes = 4 << 20 // of one request that carries writes to another node
)

// Router finds the owner of any entity, on this node or another.
//
//	Ask(key, msg) ── hash ── shard ── owner here? ──► its shard actor
//	                                  └ no: directory says who leads ── mesh ──► the Router there
//
// What moves or fails on the way is tried again until the caller's context ends, under the same
// request id: an answer is lost or given, never made up.
type Router struct {
	owners []atomic.Pointer[Owner]
	now    func() time.Time
	dir    *directory
	mesh   Mesh // nil: this node is alone
	self   string
	peers  Peers
	kinds  map[string]Kind
	newer  func(what string)
}

func newRouter(shards int, opt *Options) *Router {
	r := &Router{owners: make([]atomic.Pointer[Owner], shards), now: opt.Now, dir: newDirectory(opt.Store.Node(), shards),
		mesh: opt.Mesh, self: opt.Self, peers: opt.Peers, kinds: map[string]Kind{}, newer: opt.Newer}
	for _, k := range opt.Kinds {
		r.kinds[k.Name()] = k
	}
	if r.mesh != nil {
		r.serve()
	}
	return r
}

func (r *Router) set(shard int, o *Owner) { r.owners[shard].Store(o) }

// Shards returns how many shards there are.
func (r *Router) Shards() int { return len(r.owners) }

// Self returns the name of this node.
func (r *Router) Self() string { return r.self }

// Alive returns the nodes that gossip believes alive, this one included.
func (r *Router) Alive() []Peer { return r.peers.Alive() }

// ShardOf maps a key to one of so many shards by FNV-1a of kind and id; it never changes for
// a data directory.
func ShardOf(key persistence.Key, shards int) int {
	h := fnv.New32a()
	h.Write([]byte(key.Kind))
	h.Write([]byte{0})
	h.Write([]byte(key.ID))
	return int(h.Sum32() % uint32(shards))
}

// ShardOf returns the shard of a key, one of Shards.
func (r *Router) ShardOf(key persistence.Key) int { return ShardOf(key, len(r.owners)) }

// Owner returns the shard's owner when that is this node, or a Fenced fault.
func (r *Router) Owner(shard int) (*Owner, error) {
	if o := r.owners[shard].Load(); o != nil {
		return o, nil
	}
	return nil, fault.New(fault.Fenced, "cluster.router", "", "node %s does not own shard %d now", r.self, shard)
}

// Place returns the name of the node that is believed to own a shard, "" while none is known.
func (r *Router) Place(shard int) string {
	if r.owners[shard].Load() != nil {
		return r.self
	}
	node, _, _ := r.dir.at(shard)
	name, _ := r.peers.Name(node)
	return name
}

// Ask sends msg to an entity and returns its answer. It tries again while the
// owner is moving or cannot be reached, so msg must be idempotent (carry an id or an
// attempt). The error is the entity's own, or the last fault when ctx ends.
func (r *Router) Ask(ctx context.Context, key persistence.Key, msg any) (any, error) {
	var req *mesh.Request // encoded once, under one id
	shard := r.ShardOf(key)
	var answer any
	err := r.retry(ctx, shard, unknownOutcome, func(ctx context.Context, o *Owner, node string) (err error) {
		if o != nil {
			answer, err = o.ask(ctx, key, msg)
			return err
		}
		types := r.types(key.Kind)
		if req == nil {
			name, body, err := types.Encode(msg)
			if err != nil {
				return err
			}
			req = &mesh.Request{ID: newRequestID(), Op: opAsk, Shard: shard, Kind: key.Kind, Key: key.ID, Type: name, Body: body}
		}
		a, err := r.mesh.Ask(ctx, node, req)
		if err != nil {
			return err
		}
		answer, err = types.Decode(a.Type, a.Body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func newRequestID() string { return uuid.NewString() }

func (r *Router) types(kind string) *Types {
	if k, ok := r.kinds[kind]; ok {
		return k.Types()
	}
	return nil
}

// What a client can do about a request that nobody answered.
const (
	unknownOutcome = "it may have happened or not: send the same again later; autoglm cluster status tells which nodes are missing"
	unreadable     = "try again later; autoglm cluster status tells which nodes are missing"
)

// retry calls f with the owner of a shard, or with the name of the node where it is, until f
// succeeds, fails for a reason that is not the way to the owner, or ctx ends: then the error is
// Unavailable with the newest trouble. A try is given up as soon as the shard is known to have moved.
func (r *Router) retry(ctx context.Context, shard int, remedy string, f func(ctx context.Context, o *Owner, node string) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, retryFor)
		defer cancel()
	}
	for wait := askWaitMin; ; wait = min(2*wait, askWaitMax) {
		err := r.try(ctx, shard, f)
		if err == nil || !again(err) {
			return err
		}
		if !r.pause(ctx, shard, wait) {
			return (&fault.Error{Op: "cluster.router", Key: fmt.Sprint("shard ", shard), Kind: fault.Unavailable, Err: err}).
				WithRemedy("%s", remedy)
		}
	}
}

// pause waits before another try, not longer than until the shard moves.
func (r *Router) pause(ctx context.Context, shard int, wait time.Duration) bool {
	_, _, moved := r.dir.at(shard)
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-moved:
	case <-t.C:
	}
	return ctx.Err() == nil
}

func (r *Router) try(ctx context.Context, shard int, f func(context.Context, *Owner, string) error) error {
	node, _, moved := r.dir.at(shard)
	ctx, cancel := context.WithTimeoutCause(ctx, askTry, errTry)
	defer cancel()
	o := r.owners[shard].Load()
	if o != nil {
		return f(ctx, o, r.self)
	}
	if r.mesh == nil {
		return fault.New(fault.Unavailable, "cluster.router", "", "shard %d has no owner now", shard)
	}
	name, ok := r.peers.Name(node)
	switch {
	case !ok:
		return fault.New(fault.Unavailable, "cluster.router", "", "no node is known to own shard %d now", shard).
			WithRemedy("try again; if it lasts, most nodes that hold the shard are down: autoglm cluster status")
	case name == r.self:
		return fault.New(fault.Unavailable, "cluster.router", "", "shard %d is being opened here", shard)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-moved:
			cancel()
		case <-done:
		}
	}()
	return f(ctx, nil, name)
}

var errTry = fault.New(fault.Timeout, "cluster.router", "", "no answer in %v", askTry)

// again tells whether the way to the owner, not the entity's decision, was the trouble.
func again(err error) bool {
	switch fault.KindOf(err) {
	case fault.Fenced, fault.Unavailable, fault.Timeout:
		return true
	}
	return false
}

// Create appends the first row of new journals without waking an actor. A
// Conflict tells that the journal exists: Ask the entity then. Like Ask it tries again until ctx ends: the same write twice
// is one.
func (r *Router) Create(ctx context.Context, writes []persistence.Write) []error {
	errs := make([]error, len(writes))
	byShard := map[int][]int{}
	for i := range writes {
		s := r.ShardOf(writes[i].Key)
		byShard[s] = append(byShard[s], i)
	}
	done := make(chan struct{}, len(byShard))
	for shard, at := range byShard {
		go func() {
			r.createIn(ctx, shard, at, writes, errs)
			done <- struct{}{}
		}()
	}
	for range byShard {
		<-done
	}
	return errs
}

// createIn creates those writes of one shard that at names, and fills in their errors.
func (r *Router) createIn(ctx context.Context, shard int, at []int, writes []persistence.Write, errs []error) {
	for len(at) > 0 {
		n, size := 0, 0
		for n < len(at) && n < persistence.AppendCount && (n == 0 || size+writes[at[n]].Size() <= createBytes) {
			size += writes[at[n]].Size()
			n++
		}
		part := make([]persistence.Write, n)
		for i, x := range at[:n] {
			part[i] = writes[x]
		}
		for i, err := range r.create(ctx, shard, part) {
			errs[at[i]] = err
		}
		at = at[n:]
	}
}

// create brings writes to their owner. Those that the way failed are tried again.
func (r *Router) create(ctx context.Context, shard int, writes []persistence.Write) []error {
	errs := make([]error, len(writes))
	left := make([]int, len(writes))
	for i := range left {
		left[i] = i
	}
	gaveUp := r.retry(ctx, shard, unknownOutcome, func(ctx context.Context, o *Owner, node string) (err error) {
		part := make([]persistence.Write, len(left))
		for i, x := range left {
			part[i] = writes[x]
		}
		var got []error
		if o != nil {
			got = o.create(ctx, part)
		} else if got, err = r.createAt(ctx, node, shard, part); err != nil {
			for _, x := range left {
				errs[x] = err
			}
			return err
		}
		open := left[:0]
		for i, x := range left {
			if errs[x] = got[i]; got[i] != nil && again(got[i]) {
				err = got[i]
				open = append(open, x)
			}
		}
		left = open
		return err
	})
	for _, x := range left { // empty unless the way failed to the end
		errs[x] = gaveUp
	}
	return errs
}

// Tell posts msg to an entity without waiting. While its shard has no owner, or a node is in trouble, the
// message is lost: use it for what a timer repeats.
func (r *Router) Tell(key persistence.Key, msg any) {
	shard := r.ShardOf(key)
	if o := r.owners[shard].Load(); o != nil {
		o.Tell(&Envelope{Key: key, Msg: msg})
		return
	}
	if r.mesh == nil {
		return
	}
	node, _, _ := r.dir.at(shard)
	if name, ok := r.peers.Name(node); ok && name != r.self {
		if typ, body, err := r.types(key.Kind).Encode(msg); err == nil {
			_ = r.mesh.Tell(name, &mesh.Request{Op: opTell, Shard: shard, Kind: key.Kind, Key: key.ID, Type: typ, Body: body})
		}
	}
}

// Sleep waits d or until ctx ends, and tells whether ctx still lives.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
