package cluster

import (
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	appendQueueMax    = 1 << 16          // writes waiting for a proposal, per shard; beyond: Overloaded
	appendInFlightMax = 4                // proposals under way, per shard: more only make groups smaller
	appendTimeout     = 5 * time.Second  // of one proposal
	appendRetryFor    = 20 * time.Second // how long a group is proposed again after a Timeout or Overloaded
	appendRetryWait   = 25 * time.Millisecond
	appendGroupBytes  = 1 << 20 // payload of one proposal; a larger one delays its neighbors in Raft
)

// appender groups the writes of many actors of one shard into few proposals. While
// appendInFlightMax proposals are under way, what arrives waits and forms the
// next group: the slower the disk, the larger the groups.
type appender struct {
	journal persistence.Journal
	epoch   uint64
	keys    *seal.Keys                                                                               // what is proposed is sealed with; nil: nothing is
	applied func(writes []persistence.Write, index [][]persistence.Index, out []persistence.Outcome) // before the writers hear of it
	observe func(writes int, took time.Duration)
	now     func() time.Time

	mu      sync.Mutex
	pending []queued
	closed  error               // set once: why nothing more is taken
	groups  map[*group]struct{} // under way; at most appendInFlightMax
}

type queued struct {
	write persistence.Write   // as it is proposed
	index []persistence.Index // its index rows, in clear
	done  func(persistence.Outcome, error)
	at    time.Time
}

// group is one proposal with its writers.
type group struct {
	writes []persistence.Write
	index  [][]persistence.Index
	done   []func(persistence.Outcome, error)
	began  time.Time // when its oldest write was added
}

// add queues a write; done is called once, from another goroutine or, when the
// write is refused at once, from this one.
func (a *appender) add(w persistence.Write, done func(persistence.Outcome, error)) {
	a.addAll([]persistence.Write{w}, []func(persistence.Outcome, error){done})
}

// addAll is add for many writes at once: a bulk submit is as few log entries as its
// size allows. All are taken, or none. len(writes) == len(done), and at least 1. They are sealed here, by who adds them: many do so side by
// side, and a group's size counts what the log will hold.
func (a *appender) addAll(writes []persistence.Write, done []func(persistence.Outcome, error)) {
	sealed, err := a.seal(writes)
	a.mu.Lock()
	if a.closed != nil {
		err = a.closed
	}
	if err == nil && len(a.pending)+len(writes) > appendQueueMax {
		err = fault.New(fault.Overloaded, "cluster.append", writes[0].Key.String(), "appendQueueMax of %d writes are waiting", appendQueueMax)
	}
	if err != nil {
		a.mu.Unlock()
		for _, d := range done {
			d(persistence.Outcome{}, err)
		}
		return
	}
	now := a.now()
	for i, w := range writes {
		a.pending = append(a.pending, queued{sealed[i], w.Index, done[i], now})
	}
	g := a.nextLocked()
	a.mu.Unlock()
	a.propose(g)
}

// seal returns the writes as they are proposed: the same slice where they go as they are.
func (a *appender) seal(writes []persistence.Write) (sealed []persistence.Write, err error) {
	sealed = writes
	for i, w := range writes {
		s, changed, err := a.keys.Write(w)
		if err != nil {
			return nil, err
		}
		if changed {
			if &sealed[0] == &writes[0] {
				sealed = slices.Clone(writes)
			}
			sealed[i] = s
		}
	}
	return sealed, nil
}

// nextLocked takes the next group off the queue, or nil.
func (a *appender) nextLocked() *group {
	if len(a.pending) == 0 || len(a.groups) >= appendInFlightMax {
		return nil
	}
	n, size := 0, 0
	for n < len(a.pending) && n < persistence.AppendCount {
		s := a.pending[n].write.Size()
		if n > 0 && size+s > appendGroupBytes {
			break
		}
		size += s
		n++
	}
	g := &group{writes: make([]persistence.Write, n), index: make([][]persistence.Index, n), done: make([]func(persistence.Outcome, error), n), began: a.pending[0].at}
	for i, q := range a.pending[:n] {
		g.writes[i], g.index[i], g.done[i] = q.write, q.index, q.done
	}
	clear(a.pending[:n])
	if a.pending = a.pending[n:]; len(a.pending) == 0 {
		a.pending = nil // let a burst's array go
	}
	if a.groups == nil {
		a.groups = map[*group]struct{}{}
	}
	a.groups[g] = struct{}{}
	return g
}

func (a *appender) propose(g *group) {
	if g == nil {
		return
	}
	a.journal.Append(a.epoch, g.writes, appendTimeout, func(out []persistence.Outcome, err error) { a.finish(g, out, err) })
}

// finish runs once for each proposal. A group whose outcome is unknown is proposed
// again as it is: the state machine knows a write that it already has.
func (a *appender) finish(g *group, out []persistence.Outcome, err error) {
	switch fault.KindOf(err) {
	case fault.Timeout, fault.Unavailable, fault.Overloaded:
		if a.now().Sub(g.began) < appendRetryFor && a.open() {
			time.AfterFunc(appendRetryWait, func() { a.propose(g) })
			return
		}
	case fault.Fenced:
		a.close(err)
	}
	if err == nil && a.applied != nil {
		a.applied(g.writes, g.index, out)
	}
	if a.observe != nil {
		a.observe(len(g.writes), a.now().Sub(g.began))
	}
	a.mu.Lock()
	delete(a.groups, g)
	next := a.nextLocked()
	a.mu.Unlock()
	a.propose(next)
	for i, done := range g.done {
		if err != nil {
			done(persistence.Outcome{}, err)
		} else {
			done(out[i], out[i].Err)
		}
	}
}

func (a *appender) open() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed == nil
}

// close refuses what waits and all that comes later with err; proposals under way
// still end as they end.
func (a *appender) close(err error) {
	a.mu.Lock()
	if a.closed != nil {
		a.mu.Unlock()
		return
	}
	a.closed = err
	waiting := a.pending
	a.pending = nil
	a.mu.Unlock()
	for _, q := range waiting {
		q.done(persistence.Outcome{}, err)
	}
}
