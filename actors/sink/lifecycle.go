package sink

import (
	"fmt"
	"slices"
)

// Phase is what a sink is at. Zero is "no such sink", so a blank cell in the lifecycle table means "refuse".
type Phase uint8

const (
	None    Phase = iota // never created
	Running              // a driver works for it
	Paused               // somebody stopped it for a while; its cursor stays
	Deleted              // it is gone; its name may be taken again
	numPhases
)

// Event is what can happen to a sink. Each is journaled as one Fact.
type Event uint8

const (
	_           Event = iota
	Created           // somebody asked for it
	Planned           // the results of the next batch are decided
	Delivered         // they are at the destination
	SkippedOver       // a stretch of results has none of the sink's
	FailedTry         // the destination did not take a batch, or could not be reached
	PauseAsked        // nothing is written until
	ResumeAsked       // this
	DeleteAsked       // nobody wants it any more
	numEvents
)

var phaseNames = [numPhases]string{"none", "running", "paused", "deleted"}
var eventNames = [numEvents]string{"", "created", "planned", "delivered", "skipped", "failed", "paused", "resumed", "deleted"}

// lifecycle is the whole life of a sink; doc.go draws it and a test compares them.
var lifecycle = [numPhases][numEvents]Phase{
	None:    {Created: Running},
	Running: {Planned: Running, Delivered: Running, SkippedOver: Running, FailedTry: Running, PauseAsked: Paused, DeleteAsked: Deleted},
	Paused:  {Delivered: Paused, ResumeAsked: Running, DeleteAsked: Deleted}, // what was being written may still arrive
	Deleted: {Created: Running},
}

// Next returns the phase after e in p; ok is false when e cannot happen in p.
func Next(p Phase, e Event) (next Phase, ok bool) {
	if p >= numPhases || e >= numEvents {
		return None, false
	}
	next = lifecycle[p][e]
	return next, next != None
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
