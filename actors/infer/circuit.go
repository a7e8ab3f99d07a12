package infer

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// judge tells the breaker what became of a request. When that opens it, the credit is taken back, and what was not sent yet goes back to its
// tasks at no cost of a try.
func (w *Worker) judge(c actor.Context, m ran) {
	now := w.Now()
	before := w.breaker
	switch {
	case m.err == nil:
		w.breaker = w.breaker.Good(m.trial)
		if w.breaker.state == Closed {
			w.Status.set(func(s *EngineState) { s.Healthy, s.Reason = true, "" })
		}
	case BadAnswer(m.err):
		w.breaker = w.breaker.Bad(now, m.work.ID, m.trial, random())
	}
	if w.breaker.opened == before.opened || w.breaker.state != Open {
		return
	}
	why := w.breaker.why(m.err)
	w.Log.Warn("an engine keeps failing: it gets nothing for a while, then one task", "engine", w.Engine.Name(), "until", w.breaker.until, "err", m.err)
	w.Meter.Opened.WithLabelValues(w.Engine.Name()).Inc()
	w.Status.set(func(s *EngineState) { s.Healthy, s.Reason = false, why })
	w.shed(now)
	w.takeBack(c)
}

// takeBack ends all credit that was given.
func (w *Worker) takeBack(c actor.Context) {
	w.granted = w.received
	if !w.leave.asked { // else the batcher knows it no more, and must not get to know it again
		w.credit(c, nil, 0)
	}
}

// shed gives back what the breaker lets nobody start: all, or all but one.
func (w *Worker) shed(now time.Time) {
	if w.breaker.State(now) == Closed {
		return
	}
	n := min(len(w.waiting), w.breaker.Room(now, 1, w.trials))
	for _, x := range w.waiting[n:] {
		x.GiveBack("engine " + w.Engine.Name() + " keeps failing")
		w.spend(x, 0)
	}
	clear(w.waiting[n:])
	w.waiting = w.waiting[:n]
}
