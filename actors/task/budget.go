package task

import (
	"sync"
	"time"
)

const (
	budgetModels  = 4096             // that a budget keeps apart; with one more it begins anew
	budgetWaitMax = 15 * time.Minute // a retry waits no longer for it: with so many it gives way
)

// Limits say how many retries a model may have: Percent of its attempts over Window, and Floor more. Percent of 0: no end.
type Limits struct {
	Percent int
	Floor   int
	Window  time.Duration
}

// Budget spreads the retries of each model where they are too many: an engine that fails all it gets must not be asked all of it again at
// once. Nothing fails for it; what is over the budget waits longer. It counts what this node decides, and is safe for many goroutines.
type Budget struct {
	limits Limits
	held   func() // a retry waits longer for it; may be nil

	mu     sync.Mutex
	models map[string]spent
}

// NewBudget returns a budget of which nothing is spent.
func NewBudget(l Limits, held func()) *Budget {
	return &Budget{limits: l, held: held, models: map[string]spent{}}
}

// Attempt counts an attempt of a model. A nil Budget has no end.
func (b *Budget) Attempt(model string, now time.Time) {
	if b == nil || b.limits.Percent <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep(model, b.models[model].attempt(now, b.limits))
}

// Retry spends one retry of a model, which would come after wait, and returns how long it has to wait.
func (b *Budget) Retry(model string, now time.Time, wait time.Duration) (longer time.Duration) {
	if b == nil || b.limits.Percent <= 0 {
		return wait
	}
	b.mu.Lock()
	s, least := b.models[model].retry(now, b.limits)
	b.keep(model, s)
	b.mu.Unlock()
	if least <= wait {
		return wait
	}
	if b.held != nil {
		b.held()
	}
	return least
}

func (b *Budget) keep(model string, s spent) {
	if _, ok := b.models[model]; !ok && len(b.models) >= budgetModels {
		clear(b.models)
	}
	b.models[model] = s
}

// spent is what one model has used. It is a value without a clock.
//
// Attempts are those of the window now and of the part of the one before that is not over yet. Retries have places in time, spacing
// apart, of which a whole window may be taken in advance: next is the first free one.
type spent struct {
	began       time.Time // of the window now
	now, before int       // attempts
	next        time.Time
}

func (s spent) roll(now time.Time, l Limits) spent {
	switch age := now.Sub(s.began); {
	case s.began.IsZero() || age >= 2*l.Window || age < 0:
		s.began, s.now, s.before = now, 0, 0
	case age >= l.Window:
		s.began, s.now, s.before = s.began.Add(l.Window), 0, s.now
	}
	return s
}

func (s spent) attempt(now time.Time, l Limits) spent {
	s = s.roll(now, l)
	s.now++
	return s
}

// allowed is how many retries a window may have.
func (s spent) allowed(now time.Time, l Limits) float64 {
	left := 1 - float64(now.Sub(s.began))/float64(l.Window)
	return float64(max(1, l.Floor)) + float64(l.Percent)/100*(float64(s.now)+left*float64(s.before))
}

// retry takes the next place, and returns how long it is until then.
func (s spent) retry(now time.Time, l Limits) (spent, time.Duration) {
	s = s.roll(now, l)
	if s.next.Before(now) {
		s.next = now
	}
	wait := s.next.Sub(now) - l.Window
	s.next = s.next.Add(time.Duration(float64(l.Window) / s.allowed(now, l)))
	if most := now.Add(l.Window + budgetWaitMax); s.next.After(most) {
		s.next = most
	}
	return s, min(max(wait, 0), budgetWaitMax)
}
