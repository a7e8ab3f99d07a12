package batch

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/fair"
	"github.com/open-autoglm/autoglm/actors/hedge"
	"github.com/open-autoglm/autoglm/actors/supervise"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	claimMin      = fair.Quantum           // works asked of one shard before the next is asked: a claim is one commit, however many it takes
	claimMax      = 256                    // works of one Claim to one shard
	claimRetry    = 100 * time.Millisecond // a queue that could not answer is asked again after this
	claimRetryFar = time.Second            // the same for a queue of another node, which may be gone
	farEvery      = time.Second            // while there is credit, owners elsewhere are asked what waits this often
)

// Options of a batcher; all but AskFar are needed.
type Options struct {
	Window   Window
	Claim    func(engine string) *task.Claim // says for whom a claim is
	Fair     fair.Policy
	Quota    Quota // nil: none
	Rules    Rules
	Estimate func(*task.Work) (prompt, all int) // tokens of a work: of its prompt, and with its answer, which its tenant is charged at first
	Resync   func()                             // makes all queues send Ready and all engines send Credit; must not block
	Parts    func() []Part                      // those that are in force; nil: none
	Arrived  func(*task.Work)                   // a work is here, before anything else is done with it; from any goroutine
	Late     func() ([]hedge.Late, int)         // runs that should have a second one, and how many may; nil: there are none
	LateFar  func(*task.Work) bool              // asks another node to run one, and tells whether it does: if one may have room. It must not block. nil: there are none
	AskFar   func(models []string)              // asks the other nodes what waits of these, to answer by Ready; must not block. nil: there are none
	Now      func() time.Time
	Log      *slog.Logger
}

// Batcher is the actor between queues and engines of one node.
type Batcher struct {
	Options

	slots map[string]*slot // by PID
	order []*slot          // round robin
	lanes map[fair.Lane]*lane
	turns *fair.Turns
	parts parts
	out   map[*claimed]struct{} // asked and not answered
	timer *time.Timer           // wakes the actor by look; one at a time
	until time.Time
	asked time.Time // AskFar was called
	late  time.Time // Late was called
}

// New returns the batcher's props.
func New(o Options) (*actor.Props, error) {
	if err := o.Window.Validate(); err != nil {
		return nil, err
	}
	if o.Quota == nil {
		o.Quota = unlimited{}
	}
	return actor.PropsFromProducer(supervise.Guard(func() actor.Actor {
		return &Batcher{Options: o, slots: map[string]*slot{}, lanes: map[fair.Lane]*lane{}, turns: fair.New(o.Fair), out: map[*claimed]struct{}{}}
	})), nil
}

// Receive handles one message at a time.
func (b *Batcher) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		if b.Parts != nil {
			for _, p := range b.Parts() {
				b.parts.set(p)
			}
		}
		b.Resync() // all, again: a batcher that crashed knows nothing
	case *Credit:
		s := b.slots[m.Engine.String()]
		if s == nil {
			s = &slot{sent: m.Taken, owed: map[Whose]owing{}}
			b.slots[m.Engine.String()] = s
			b.order = append(b.order, s)
		}
		s.Credit = *m
		s.Spent = nil
		b.spent(s, m.Spent)
	case *Gone:
		b.gone(m.Engine)
		if c.Sender() != nil {
			c.Respond(&Forgotten{})
		}
	case *Part:
		b.parts.set(*m)
	case *Ready:
		b.ready(m)
	case *Closed:
		for x := range b.out { // its tasks may never answer
			if x.hint.queue == m.Queue {
				b.settle(x, nil)
				x.over = true
			}
		}
		for _, l := range b.lanes {
			for _, h := range slices.Clone(l.hints) {
				if h.queue == m.Queue {
					b.drop(h)
				}
			}
		}
	case *claimed:
		if m.of != b {
			return // the life that asked gave them back
		}
		b.claimed(m)
	case look:
		b.until = time.Time{}
	case Again:
	case *Visit:
		b.visit(c, m.Work)
	case *Ended:
		if s := b.slots[m.Engine.String()]; s != nil {
			b.spent(s, m.Spent)
		}
	case *actor.Stopping, *actor.Restarting:
		b.stop()
		return
	default:
		return
	}
	b.pump(c)
}

// stop gives back all that was claimed and not sent: nobody else knows of it.
func (b *Batcher) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
	const reason = "the batcher stopped"
	for _, s := range b.order {
		giveBack(s.works, reason)
		b.unspent(s.works)
		s.works, s.tokens = nil, nil
	}
	for x := range b.out {
		b.Quota.Return(x.hint.lane.Tenant, x.hint.lane.Priority, x.asked)
		if !x.state.CompareAndSwap(claimOut, claimAbandoned) {
			giveBack(x.works, reason)
		}
	}
}

func giveBack(works []*task.Work, reason string) {
	for _, w := range works {
		w.GiveBack(reason)
	}
}

// gone forgets an engine. What was claimed for it and not sent goes back; what it had
// runs into its lease.
func (b *Batcher) gone(pid *actor.PID) {
	s := b.slots[pid.String()]
	if s == nil {
		return // never offered anything
	}
	giveBack(s.works, "engine "+s.Name+" stopped")
	b.unspent(s.works)
	for who, o := range s.owed {
		b.turns.Spent(who.Tenant, float64(o.tokens), float64(o.tokens))
		b.Quota.Return(who.Tenant, who.Priority, o.works)
	}
	s.works, s.tokens = nil, nil
	delete(b.slots, pid.String())
	b.order = slices.DeleteFunc(b.order, func(x *slot) bool { return x == s })
}

// unspent takes back what was charged for works that never went to an engine.
func (b *Batcher) unspent(works []*task.Work) {
	for _, w := range works {
		who := WhoseIs(w)
		b.turns.Spent(who.Tenant, float64(w.Cost), 0)
		b.Quota.Return(who.Tenant, who.Priority, 1)
		b.Quota.Spend(who.Tenant, who.Priority, -w.Cost)
	}
}

// spent sets right what tenants were charged for works that left an engine.
func (b *Batcher) spent(s *slot, ended []Spent) {
	for _, e := range ended {
		o := s.owed[e.Whose]
		charged := min(e.Charged, o.tokens) // a life before charged the others
		o = owing{o.works - e.Works, o.tokens - charged}
		if s.owed[e.Whose] = o; o.works <= 0 {
			delete(s.owed, e.Whose)
		}
		b.turns.Spent(e.Tenant, float64(charged), float64(e.Used))
		b.Quota.Return(e.Tenant, e.Priority, e.Works)
		b.Quota.Spend(e.Tenant, e.Priority, e.Used-e.Charged)
	}
}

// settle ends a claim: works is what it brought. It returns the tokens of their prompts.
func (b *Batcher) settle(m *claimed, works []*task.Work) (prompts []int) {
	m.slot.coming -= m.asked
	delete(b.out, m)
	var got []int
	prompts = make([]int, len(works))
	l := m.hint.lane.Lane
	b.Quota.Return(l.Tenant, l.Priority, m.asked)
	for i, w := range works { // of an older program's queues, some may be another's
		prompts[i], w.Cost = b.Estimate(w)
		who := WhoseIs(w)
		b.Quota.Take(who.Tenant, who.Priority, 1)
		b.Quota.Spend(who.Tenant, who.Priority, w.Cost)
		if who.Tenant == l.Tenant {
			got = append(got, w.Cost)
		} else {
			b.turns.Charge(who.Tenant, float64(w.Cost))
		}
	}
	b.turns.Settle(l, m.asked, m.each, got)
	return prompts
}

// claimed takes over what a queue gave, maybe less than was asked.
func (b *Batcher) claimed(m *claimed) {
	now, h := b.Now(), m.hint
	switch {
	case m.over:
		giveBack(m.works, "the shard moved")
	case b.slots[m.slot.Engine.String()] != m.slot: // nobody is there to take them
		b.settle(m, nil)
		giveBack(m.works, "engine "+m.slot.Name+" stopped")
	default:
		m.slot.tokens = append(m.slot.tokens, b.settle(m, m.works)...)
		if len(m.slot.works) == 0 {
			m.slot.oldest = now
		}
		for _, w := range m.works {
			m.slot.works = append(m.slot.works, w)
			if b.Rules.Prefix {
				m.slot.warm = m.slot.warm.Add(w.Record.Kin())
			}
		}
	}
	if m.err != nil {
		b.Log.Log(context.Background(), levelOf(m.err, h.queue.Near()), "claim failed", "shard", h.queue.Shard(), "model", h.name.Model, "err", m.err)
	}
	if h.gone {
		return
	}
	h.asked = false
	switch at, ok := h.queue.Next(h.name); {
	case m.err != nil && !h.queue.Near():
		h.at = now.Add(claimRetryFar)
	case m.err != nil:
		h.at = now.Add(claimRetry)
	case len(m.works) == m.asked || h.count != m.seen: // there may be more
	case ok && at.After(now):
		h.at = at
	case ok: // something is visible that was not when it was asked
	default:
		b.drop(h)
	}
}

// levelOf is how loud a failed claim is: shards move, and nodes go.
func levelOf(err error, near bool) slog.Level {
	switch fault.KindOf(err) {
	case fault.Fenced:
		return slog.LevelDebug
	case fault.Unavailable, fault.Timeout:
		if !near {
			return slog.LevelDebug
		}
	}
	return slog.LevelWarn
}

// pump claims with all free credit and sends what is ripe.
func (b *Batcher) pump(c actor.Context) {
	now := b.Now()
	next := time.Time{} // when to look again
	soon := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	b.askFar(now, soon)
	for range b.order {
		s := b.order[0]
		b.order = append(b.order[1:], s)
		b.claim(c, s, now, soon)
	}
	for _, s := range b.order {
		b.send(c, s, now, soon)
	}
	b.hedge(c, now, soon)
	b.arm(c, next, now)
}

// askFar asks the other nodes from time to time what waits there, while an engine has room: what they tell on their
// own may be lost.
func (b *Batcher) askFar(now time.Time, soon func(time.Time)) {
	if b.AskFar == nil {
		return
	}
	var models []string
	for _, s := range b.order {
		if s.free() > 0 {
			models = append(models, s.Models...)
		}
	}
	if len(models) == 0 {
		return
	}
	if next := b.asked.Add(farEvery); next.After(now) {
		soon(next)
		return
	}
	b.asked = now
	soon(now.Add(farEvery))
	slices.Sort(models)
	b.AskFar(slices.Compact(models))
}

// send gives the engine what is ripe, in batches within both budgets.
func (b *Batcher) send(c actor.Context, s *slot, now time.Time, soon func(time.Time)) {
	for len(s.works) > 0 {
		l := Load{Count: len(s.works), Age: now.Sub(s.oldest), Coming: s.coming}
		for _, t := range s.tokens {
			l.Tokens += t
		}
		cause, wait := b.Window.Ripe(l)
		if cause == NotRipe {
			soon(now.Add(wait))
			return
		}
		n := b.Window.Cut(s.tokens)
		b.hand(c, s, s.works[:n], cause)
		s.works, s.tokens = s.works[n:], s.tokens[n:]
		if len(s.works) == 0 {
			s.works, s.tokens = nil, nil
		}
	}
}

// hand sends works to an engine.
func (b *Batcher) hand(c actor.Context, s *slot, works []*task.Work, cause Cause) {
	for _, w := range works {
		o := s.owed[WhoseIs(w)]
		s.owed[WhoseIs(w)] = owing{o.works + 1, o.tokens + w.Cost}
	}
	c.Send(s.Engine, &Batch{Works: slices.Clone(works), Cause: cause})
	s.sent += uint64(len(works))
	b.parts.gave(s.Name, len(works), b.offers)
}

// arm sets the one timer to the earliest moment at which time alone changes
// something.
func (b *Batcher) arm(c actor.Context, next, now time.Time) {
	if next.IsZero() || !b.until.IsZero() && !next.Before(b.until) {
		return
	}
	if b.timer != nil {
		b.timer.Stop()
	}
	b.until = next
	self, root := c.Self(), c.ActorSystem().Root
	b.timer = time.AfterFunc(next.Sub(now), func() { root.Send(self, look{}) })
}
