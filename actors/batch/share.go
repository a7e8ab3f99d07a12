package batch

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Queue is the waiting tasks of one shard: *task.Queue where the shard is owned here, else a way to its
// owner. It is compared by identity.
type Queue interface {
	Shard() int
	// Near tells that a claim costs no message to another node.
	Near() bool
	// Claim takes up to n tasks of a model. done gets what was claimed, maybe fewer, once, from any goroutine.
	Claim(model string, n int, c *task.Claim, done func([]*task.Work, error))
	// Next says, as of the newest answer, when there is something to claim; ok is false when nothing waits.
	Next(model string) (at time.Time, ok bool)
}

// slot is one inference actor as the batcher sees it.
type slot struct {
	Credit
	sent   uint64 // works given to it; sent + coming + len(works) <= Granted
	coming int    // works asked of queues for it
	works  []*task.Work
	tokens []int // estimates of works
	oldest time.Time
}

// hint says that a queue may have something of a model at a time.
type hint struct {
	queue  Queue
	at     time.Time
	count  uint64 // Ready messages so far: tells a stale "empty" from a fresh one
	asked  bool   // a claim is under way
	passed int    // times that the credit ended before it was asked
}

// free is how many works the slot's engine has room for that nothing is asked for yet.
func (s *slot) free() int { return int(int64(s.Granted-s.sent)) - s.coming - len(s.works) }

// ask is a hint that may be asked now.
type ask struct {
	model string
	h     *hint
}

// claim asks the queues that have something for all of the slot's free credit,
// shared evenly, but so that each is asked for claimMin at least.
func (b *Batcher) claim(c actor.Context, s *slot, now time.Time, soon func(time.Time)) {
	free := s.free()
	if free <= 0 {
		return
	}
	var asks []ask
	for model, hs := range b.hints {
		if !s.serves(model) {
			continue
		}
		for _, h := range hs {
			switch {
			case h.asked:
			case h.at.After(now):
				soon(h.at)
			default:
				asks = append(asks, ask{model, h})
			}
		}
	}
	self, root := c.Self(), c.ActorSystem().Root
	rank(asks)
	for i, a := range asks {
		if free <= 0 {
			a.h.passed++
			continue
		}
		n := min(max((free+len(asks)-i-1)/(len(asks)-i), claimMin), claimMax, free)
		free -= n
		s.coming += n
		a.h.asked, a.h.passed = true, 0
		m := &claimed{of: b, slot: s, queue: a.h.queue, model: a.model, asked: n, seen: a.h.count}
		b.out[m] = struct{}{}
		a.h.queue.Claim(a.model, n, b.Claim(s.Name), func(ws []*task.Work, err error) {
			for _, w := range ws {
				b.Arrived(w)
			}
			m.works, m.err = ws, err
			if !m.state.CompareAndSwap(claimOut, claimAnswered) {
				giveBack(ws, "the batcher stopped")
				return
			}
			root.Send(self, m)
		})
	}
}

// rank orders queues for one share-out: first those that were passed over most often, so that none starves; among
// equals those of this node, which cost no message; and otherwise by chance.
func rank(asks []ask) {
	rand.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
	near := func(a ask) int {
		if a.h.queue.Near() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(asks, func(a, b ask) int {
		return cmp.Or(cmp.Compare(b.h.passed, a.h.passed), cmp.Compare(near(a), near(b)))
	})
}

func (s *slot) serves(model string) bool {
	return task.Serves(s.Models, model)
}
