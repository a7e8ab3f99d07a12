package batch

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/hedge"
	"github.com/open-autoglm/autoglm/actors/task"
)

// lateEvery is how often it is looked for works that are late, while there are works at engines. Nobody tells of them, as
// nothing happens.
const lateEvery = 100 * time.Millisecond

// hedge gives works that are late to a second engine that has nothing else to do.
func (b *Batcher) hedge(c actor.Context, now time.Time, soon func(time.Time)) {
	if b.Late == nil || !b.busy() {
		return
	}
	if next := b.late.Add(lateEvery); next.After(now) {
		soon(next)
		return
	}
	b.late = now
	soon(now.Add(lateEvery))
	if b.LateFar == nil && !b.spare() {
		return
	}
	late, budget := b.Late()
	for _, l := range late {
		if budget == 0 {
			return
		}
		placed := false
		if s := b.spareFor(l); s != nil {
			placed = b.second(c, s, l.Work)
		} else if b.LateFar != nil {
			placed = b.LateFar(l.Work)
		}
		if placed { // else it stands in nobody's way
			budget--
		}
	}
}

// visit runs a work of another node, where it is late, if an engine has a slot to spare.
func (b *Batcher) visit(c actor.Context, w *task.Work) {
	who := WhoseIs(w)
	s := b.spareFor(hedge.Late{Work: w})
	if s == nil || b.Quota.Reserve(who.Tenant, who.Priority, 1) == 0 {
		w.GiveBack("no engine has a slot to spare")
		return
	}
	_, w.Cost = b.Estimate(w)
	b.charged(c, s, w)
}

func (b *Batcher) busy() bool {
	for _, s := range b.order {
		if len(s.owed) > 0 {
			return true
		}
	}
	return false
}

// spare is how many slots of the engine would have nothing to do: what waits has just been claimed.
func (s *slot) spare() int {
	if s.coming > 0 || len(s.works) > 0 {
		return 0
	}
	n := s.Slots
	for _, o := range s.owed {
		n -= o.works
	}
	return min(n, s.free())
}

func (b *Batcher) spare() bool {
	for _, s := range b.order {
		if s.spare() > 0 {
			return true
		}
	}
	return false
}

// spareFor returns the engine with most to spare that may have a work which is late elsewhere; nil: none.
func (b *Batcher) spareFor(l hedge.Late) (best *slot) {
	lane := l.Work.Record.Lane()
	lane.Tenant = WhoseIs(l.Work).Tenant
	queue := task.QueueOf(lane)
	for _, s := range b.order {
		if s.Name != l.Engine && s.spare() > 0 && s.serves(queue) && b.parts.room(s.Name, b.coming, b.offers) > 0 && (best == nil || s.spare() > best.spare()) {
			best = s
		}
	}
	return best
}

// second runs a work once more, and tells whether it does. Its tenant is charged for both runs, and each counts as one that it has running.
func (b *Batcher) second(c actor.Context, s *slot, w *task.Work) bool {
	who := WhoseIs(w)
	if b.Quota.Reserve(who.Tenant, who.Priority, 1) == 0 {
		return false
	}
	w = w.Second()
	if w == nil { // it has ended meanwhile
		b.Quota.Return(who.Tenant, who.Priority, 1)
		return false
	}
	b.charged(c, s, w)
	return true
}

// charged hands a second run over for which there is a place.
func (b *Batcher) charged(c actor.Context, s *slot, w *task.Work) {
	who := WhoseIs(w)
	b.Quota.Spend(who.Tenant, who.Priority, w.Cost)
	b.turns.Charge(who.Tenant, float64(w.Cost))
	b.hand(c, s, []*task.Work{w}, ByHedge)
}
