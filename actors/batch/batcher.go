package batch

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/supervise"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Messages of the batcher.
type (
	// Credit is an inference actor's standing offer. Granted counts every work it ever
	// took or can take now, so a repeated or lost Credit does no harm.
	Credit struct {
		Engine  *actor.PID
		Name    string
		Models  []string // "*" is any
		Granted uint64
		Taken   uint64 // works received so far; Taken <= Granted. A restarted batcher counts on from here
	}
	// Gone says that an inference actor stopped.
	Gone struct{ Engine *actor.PID }
	// Ready says that a queue has, or at a time will have, something of a model.
	Ready struct {
		Queue *task.Queue
		Model string
		At    time.Time
	}
	// Closed says that a queue's shard is no longer owned here.
	Closed struct{ Queue *task.Queue }
	// Batch goes to an inference actor.
	Batch struct {
		Works []*task.Work
		Cause Cause
	}

	claimed struct {
		slot  *slot
		queue *task.Queue
		model string
		asked int
		seen  uint64 // the hint's count when it was asked
		works []*task.Work
		err   error
		over  bool // its queue closed meanwhile
	}
	look struct{} // a timer: look again
)

const (
	claimMin   = 8                      // works asked of one queue before the next is asked: a claim is one commit, however many it takes
	claimMax   = 256                    // works of one Claim to one queue
	claimRetry = 100 * time.Millisecond // a queue that could not answer is asked again after this
)

// Batcher is the actor between queues and engines of one node.
type Batcher struct {
	window   Window
	node     string
	estimate func(*task.Work) int // prompt tokens
	resync   func()               // makes queues and engines repeat what they told
	now      func() time.Time
	log      *slog.Logger

	slots map[string]*slot // by PID
	order []*slot          // round robin
	hints map[string][]*hint
	out   map[*claimed]struct{} // asked and not answered
	timer *time.Timer           // wakes the actor by look; one at a time
	until time.Time
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
	queue *task.Queue
	at    time.Time
	count uint64 // Ready messages so far: tells a stale "empty" from a fresh one
	asked bool   // a claim is under way
}

// New returns the batcher's props. estimate counts the prompt tokens of a work;
// resync makes all queues send Ready and all engines send Credit, and must not block.
func New(node string, w Window, estimate func(*task.Work) int, resync func(), now func() time.Time, log *slog.Logger) (*actor.Props, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	return actor.PropsFromProducer(supervise.Guard(func() actor.Actor {
		return &Batcher{window: w, node: node, estimate: estimate, resync: resync, now: now, log: log, slots: map[string]*slot{}, hints: map[string][]*hint{}, out: map[*claimed]struct{}{}}
	})), nil
}

// Receive handles one message at a time.
func (b *Batcher) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		b.resync() // all, again: a batcher that crashed knows nothing
	case *Credit:
		s := b.slots[m.Engine.String()]
		if s == nil {
			s = &slot{sent: m.Taken}
			b.slots[m.Engine.String()] = s
			b.order = append(b.order, s)
		}
		s.Credit = *m
	case *Gone:
		b.gone(m.Engine)
	case *Ready:
		b.ready(m)
	case *Closed:
		for x := range b.out { // its tasks may never answer
			if x.queue == m.Queue {
				x.slot.coming -= x.asked
				x.over = true
				delete(b.out, x)
			}
		}
		for model, hs := range b.hints {
			b.hints[model] = slices.DeleteFunc(hs, func(h *hint) bool { return h.queue == m.Queue })
		}
	case *claimed:
		b.claimed(m)
	case look:
		b.until = time.Time{}
	case *actor.Stopping:
		if b.timer != nil {
			b.timer.Stop()
		}
		return
	default:
		return
	}
	b.pump(c)
}

// gone forgets an engine. What was claimed for it and not sent goes back; what it had
// runs into its lease.
func (b *Batcher) gone(pid *actor.PID) {
	s := b.slots[pid.String()]
	if s == nil {
		return // never offered anything
	}
	for _, w := range s.works {
		w.GiveBack("engine " + s.Name + " stopped")
	}
	s.works, s.tokens = nil, nil
	delete(b.slots, pid.String())
	b.order = slices.DeleteFunc(b.order, func(x *slot) bool { return x == s })
}

func (b *Batcher) ready(m *Ready) {
	for _, h := range b.hints[m.Model] {
		if h.queue == m.Queue {
			h.count++
			if m.At.Before(h.at) {
				h.at = m.At
			}
			return
		}
	}
	b.hints[m.Model] = append(b.hints[m.Model], &hint{queue: m.Queue, at: m.At, count: 1})
}

// claimed takes over what a queue gave, maybe less than was asked.
func (b *Batcher) claimed(m *claimed) {
	now := b.now()
	if !m.over {
		m.slot.coming -= m.asked
		delete(b.out, m)
	}
	if m.over || b.slots[m.slot.Engine.String()] != m.slot { // nobody is there to take them
		for _, w := range m.works {
			w.GiveBack("engine " + m.slot.Name + " stopped")
		}
	} else if len(m.works) > 0 {
		if len(m.slot.works) == 0 {
			m.slot.oldest = now
		}
		for _, w := range m.works {
			m.slot.works = append(m.slot.works, w)
			m.slot.tokens = append(m.slot.tokens, b.estimate(w))
		}
	}
	if m.err != nil && fault.KindOf(m.err) != fault.Fenced {
		b.log.Warn("claim failed", "shard", m.queue.Shard(), "model", m.model, "err", m.err)
	}
	for i, h := range b.hints[m.model] {
		if h.queue != m.queue {
			continue
		}
		h.asked = false
		switch at, ok := m.queue.Next(m.model); {
		case m.err != nil:
			h.at = now.Add(claimRetry)
		case len(m.works) == m.asked || h.count != m.seen: // there may be more
		case ok && at.After(now):
			h.at = at
		case ok: // something is visible that was not when it was asked
		default:
			b.hints[m.model] = slices.Delete(b.hints[m.model], i, i+1)
		}
		return
	}
}

// pump claims with all free credit and sends what is ripe.
func (b *Batcher) pump(c actor.Context) {
	now := b.now()
	next := time.Time{} // when to look again
	soon := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for range b.order {
		s := b.order[0]
		b.order = append(b.order[1:], s)
		b.claim(c, s, now, soon)
	}
	for _, s := range b.order {
		b.send(c, s, now, soon)
	}
	b.arm(c, next, now)
}

// claim asks the queues that have something for all of the slot's free credit,
// shared evenly, but so that each is asked for claimMin at least. Which queues come
// first changes from call to call.
func (b *Batcher) claim(c actor.Context, s *slot, now time.Time, soon func(time.Time)) {
	free := int(int64(s.Granted-s.sent)) - s.coming - len(s.works)
	if free <= 0 {
		return
	}
	type ask struct {
		model string
		h     *hint
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
	rand.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
	for i, a := range asks {
		if free <= 0 {
			return
		}
		n := min(max((free+len(asks)-i-1)/(len(asks)-i), claimMin), claimMax, free)
		free -= n
		s.coming += n
		a.h.asked = true
		m := &claimed{slot: s, queue: a.h.queue, model: a.model, asked: n, seen: a.h.count}
		b.out[m] = struct{}{}
		a.h.queue.Claim(a.model, n, &task.Claim{Node: b.node, Engine: s.Name}, func(ws []*task.Work, err error) {
			m.works, m.err = ws, err
			root.Send(self, m)
		})
	}
}

func (s *slot) serves(model string) bool {
	return model == task.AnyModel || slices.Contains(s.Models, model) || slices.Contains(s.Models, "*")
}

// send gives the engine what is ripe, in batches within both budgets.
func (b *Batcher) send(c actor.Context, s *slot, now time.Time, soon func(time.Time)) {
	for len(s.works) > 0 {
		l := Load{Count: len(s.works), Age: now.Sub(s.oldest), Coming: s.coming}
		for _, t := range s.tokens {
			l.Tokens += t
		}
		cause, wait := b.window.Ripe(l)
		if cause == NotRipe {
			soon(now.Add(wait))
			return
		}
		n := b.window.Cut(s.tokens)
		c.Send(s.Engine, &Batch{Works: slices.Clone(s.works[:n]), Cause: cause})
		s.sent += uint64(n)
		s.works, s.tokens = s.works[n:], s.tokens[n:]
		if len(s.works) == 0 {
			s.works, s.tokens = nil, nil
		}
	}
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
