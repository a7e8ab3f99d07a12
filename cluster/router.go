package cluster

import (
	"context"
	"hash/fnv"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	askTry     = 6 * time.Second // one try of an Ask, when its context has no earlier end
	askWaitMin = 5 * time.Millisecond
	askWaitMax = 200 * time.Millisecond
)

// Router finds the owner of any entity. On one node every owner is local; the
// callers do not know.
type Router struct {
	owners []atomic.Pointer[Owner]
	now    func() time.Time
}

func newRouter(shards int, now func() time.Time) *Router {
	return &Router{owners: make([]atomic.Pointer[Owner], shards), now: now}
}

func (r *Router) set(shard int, o *Owner) { r.owners[shard].Store(o) }

// Shards returns how many shards there are.
func (r *Router) Shards() int { return len(r.owners) }

// ShardOf maps a key to its shard by FNV-1a of kind and id; it never changes for
// a data directory.
func (r *Router) ShardOf(key persistence.Key) int {
	h := fnv.New32a()
	h.Write([]byte(key.Kind))
	h.Write([]byte{0})
	h.Write([]byte(key.ID))
	return int(h.Sum32() % uint32(len(r.owners)))
}

// Owner returns the shard's owner, or an Unavailable fault while there is none.
func (r *Router) Owner(shard int) (*Owner, error) {
	if o := r.owners[shard].Load(); o != nil {
		return o, nil
	}
	return nil, fault.New(fault.Unavailable, "cluster.router", "", "shard %d has no owner now", shard)
}

// OwnerOf returns the owner of a key's shard and waits for one until ctx ends.
func (r *Router) OwnerOf(ctx context.Context, key persistence.Key) (*Owner, error) {
	shard := r.ShardOf(key)
	for wait := askWaitMin; ; wait = min(2*wait, askWaitMax) {
		o, err := r.Owner(shard)
		if err == nil {
			return o, nil
		}
		if !sleep(ctx, wait) {
			return nil, err
		}
	}
}

// Ask sends msg to an entity and returns its answer. It tries again while the
// owner is moving or overloaded, so msg must be idempotent (carry an id or an
// attempt). The error is the entity's own, or the last fault when ctx ends.
func (r *Router) Ask(ctx context.Context, key persistence.Key, msg any) (any, error) {
	for wait := askWaitMin; ; wait = min(2*wait, askWaitMax) {
		v, err := r.try(ctx, key, msg)
		if err == nil || !again(err) || !sleep(ctx, wait) {
			return v, err
		}
	}
}

// again tells whether the owner, not the entity's decision, was the trouble.
func again(err error) bool {
	switch fault.KindOf(err) {
	case fault.Fenced, fault.Unavailable, fault.Timeout:
		return true
	}
	return false
}

func (r *Router) try(ctx context.Context, key persistence.Key, msg any) (any, error) {
	o, err := r.OwnerOf(ctx, key)
	if err != nil {
		return nil, err
	}
	type answer struct {
		v   any
		err error
	}
	c := make(chan answer, 1)
	o.Tell(&Envelope{Key: key, Msg: msg, Reply: func(v any, err error) {
		select {
		case c <- answer{v, err}:
		default: // answered already
		}
	}})
	t := time.NewTimer(askTry)
	defer t.Stop()
	select {
	case a := <-c:
		return a.v, a.err
	case <-t.C:
		return nil, fault.New(fault.Timeout, "cluster.router", key.String(), "no answer in %v", askTry)
	case <-ctx.Done():
		return nil, fault.New(fault.Timeout, "cluster.router", key.String(), "%w", context.Cause(ctx))
	}
}

// Create appends the first row of a new journal without waking an actor. A
// Conflict tells that the journal exists: Ask the entity then.
func (r *Router) Create(ctx context.Context, writes []persistence.Write) []error {
	errs := make([]error, len(writes))
	byShard := map[int][]int{}
	for i := range writes {
		s := r.ShardOf(writes[i].Key)
		byShard[s] = append(byShard[s], i)
	}
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(writes)) // room for all: a late append never blocks
	for _, at := range byShard {
		o, err := r.OwnerOf(ctx, writes[at[0]].Key)
		if err != nil {
			for _, i := range at {
				results <- result{i, err}
			}
			continue
		}
		ws := make([]persistence.Write, len(at))
		done := make([]func(persistence.Outcome, error), len(at))
		for n, i := range at {
			ws[n] = writes[i]
			done[n] = func(_ persistence.Outcome, err error) { results <- result{i, err} }
		}
		o.appender.addAll(ws, done)
	}
	for range writes {
		select {
		case res := <-results:
			errs[res.i] = res.err
		case <-ctx.Done():
			err := fault.New(fault.Timeout, "cluster.create", "", "%w", context.Cause(ctx))
			for i := range errs {
				if errs[i] == nil {
					errs[i] = err // it may be durable all the same: the same id may be sent again
				}
			}
			return errs
		}
	}
	return errs
}

// sleep waits d or until ctx ends, and tells whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Tell posts msg to an entity without waiting. While its shard has no owner the
// message is lost: use it for what a timer repeats.
func (r *Router) Tell(key persistence.Key, msg any) {
	if o, err := r.Owner(r.ShardOf(key)); err == nil {
		o.Tell(&Envelope{Key: key, Msg: msg})
	}
}
