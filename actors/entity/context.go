package entity

import (
	"time"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
)

// Clock returns the time.
type Clock func() time.Time

// Context is what a behavior sees of its entity and of the message in hand. It is
// valid during the call, and in the functions given to Reply.
type Context[S, E any] struct {
	kind  *Kind[S, E]
	o     *cluster.Owner // nil while First decides
	id    string
	state S
	seq   uint64
	env   *cluster.Envelope // nil in Enter after recovery
	clock Clock

	events    []E
	erase     bool
	reply     func() any // made after the commit, when there is one
	done      *answered  // the answer, made before the commit because it is remembered with it
	refused   error
	recovered bool // Enter runs because the entity woke up
}

// ID returns the entity's id.
func (c *Context[S, E]) ID() string { return c.id }

// State returns the state, as of the last durable commit.
func (c *Context[S, E]) State() S { return c.state }

// Version returns how many commits made the state.
func (c *Context[S, E]) Version() uint64 { return c.seq }

// Message returns the message in hand; nil in Enter after recovery.
func (c *Context[S, E]) Message() any {
	if c.env == nil {
		return nil
	}
	return c.env.Msg
}

// Recovered tells, in Enter, that the entity woke up rather than committed.
func (c *Context[S, E]) Recovered() bool { return c.recovered }

// Now returns the injected time.
func (c *Context[S, E]) Now() time.Time { return c.clock() }

// Wall returns the wall clock of the shard's owner, which Now may be ahead of: for what a client gave as a time of day.
func (c *Context[S, E]) Wall() time.Time {
	if c.o == nil {
		return c.clock()
	}
	return c.o.Wall()
}

// Epoch returns the epoch of the shard's owner; outside effects carry it.
func (c *Context[S, E]) Epoch() uint64 {
	if c.o == nil {
		return 0
	}
	return c.o.Epoch()
}

// Owner returns the shard's owner; nil while First decides.
func (c *Context[S, E]) Owner() *cluster.Owner { return c.o }

// Commit makes events durable in one step with the index rows they imply. The
// state changes, Enter runs and the sender is answered only after that. Calls in
// one behavior add up.
func (c *Context[S, E]) Commit(events ...E) { c.events = append(c.events, events...) }

// Erase ends the entity: its journal, its index rows, its timer and all that Count says of it go, and its id is as if it had never been
// used. Index and Count are asked for the way from the state to the zero state. It excludes Commit, and is refused while a replica of the
// shard may run a program that does not know how (cluster.Owner.MayErase).
func (c *Context[S, E]) Erase() { c.erase = true }

// Reply answers the sender, after the commit when there is one.
func (c *Context[S, E]) Reply(v any) { c.reply = func() any { return v } }

// ReplyWith answers the sender with what f makes of the state after the commit.
func (c *Context[S, E]) ReplyWith(f func(S) any) { c.reply = func() any { return f(c.state) } }

// Refuse answers the sender with an error and drops what Commit was given.
func (c *Context[S, E]) Refuse(err error) { c.refused = err }

// Alarm wakes the entity with Wake after wait while this owner lives, whatever the wall clock does meanwhile. One alarm at a
// time: another one takes its place.
func (c *Context[S, E]) Alarm(wait time.Duration) {
	if c.o != nil {
		c.o.Alarm(c.key(), wait)
	}
}

// NoAlarm clears what Alarm and Lease set.
func (c *Context[S, E]) NoAlarm() {
	if c.o != nil {
		c.o.NoAlarm(c.key())
	}
}

// Lease gives attempt n whole from the first call under this owner on, and returns what is left of it. Wake comes when nothing is.
func (c *Context[S, E]) Lease(n uint64, whole time.Duration) (left time.Duration) {
	if c.o == nil {
		return whole
	}
	return c.o.Lease(c.key(), n, whole)
}

// Tell posts a message to any entity, without waiting and without an answer.
func (c *Context[S, E]) Tell(key persistence.Key, msg any) {
	if c.o != nil {
		c.o.Router().Tell(key, msg)
	}
}

func (c *Context[S, E]) key() persistence.Key {
	return persistence.Key{Kind: c.kind.Name, ID: c.id}
}

// answered is an answer.
type answered struct{ v any }
