package infer

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a Breaker.
const (
	BreakerRun    = 5                      // tasks in a row that fail open it
	BreakerOf     = 20                     // or, of the newest so many answers,
	BreakerBad    = 12                     // so many bad ones
	BreakerMin    = 500 * time.Millisecond // it stays open first
	BreakerMax    = 15 * time.Second       // and at last: twice as long after each trial that fails
	breakerJitter = 0.5                    // of that, by chance
)

// Circuit is the state of a Breaker.
type Circuit uint8

// States of a Breaker.
const (
	Closed   Circuit = iota // the engine is trusted
	Open                    // it gets nothing before a time
	HalfOpen                // it gets one task, whose end decides
)

// String returns the name in status and metrics.
func (c Circuit) String() string { return [...]string{"closed", "open", "half-open"}[c] }

// Breaker keeps tasks from an engine that says it is well and fails what it is given: probes only find one that is down. It is a value without
// a clock, like Limit: every method returns the next Breaker.
//
//	closed ── BreakerRun tasks in a row fail, or BreakerBad of BreakerOf answers ──► open ── its time is over ──► half-open
//	   ▲                                                                              ▲ twice as long                │ one task
//	   └───────────────────────────── it is answered ──────────────────────────────── └───────── it fails ───────────┘
//
// A task that failed here before counts once: one that no engine can answer is no engine's fault.
type Breaker struct {
	state  Circuit
	recent uint32   // newest answer lowest; 1 is a bad one
	seen   int      // of recent, at most BreakerOf
	failed []string // tasks of the newest bad ones, at most BreakerOf
	opened int      // times in a row
	until  time.Time
}

// State is where it stands at a time.
func (b Breaker) State(now time.Time) Circuit {
	if b.state == Open && !now.Before(b.until) {
		return HalfOpen
	}
	return b.state
}

// Until is when it may be tried again; zero where it is closed.
func (b Breaker) Until() time.Time { return b.until }

// Room is how many of free slots may be used with inFlight under way.
func (b Breaker) Room(now time.Time, free, trials int) int {
	switch b.State(now) {
	case Open:
		return 0
	case HalfOpen:
		return min(free, max(0, 1-trials))
	}
	return free
}

// Good is called for an answer. Those of before it opened change nothing: they say what the engine was.
func (b Breaker) Good(trial bool) Breaker {
	switch {
	case b.state == Closed:
		return b.note(0)
	case trial:
		return Breaker{}
	}
	return b
}

// Bad is called for an answer that BadAnswer says is none. chance is between 0 and 1.
func (b Breaker) Bad(now time.Time, task string, trial bool, chance float64) Breaker {
	switch {
	case b.state != Closed && trial:
		return b.open(now, chance)
	case b.state != Closed || slices.Contains(b.failed, task):
		return b
	}
	b = b.note(1)
	b.failed = append(slices.Clone(b.failed[max(0, len(b.failed)+1-BreakerOf):]), task)
	const run = 1<<BreakerRun - 1
	if b.seen >= BreakerRun && b.recent&run == run || bits.OnesCount32(b.recent) >= BreakerBad {
		return b.open(now, chance)
	}
	return b
}

func (b Breaker) note(bad uint32) Breaker {
	b.recent = (b.recent<<1 | bad) & (1<<BreakerOf - 1)
	b.seen = min(b.seen+1, BreakerOf)
	return b
}

func (b Breaker) open(now time.Time, chance float64) Breaker {
	d := min(BreakerMax, BreakerMin<<min(b.opened, 10))
	d -= time.Duration(chance * breakerJitter * float64(d))
	return Breaker{state: Open, opened: b.opened + 1, until: now.Add(d)}
}

// BadAnswer tells whether an error is the engine's doing: it broke off, made no sense, or had an error for an answer. What it refused,
// what took too long for the task's own limit and what it has no room for is not.
func BadAnswer(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Malformed:
		return true
	}
	return false
}

// why says for the status why it is open.
func (b Breaker) why(err error) string {
	if b.opened > 1 {
		return fmt.Sprintf("it keeps failing, tried %d times: %s", b.opened-1, fault.Shown(err))
	}
	return "it keeps failing: " + fault.Shown(err)
}
