package batch

import (
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/fair"
	"github.com/open-autoglm/autoglm/actors/task"
)

// Queue is the waiting tasks of one shard: *task.Queue where the shard is owned here, else a way to its
// owner. It is compared by identity.
type Queue interface {
	Shard() int
	// Near tells that a claim costs no message to another node.
	Near() bool
	// Claim takes up to n tasks of a queue. done gets what was claimed, maybe fewer, once, from any goroutine.
	Claim(name task.QueueName, n int, c *task.Claim, done func([]*task.Work, error))
	// Next says, as of the newest answer, when there is something to claim; ok is false when nothing waits.
	Next(name task.QueueName) (at time.Time, ok bool)
}

// slot is one inference actor as the batcher sees it.
type slot struct {
	Credit
	sent   uint64 // works given to it; sent + coming + len(works) <= Granted
	coming int    // works asked of queues for it
	works  []*task.Work
	tokens []int           // estimates of works
	oldest time.Time       // when the first of works came
	warm   task.Warm       // what it was given last
	owed   map[Whose]owing // for works sent and not ended
}

type owing struct{ works, tokens int }

// Quota is what tenants may claim on this node; *quota.Shares is one.
type Quota interface {
	// Room is how many works may be claimed now, at most n.
	Room(tenant string, priority, n int) int
	// Reserve takes room for up to n works, and says for how many; Return gives it back when they end, or were not there.
	Reserve(tenant string, priority, n int) int
	Return(tenant string, priority, n int)
	// Take is Reserve of what is here already.
	Take(tenant string, priority, n int)
	// Spend takes tokens; a negative number gives some back.
	Spend(tenant string, priority, tokens int)
}

// unlimited is the Quota of who has none.
type unlimited struct{}

func (unlimited) Room(_ string, _, n int) int    { return n }
func (unlimited) Reserve(_ string, _, n int) int { return n }
func (unlimited) Return(string, int, int)        {}
func (unlimited) Take(string, int, int)          {}
func (unlimited) Spend(string, int, int)         {}

// free is how many works the slot's engine has room for that nothing is asked for yet.
func (s *slot) free() int { return int(int64(s.Granted-s.sent)) - s.coming - len(s.works) }

func (s *slot) serves(queue string) bool {
	return task.Serves(s.Models, queue)
}

// claim asks the shards that have something for all of the slot's free credit: whose turn it is says package fair, and what a
// lane gets is shared evenly among its shards, but so that each is asked for claimMin at least.
func (b *Batcher) claim(c actor.Context, s *slot, now time.Time, soon func(time.Time)) {
	free := min(s.free(), b.parts.room(s.Name, b.coming, b.offers))
	if free <= 0 {
		return
	}
	due := map[fair.Lane][]*hint{}
	for key, l := range b.lanes {
		if !s.serves(key.Queue) {
			continue
		}
		for _, h := range l.hints {
			if !h.asked && h.at.After(now) {
				soon(h.at)
			}
		}
		if asks := l.due(now); len(asks) > 0 {
			due[key] = asks
			b.turns.Open(key, now)
		}
	}
	if len(due) == 0 {
		return
	}
	for _, g := range b.turns.Plan(now, free, func(l fair.Lane) int { return b.Quota.Room(l.Tenant, l.Priority, len(due[l])*claimMax) }) {
		n := b.Quota.Reserve(g.Lane.Tenant, g.Lane.Priority, g.N) // two lanes may share a quota
		b.turns.Settle(g.Lane, g.N-n, g.Each, nil)
		if g.N = n; n > 0 {
			b.ask(c, s, g, due[g.Lane])
		}
	}
}

// coming is how many works an engine is about to be given.
func (b *Batcher) coming(engine string) (n int) {
	for _, s := range b.order {
		if s.Name == engine {
			n += s.coming + len(s.works)
		}
	}
	return n
}

// offers tells whether an engine takes anything: one that is down, or keeps failing, took its credit back.
func (b *Batcher) offers(engine string) bool {
	return slices.ContainsFunc(b.order, func(s *slot) bool { return s.Name == engine && len(s.Models) > 0 })
}

// taste is what goes well with what the slot's engine was given last.
func (b *Batcher) taste(s *slot) task.Taste {
	t := task.Taste{Alike: b.Rules.Prefix, Length: b.Rules.Length}
	if b.Rules.Prefix {
		t.Warm = slices.Clone(s.warm)
	}
	return t
}

// ask asks shards of a lane for what it was granted.
func (b *Batcher) ask(c actor.Context, s *slot, g fair.Grant, asks []*hint) {
	self, root := c.Self(), c.ActorSystem().Root
	rank(asks)
	left := g.N
	for i, h := range asks {
		if left <= 0 {
			h.passed++
			continue
		}
		n := min(max((left+len(asks)-i-1)/(len(asks)-i), claimMin), claimMax, left)
		left -= n
		s.coming += n
		h.asked, h.passed = true, 0
		m := &claimed{of: b, slot: s, hint: h, asked: n, each: g.Each, seen: h.count}
		b.out[m] = struct{}{}
		claim := b.Claim(s.Name)
		claim.Taste = b.taste(s)
		h.queue.Claim(h.name, n, claim, func(ws []*task.Work, err error) {
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
