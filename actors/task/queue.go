package task

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// AnyModel is the queue of tasks that name no model on a node without a default:
// every engine serves it, with the first of its own models.
const AnyModel = "default"

// claimWithin bounds a Claim: by then every task that can answer has.
const claimWithin = 30 * time.Second

// Queue is the waiting tasks of one owned shard, by tenant, model and priority. It hands out
// ids to claim; the tasks themselves decide. It follows the ready index as an
// Observer, so that nothing is polled. It is safe for many goroutines.
type Queue struct {
	o      *cluster.Owner
	notify func(q *Queue, name QueueName, at time.Time) // there is, or at a time will be, something to claim; must not block

	mu    sync.Mutex
	feeds map[QueueName]*feed
}

// NewQueue makes the queue of a shard that is about to open. Give Observe to
// cluster.Options.Observers for IndexReady, and call Open once the shard is open. notify is told times by this node's clock.
func NewQueue(o *cluster.Owner, notify func(q *Queue, name QueueName, at time.Time)) *Queue {
	return &Queue{o: o, notify: notify, feeds: map[QueueName]*feed{}}
}

// Resume makes the owner's clock start after the newest end of a task that an earlier owner wrote. Call it before the
// shard opens: who reads results goes on from the last end seen, and must not miss what ends now because the
// clock of the owner before was ahead.
func (q *Queue) Resume() error {
	counters, err := q.o.Counters()
	if err != nil {
		return err
	}
	var t Tally
	t.Add(counters)
	for _, whose := range append(slices.Collect(maps.Keys(t.Tenants)), tenant.Default) {
		err := q.o.Scan(tenant.Index(IndexEnded, whose), EndedBound(q.o.Now()), nil, func(key, _ []byte) bool {
			if t, _, ok := ParseTimeKey(key); ok {
				q.o.NotBefore(t.Add(time.Microsecond))
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Shard returns the number of the shard.
func (q *Queue) Shard() int { return q.o.Shard() }

// Near tells that the shard is owned by this node.
func (q *Queue) Near() bool { return true }

// Observe follows the ready index.
func (q *Queue) Observe(rows []persistence.Index) {
	now := q.o.Now()
	var tell map[QueueName]time.Time
	q.mu.Lock()
	for _, r := range rows {
		k, ok := parseReady(r.Key, r.Value)
		if !ok {
			continue
		}
		f := q.feedLocked(k)
		if r.Delete {
			f.delete(k)
			continue
		}
		f.put(k, now)
		at := k.Visible
		if k.AtOnce && at.After(now) {
			at = now
		}
		if tell == nil {
			tell = map[QueueName]time.Time{}
		}
		name := QueueName{k.Model, k.Priority}
		if t, ok := tell[name]; !ok || at.Before(t) {
			tell[name] = at
		}
	}
	q.mu.Unlock()
	for name, at := range tell {
		if at.Before(now) {
			at = now
		}
		q.notify(q, name, q.o.Local(at))
	}
}

func (q *Queue) feedLocked(k ReadyKey) *feed {
	name := QueueName{k.Model, k.Priority}
	f := q.feeds[name]
	if f == nil {
		f = newFeed(k.Model, k.Priority)
		q.feeds[name] = f
		most := min(max(rowsMax/len(q.feeds), feedMin), feedMax)
		for _, other := range q.feeds {
			other.max = most // those that keep more give it back with the next row
		}
	}
	return f
}

// feedsMax is how many feeds are kept for which nothing waits: one that comes again passes what was claimed before.
const feedsMax = 256

// pruneLocked forgets feeds for which nothing waits: there is one for each tenant, model and priority that ever came.
func (q *Queue) pruneLocked() {
	if len(q.feeds) <= feedsMax {
		return
	}
	for name, f := range q.feeds {
		if f.empty() {
			delete(q.feeds, name)
		}
	}
}

// Announce notifies of every queue that may have something.
func (q *Queue) Announce() {
	q.mu.Lock()
	names := slices.Collect(maps.Keys(q.feeds))
	q.mu.Unlock()
	for _, name := range names {
		q.notify(q, name, q.o.Local(q.o.Now()))
	}
}

// Open looks for what waited before this owner, and wakes tasks that run: an attempt gets a new lease with its
// alarm, and one whose node is gone is taken back.
func (q *Queue) Open() error {
	counters, err := q.o.Counters()
	if err != nil {
		return err
	}
	var t Tally
	t.Add(counters)
	for name := range t.Waiting {
		q.mu.Lock()
		q.feedLocked(ReadyKey{Model: name.Model, Priority: name.Priority})
		q.mu.Unlock()
	}
	q.Announce()
	return q.wakeRunning()
}

// Key returns the key of a task's journal.
func Key(id string) persistence.Key { return persistence.Key{Kind: KindName, ID: id} }

// Next returns by this node's clock when there is something of a queue to claim: now, when there may be
// rows on disk that are not in memory, else when the first in memory may be claimed. ok
// is false when nothing waits.
func (q *Queue) Next(name QueueName) (at time.Time, ok bool) {
	now := q.o.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range name.priorities() {
		if f := q.feeds[QueueName{name.Model, p}]; f != nil {
			if first, waits := f.first(now); waits && (!ok || first.Before(at)) {
				at, ok = first, true
			}
		}
	}
	return q.o.Local(at), ok
}

// Claim takes up to n tasks of a queue and makes them
// running under one group append. done gets what was claimed, maybe fewer, once,
// from another goroutine or this one.
func (q *Queue) Claim(name QueueName, n int, c *Claim, done func([]*Work, error)) {
	keys, err := q.take(name, n, c.Taste)
	if len(keys) == 0 {
		done(nil, err)
		return
	}
	g := &claimed{left: len(keys), works: make([]*Work, 0, len(keys)), done: done}
	g.limit = time.AfterFunc(claimWithin, func() { g.over(q, keys) })
	for _, k := range keys {
		q.o.Tell(&cluster.Envelope{Key: Key(k.ID), Msg: c, Reply: func(v any, err error) {
			switch fault.KindOf(err) {
			case fault.Conflict, fault.NotFound: // not pending: its row is gone, or about to go
				q.forget(k)
			default:
				if err != nil {
					q.mu.Lock()
					q.feedLocked(k).putBack(k, q.o.Now())
					q.mu.Unlock()
				}
			}
			w, _ := v.(*Work)
			if w != nil {
				w.router = q.o.Router()
			}
			g.add(w, err)
		}})
	}
}

// forget drops a row that its task refused to be claimed by: it is not pending, so
// the row is gone or about to go.
func (q *Queue) forget(k ReadyKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.feedLocked(k).taken, k.ID)
}

func (q *Queue) take(name QueueName, n int, t Taste) (keys []ReadyKey, err error) {
	now := q.o.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range name.priorities() {
		f := q.feeds[QueueName{name.Model, p}]
		if f == nil || len(keys) >= n {
			continue
		}
		if err = f.load(name.Model, p, n-len(keys), now, q.o.Scan); err != nil {
			return keys, err
		}
		keys = append(keys, f.take(n-len(keys), now, t)...)
	}
	return keys, nil
}

// claimed gathers the answers of one Claim.
type claimed struct {
	mu    sync.Mutex
	left  int
	works []*Work
	err   error // of the newest that was not a plain refusal
	done  func([]*Work, error)
	ended bool
	limit *time.Timer
}

func (g *claimed) add(w *Work, err error) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		if w != nil {
			w.GiveBack("its claim was answered too late")
		}
		return
	}
	if w != nil {
		g.works = append(g.works, w)
	}
	if err != nil && err != errFull && fault.KindOf(err) != fault.Conflict {
		g.err = err
	}
	g.left--
	g.ended = g.left == 0
	last := g.ended
	g.mu.Unlock()
	if last {
		g.limit.Stop()
		g.done(g.works, g.err)
	}
}

// over ends a Claim that some task never answered, because it crashed or its shard
// closed under it: what did not answer may be claimed again.
func (g *claimed) over(q *Queue, keys []ReadyKey) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return
	}
	g.ended = true
	got := map[string]bool{}
	for _, w := range g.works {
		got[w.ID] = true
	}
	err := fault.New(fault.Timeout, "task.claim", "", "%d of %d tasks did not answer in %v", g.left, len(keys), claimWithin)
	g.mu.Unlock()
	now := q.o.Now()
	q.mu.Lock()
	for _, k := range keys {
		if !got[k.ID] {
			q.feedLocked(k).putBack(k, now) // a no-op for those that did answer
		}
	}
	q.mu.Unlock()
	g.done(g.works, err)
}

// Reconcile compares what the queue believes with the shard's exact counters, and
// wakes what should be awake. It heals what an observer never heard of: a write whose
// outcome was unknown when its appender gave up. Cheap when nothing is wrong.
func (q *Queue) Reconcile() error {
	counters, err := q.o.Counters()
	if err != nil {
		return err
	}
	var t Tally
	t.Add(counters)
	var tell []QueueName
	q.mu.Lock()
	q.pruneLocked()
	for name := range t.Waiting {
		f := q.feedLocked(ReadyKey{Model: name.Model, Priority: name.Priority})
		if len(f.rows) == 0 && len(f.taken) == 0 && !f.more {
			f.restart(name.Model, name.Priority)
		}
		if f.more {
			tell = append(tell, name)
		}
	}
	q.mu.Unlock()
	for _, name := range tell {
		q.notify(q, name, q.o.Local(q.o.Now()))
	}
	return q.wakeRunning()
}

// wakeRunning lets every running task look at its lease: those that are awake only
// set their alarm again.
func (q *Queue) wakeRunning() error {
	return q.UnderWay(func(r UnderWay) { q.Wake(r.ID) })
}

// UnderWay calls f with each attempt that is journaled as under way.
func (q *Queue) UnderWay(f func(UnderWay)) error {
	return q.o.Scan(IndexRunning, nil, nil, func(id, value []byte) bool {
		f(parseRunning(id, value))
		return true
	})
}

// Wake lets a task look at what became of its attempt.
func (q *Queue) Wake(id string) { q.o.Tell(&cluster.Envelope{Key: Key(id), Msg: cluster.Wake{}}) }

// Return takes an attempt back that its node does not have.
func (q *Queue) Return(r UnderWay, reason string) {
	q.o.Tell(&cluster.Envelope{Key: Key(r.ID), Msg: &Return{Attempt: r.Attempt, Epoch: r.Epoch, Reason: reason}})
}

// Waiting returns up to limit queues of which something waits, with the time of the first of each by this node's clock.
func (q *Queue) Waiting(serves func(queue string) bool, limit int) map[QueueName]time.Time {
	now := q.o.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[QueueName]time.Time{}
	for name, f := range q.feeds {
		if at, ok := f.first(now); ok && len(out) < limit && serves(name.Model) {
			out[name] = q.o.Local(at)
		}
	}
	return out
}
