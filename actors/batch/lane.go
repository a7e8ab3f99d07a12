package batch

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/fair"
	"github.com/open-autoglm/autoglm/actors/task"
)

// lane is where something of one tenant, model and priority waits.
type lane struct {
	fair.Lane
	hints []*hint // one a shard
}

// hint says that a shard may have something of a lane at a time.
type hint struct {
	lane   *lane
	queue  Queue
	name   task.QueueName
	at     time.Time
	count  uint64 // Ready messages so far: tells a stale "empty" from a fresh one
	asked  bool   // a claim is under way
	passed int    // times that the lane's share ended before it was asked
	gone   bool   // dropped from its lane
}

// laneOf is the lane of a queue. What an older node tells of counts as most of it is.
func laneOf(n task.QueueName) fair.Lane {
	l := fair.Lane{Tenant: task.SplitQueue(n.Model).Tenant, Queue: n.Model, Priority: n.Priority}
	if l.Priority == task.AnyPriority {
		l.Priority = task.PriorityDefault
	}
	return l
}

func (b *Batcher) ready(m *Ready) {
	key := laneOf(m.Name)
	l := b.lanes[key]
	if l == nil {
		l = &lane{Lane: key}
		b.lanes[key] = l
	}
	for _, h := range l.hints {
		if h.queue == m.Queue && h.name == m.Name {
			h.count++
			if m.At.Before(h.at) {
				h.at = m.At
			}
			return
		}
	}
	l.hints = append(l.hints, &hint{lane: l, queue: m.Queue, name: m.Name, at: m.At, count: 1})
}

// drop forgets a shard that has nothing of a lane any more.
func (b *Batcher) drop(h *hint) {
	h.gone = true
	l := h.lane
	if l.hints = slices.DeleteFunc(l.hints, func(x *hint) bool { return x == h }); len(l.hints) == 0 {
		delete(b.lanes, l.Lane)
		b.turns.Close(l.Lane)
	}
}

// due returns the shards that may be asked now.
func (l *lane) due(now time.Time) (asks []*hint) {
	for _, h := range l.hints {
		if !h.asked && !h.at.After(now) {
			asks = append(asks, h)
		}
	}
	return asks
}

// rank orders the shards of a lane for one share-out: first those that were passed over most often, so that none starves; among
// equals those of this node, which cost no message; and otherwise by chance.
func rank(asks []*hint) {
	rand.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
	near := func(h *hint) int {
		if h.queue.Near() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(asks, func(a, b *hint) int {
		return cmp.Or(cmp.Compare(b.passed, a.passed), cmp.Compare(near(a), near(b)))
	})
}
