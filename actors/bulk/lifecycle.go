package bulk

import (
	"fmt"
	"slices"
)

// Phase is how far a batch is. Zero is "no such batch", so a blank cell in the lifecycle table means "refuse".
type Phase uint8

const (
	None       Phase = iota // never created
	Validating              // its input is being read and judged
	InProgress              // its lines are being created, as tasks, and counted as they end
	Expiring                // its time is over: nothing is created, what exists ends by its deadline
	Cancelling              // a client wants it no more: what exists is being cancelled
	Finalizing              // all its lines have ended
	Completed               // final
	Failed                  // final: its input was refused, and no line was created
	Expired                 // final
	Cancelled               // final
	numPhases
)

// Event is what can happen to a batch. Each is journaled as one Fact.
type Event uint8

const (
	_           Event = iota
	Created           // a client asked for it
	Accepted          // its input is good
	Rejected          // its input is not
	Progressed        // lines were created, or ended
	Paused            // no more lines are created until
	Resumed           // this
	Prioritized       // the lines that are created from now on have another priority
	CancelAsked       // a client wants it no more, or its input is gone
	TimedOut          // its completion window is over
	Drained           // every line has ended
	Finished          // its files are registered and its counts exact: it is final
	HookSent          // a webhook was acknowledged
	HookLost          // a try failed; another follows
	HookGaveUp        // its tries are used up
	numEvents
)

var phaseNames = [numPhases]string{"none", "validating", "in_progress", "expiring", "cancelling", "finalizing", "completed", "failed", "expired", "cancelled"}
var eventNames = [numEvents]string{"", "created", "accepted", "rejected", "progressed", "paused", "resumed", "prioritized", "cancel_asked", "timed_out",
	"drained", "finished", "hook_sent", "hook_lost", "hook_gave_up"}

// lifecycle is the whole life of a batch; doc.go draws it and a test compares them.
var lifecycle = [numPhases][numEvents]Phase{
	None:       {Created: Validating},
	Validating: {Accepted: InProgress, Rejected: Failed, Paused: Validating, Resumed: Validating, Prioritized: Validating, CancelAsked: Cancelling, TimedOut: Expiring},
	InProgress: {Progressed: InProgress, Paused: InProgress, Resumed: InProgress, Prioritized: InProgress, CancelAsked: Cancelling, TimedOut: Expiring, Drained: Finalizing},
	Expiring:   {Progressed: Expiring, Finished: Expired},
	Cancelling: {Progressed: Cancelling, Finished: Cancelled},
	Finalizing: {Finished: Completed},
	Completed:  {HookSent: Completed, HookLost: Completed, HookGaveUp: Completed},
	Failed:     {HookSent: Failed, HookLost: Failed, HookGaveUp: Failed},
	Expired:    {HookSent: Expired, HookLost: Expired, HookGaveUp: Expired},
	Cancelled:  {HookSent: Cancelled, HookLost: Cancelled, HookGaveUp: Cancelled},
}

// Next returns the phase after e in p; ok is false when e cannot happen in p.
func Next(p Phase, e Event) (next Phase, ok bool) {
	if p >= numPhases || e >= numEvents {
		return None, false
	}
	next = lifecycle[p][e]
	return next, next != None
}

// Final tells whether p is for ever.
func (p Phase) Final() bool { return p >= Completed && p < numPhases }

// Status is the phase as OpenAI's API names it: a batch whose time is over is "finalizing" until it is "expired".
func (p Phase) Status() string {
	if p == Expiring {
		return Finalizing.String()
	}
	return p.String()
}

// String returns the lower-case name used in the journal.
func (p Phase) String() string {
	if p >= numPhases {
		return fmt.Sprintf("phase(%d)", uint8(p))
	}
	return phaseNames[p]
}

// MarshalText makes a Phase a string in JSON.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts the names of String.
func (p *Phase) UnmarshalText(b []byte) error {
	i := slices.Index(phaseNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown phase %q", b)
	}
	*p = Phase(i)
	return nil
}

// String returns the lower-case name used in the journal.
func (e Event) String() string {
	if e >= numEvents {
		return fmt.Sprintf("event(%d)", uint8(e))
	}
	return eventNames[e]
}

// MarshalText makes an Event a string in JSON.
func (e Event) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText accepts the names of String.
func (e *Event) UnmarshalText(b []byte) error {
	i := slices.Index(eventNames[:], string(b))
	if i < 1 {
		return fmt.Errorf("unknown event %q", b)
	}
	*e = Event(i)
	return nil
}
