package task

import (
	"errors"
	"fmt"
)

// State is where a task stands. Zero is "no such task", so a blank cell in the
// lifecycle table means "refuse".
type State uint8

const (
	None      State = iota // never submitted
	Pending                // journaled, waiting for a batch, or for not_before
	Running                // one attempt holds it, until its lease ends
	Completed              // final
	Failed                 // final
	Cancelled              // final
	numStates
)

// Event is what can happen to a task. Each is journaled as one Fact.
type Event uint8

const (
	_              Event = iota
	Submitted            // a client asked for it
	Claimed              // a batcher took it for an engine: attempt + 1, under a lease
	StepDone             // the attempt answered, and more steps follow
	Answered             // the attempt answered the last step
	AttemptFailed        // a retryable error, and attempts are left: wait, then again
	LeaseLost            // no word from the attempt in time, or its worker died; attempts are left
	OwnerMoved           // the node that ran the attempt is gone, or was when the shard's owner changed; costs no try
	Returned             // its engine went down before the attempt was sent to it, or its node does not have it; costs no try
	Refused              // a permanent error, or attempts used up
	CancelAsked          // a client wants it no more
	Expired              // the deadline passed
	CallbackSent         // the callback was acknowledged
	CallbackLost         // a try to call back failed; another follows
	CallbackGaveUp       // the callback's tries are used up, or it answered 410
	Retried              // a person had it tried again, as another task: this one only names it
	numEvents
)

// Newer stands for every event that only a newer program knows. A Fact that says Skip changes nothing that this program
// knows of a task; without that, the task is refused here. It is never written.
const Newer Event = 1<<8 - 1

const newerName = "newer" // in a task's history, as this program shows it

var stateNames = [numStates]string{"none", "pending", "running", "completed", "failed", "cancelled"}
var eventNames = [numEvents]string{"", "submitted", "claimed", "step_done", "answered", "attempt_failed", "lease_lost",
	"owner_moved", "returned", "refused", "cancel_asked", "expired", "callback_sent", "callback_lost", "callback_gave_up", "retried"}

// lifecycle is the whole life of a task; doc.go draws it and a test compares them.
var lifecycle = [numStates][numEvents]State{
	None:    {Submitted: Pending},
	Pending: {Claimed: Running, CancelAsked: Cancelled, Expired: Failed},
	Running: {StepDone: Pending, Answered: Completed, AttemptFailed: Pending, LeaseLost: Pending, OwnerMoved: Pending, Returned: Pending,
		Refused: Failed, CancelAsked: Cancelled, Expired: Failed},
	Completed: {CallbackSent: Completed, CallbackLost: Completed, CallbackGaveUp: Completed},
	Failed:    {CallbackSent: Failed, CallbackLost: Failed, CallbackGaveUp: Failed, Retried: Failed},
	Cancelled: {CallbackSent: Cancelled, CallbackLost: Cancelled, CallbackGaveUp: Cancelled},
}

// Next returns the state after e in s; ok is false when e cannot happen in s.
func Next(s State, e Event) (next State, ok bool) {
	if e == Newer {
		return s, s != None && s < numStates
	}
	if s >= numStates || e >= numEvents {
		return None, false
	}
	next = lifecycle[s][e]
	return next, next != None
}

// Final tells whether s is for ever.
func (s State) Final() bool { return s == Completed || s == Failed || s == Cancelled }

// String returns the lower-case name used in the API and in metrics.
func (s State) String() string {
	if s >= numStates {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return stateNames[s]
}

// ParseState is the inverse of String; ok is false for an unknown name and for "none".
func ParseState(name string) (s State, ok bool) {
	for i := Pending; i < numStates; i++ {
		if stateNames[i] == name {
			return i, true
		}
	}
	return None, false
}

// MarshalText and UnmarshalText make State a string in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts the names of String.
func (s *State) UnmarshalText(b []byte) error {
	v, ok := ParseState(string(b))
	if !ok {
		return fmt.Errorf("unknown state %q: use pending, running, completed, failed or cancelled", b)
	}
	*s = v
	return nil
}

// String returns the lower-case name used in a task's history.
func (e Event) String() string {
	if e == Newer {
		return newerName
	}
	if e >= numEvents {
		return fmt.Sprintf("event(%d)", uint8(e))
	}
	return eventNames[e]
}

// MarshalText makes Event a string in JSON.
func (e Event) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText accepts the names of String. Any other name is Newer: whether that may be skipped, the Fact says.
func (e *Event) UnmarshalText(b []byte) error {
	for i := Submitted; i < numEvents; i++ {
		if eventNames[i] == string(b) {
			*e = i
			return nil
		}
	}
	if len(b) == 0 {
		return errors.New("an event has no name")
	}
	*e = Newer
	return nil
}
