package task

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Policy is what a node adds to what a task says of itself. It decides only new
// facts: changing it never changes what is journaled.
type Policy struct {
	Timeout     time.Duration // of one attempt, when the task names none
	TimeoutMax  time.Duration // a task may not ask for more
	LeaseMargin time.Duration // a lease is the timeout and this: fetching, waiting for a slot, answering
	Attempts    int           // tries of a step, when the task names none
	BackoffMin  time.Duration
	BackoffMax  time.Duration
	SlowFactor  int            // an Overloaded engine is asked again this many times later
	MovesMax    int            // attempts lost to a new owner before they count as failures
	Fair        func() bool    // all nodes know queues of tenants, so that whoever owns the shard finds the row of a new task; nil: they do
	Bytes       func() bool    // all nodes count what is kept, so that whoever erases a task takes its bytes off; nil: they do
	Abort       func(UnderWay) // tells the node of an attempt that its task has ended; it may not arrive. nil: nobody is told
	Jitter      func() float64 // in [0,1)
	Budget      *Budget        // of retries; nil: no end
}

// DefaultPolicy is a sane start; Jitter must be set.
func DefaultPolicy(jitter func() float64) Policy {
	return Policy{Timeout: time.Minute, TimeoutMax: time.Hour, LeaseMargin: 30 * time.Second, Attempts: 4,
		BackoffMin: time.Second, BackoffMax: 2 * time.Minute, SlowFactor: 4, MovesMax: 100, Jitter: jitter}
}

// AttemptTimeout is how long an engine, or a tool, may take over the next attempt of r.
func (p Policy) AttemptTimeout(r *Record) time.Duration {
	s := r.Spec
	if s.OwnLanes() {
		at, _ := s.walk(r.Answers)
		if d := s.step(at.question).timeout(); d > 0 {
			return min(d, p.TimeoutMax)
		}
	}
	if s.Timeout > 0 {
		return min(time.Duration(s.Timeout), p.TimeoutMax)
	}
	return p.Timeout
}

// kept is what is counted of so many bytes.
func (p Policy) kept(bytes int) int {
	if p.Bytes != nil && !p.Bytes() {
		return 0
	}
	return bytes
}

func (p Policy) attempts(s *Spec) int {
	if s.Retry != nil && s.Retry.Attempts > 0 {
		return s.Retry.Attempts
	}
	return p.Attempts
}

// Backoff returns how long to wait after failed try number n (1, 2, …): the
// minimum doubled each time, at most the maximum, and of that between half and all
// by jitter. Overloaded waits longer; the engine's own wish is the least.
func (p Policy) Backoff(s *Spec, n int, kind fault.Kind, asked time.Duration) time.Duration {
	lo, hi := p.BackoffMin, p.BackoffMax
	if r := s.Retry; r != nil {
		if r.BackoffMin > 0 {
			lo = time.Duration(r.BackoffMin)
			hi = max(hi, lo)
		}
		if r.BackoffMax > 0 {
			hi = time.Duration(r.BackoffMax)
		}
	}
	if kind == fault.Overloaded {
		lo *= time.Duration(max(1, p.SlowFactor))
	}
	wait := backoff.Exponential{Min: min(lo, hi), Max: hi, Jitter: 0.5}
	return max(wait.Delay(n, p.Jitter()), asked)
}

// verdict says what a failed attempt leads to: another one after a wait, or the end.
func (p Policy) verdict(r *Record, kind fault.Kind, asked time.Duration) (again bool, wait time.Duration) {
	if !kind.Retryable() && kind != fault.Unknown || r.Tries >= p.attempts(r.Spec) {
		return false, 0
	}
	return true, p.Backoff(r.Spec, r.Tries, kind, asked)
}
