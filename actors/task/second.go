package task

import (
	"errors"
	"sync"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// An attempt may be run twice at the same time, on two engines, where the first is far slower than it should be. Both runs are the same
// attempt under the same epoch, so its task takes one answer whatever happens here. What is here sees to it that the other run is
// stopped, and that an error of one run says nothing while the other may still answer.

// Second returns a second run of an attempt that is under way; nil where there was one already, or nobody waits for it any more.
func (w *Work) Second() *Work {
	if w.held == nil {
		return nil
	}
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	g := w.grip
	if !g.maySecond() {
		return nil
	}
	s := *w
	s.stop, s.second, s.free = nil, true, false
	g.second, g.runs = true, append(g.runs, &s)
	g.hands++
	return &s
}

// MaySecond tells whether Second would return one.
func (w *Work) MaySecond() bool {
	if w.held == nil {
		return false
	}
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	return w.grip.maySecond()
}

func (g *grip) maySecond() bool {
	return !g.over && g.won == nil && !g.second && len(g.runs) > 0 && !g.runs[0].second
}

// IsSecond tells a second run.
func (w *Work) IsSecond() bool { return w.second }

// Win says that this run has an answer, and tells whether that counts: of both runs one gets true, and the other is stopped.
func (w *Work) Win() bool {
	if w.held == nil {
		return true
	}
	w.held.mu.Lock()
	if w.grip.overFor(w) {
		w.held.mu.Unlock()
		return false
	}
	w.grip.won = w
	stops := w.grip.stops(w)
	w.held.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	return true
}

// Fail says that this run has none, and tells whether that is the attempt's end: while the other run goes on it is not. of is then the
// error that the attempt ends with.
func (w *Work) Fail(err error) (of error, last bool) {
	if w.held == nil {
		return err, true
	}
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	w.grip.leave(w)
	if w.grip.err == nil || !w.second {
		w.grip.err = err
	}
	return w.grip.err, !w.grip.overFor(w) && len(w.grip.runs) == 0
}

// Lost tells whether the other run won.
func (w *Work) Lost() bool {
	if w.held == nil {
		return false
	}
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	return w.grip.won != nil && w.grip.won != w
}

// returned is Fail of a run that no engine was asked for: a second one may be tried again elsewhere. of is nil where the other run did not
// fail.
func (w *Work) returned() (of error, last bool) {
	if w.held == nil {
		return nil, true
	}
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	g := w.grip
	g.leave(w)
	g.second = g.second && !w.second
	return g.err, g.won == nil && len(g.runs) == 0
}

// leave takes a run off.
func (g *grip) leave(w *Work) {
	for i, x := range g.runs {
		if x == w {
			g.runs = append(g.runs[:i:i], g.runs[i+1:]...)
			return
		}
	}
}

// ErrNotRun says of a visit that no engine was asked.
var ErrNotRun = errors.New("no engine had a slot to spare")

var errGone = fault.New(fault.Unavailable, "task.second", "", "the second run was stopped")

// Visit puts a second run of an attempt that another node holds into the hands of this one, h, for its engines: done gets the outcome,
// once, and not its task.
func (w *Work) Visit(h *Held, done func(Answer, error)) {
	var once sync.Once
	w.second = true
	w.visit = func(a Answer, err error) { once.Do(func() { done(a, err) }) }
	w.Arrive(nil, h)
}

// Sent is a second run as it goes to another node, with what is left of its lease.
func (w *Work) Sent() *Work {
	return &Work{ID: w.ID, Attempt: w.Attempt, Epoch: w.Epoch, Lease: w.Lease, Left: w.Remaining(), Timeout: w.Timeout, Record: w.Record}
}

// Visits tells such a run.
func (w *Work) Visits() bool { return w.visit != nil }

// Tell brings the outcome of a visit to who wanted it; false: it is its task's.
func (w *Work) Tell(a Answer, err error) bool {
	if w.visit == nil {
		return false
	}
	w.visit(a, err)
	return true
}
