package sink

import (
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// State is what a sink's journaled facts add up to. It never holds results.
type State struct {
	Phase     Phase       `json:"phase"`
	Def       *Definition `json:"def,omitempty"`
	Life      string      `json:"life,omitempty"` // of this creation: a name that was deleted and taken again writes other objects
	CreatedAt time.Time   `json:"created_at"`

	Cursor string `json:"cursor,omitempty"` // all results before it are delivered
	Seq    uint64 `json:"seq,omitempty"`    // batches delivered; the next one is Seq+1
	Next   *Plan  `json:"next,omitempty"`   // the batch that is being delivered; Next.Seq == Seq+1

	Count       uint64    `json:"count,omitempty"`       // results delivered
	Newest      time.Time `json:"newest,omitzero"`       // when the newest of them ended
	DeliveredAt time.Time `json:"delivered_at,omitzero"` // when that was

	Error *task.Failure `json:"error,omitempty"` // why nothing is delivered now; nil while all is well
	Since time.Time     `json:"since,omitzero"`  // of Error, or of errors before it without a success in between
	Tries int           `json:"tries,omitempty"` // failed since
}

// Plan says which results a batch has: all that the sink wants between State.Cursor and UpTo.
type Plan struct {
	Seq    uint64    `json:"seq"`
	UpTo   string    `json:"up_to"`
	Rows   int       `json:"rows"`
	Newest time.Time `json:"newest"` // when the newest of them ended
}

// Fact is one thing that happened to a sink, as journaled. Which fields are set depends on Event.
type Fact struct {
	Event  Event       `json:"event"`
	At     time.Time   `json:"at"`
	Def    *Definition `json:"def,omitempty"`    // Created
	Life   string      `json:"life,omitempty"`   // Created
	Cursor string      `json:"cursor,omitempty"` // Created: where it starts; SkippedOver: up to where
	Plan   *Plan       `json:"plan,omitempty"`   // Planned
	Seq    uint64      `json:"seq,omitempty"`    // Delivered

	Error *task.Failure `json:"error,omitempty"` // FailedTry
	Tries int           `json:"tries,omitempty"` // FailedTry: with those before
}

// Apply folds one fact into s. It is pure: recovery folds with the same Apply as the live actor.
func (s State) Apply(f Fact) (State, error) {
	next, ok := Next(s.Phase, f.Event)
	if !ok {
		return s, fault.New(fault.Conflict, "sink.apply", "", "%v cannot happen to a sink that is %v", f.Event, s.Phase)
	}
	was := s
	corrupt := func(format string, args ...any) (State, error) {
		return was, fault.New(fault.Corrupt, "sink.apply", "", format, args...)
	}
	switch f.Event {
	case Created:
		if f.Def == nil || f.Life == "" {
			return corrupt("created without a definition")
		}
		s = State{Def: f.Def, Life: f.Life, CreatedAt: f.At, Cursor: f.Cursor}
	case Planned:
		if f.Plan == nil || s.Next != nil || f.Plan.Seq != s.Seq+1 || f.Plan.Rows < 1 || f.Plan.UpTo == s.Cursor {
			return corrupt("a plan that does not follow batch %d", s.Seq)
		}
		s.Next = f.Plan
	case Delivered:
		if s.Next == nil || s.Next.Seq != f.Seq {
			return corrupt("batch %d was not planned", f.Seq)
		}
		s.Cursor, s.Seq, s.Count, s.Newest, s.DeliveredAt = s.Next.UpTo, s.Next.Seq, s.Count+uint64(s.Next.Rows), s.Next.Newest, f.At
		s.Next, s.Error, s.Since, s.Tries = nil, nil, time.Time{}, 0
	case SkippedOver:
		if s.Next != nil || f.Cursor == "" {
			return corrupt("results were skipped while batch %d is being delivered", s.Seq+1)
		}
		s.Cursor = f.Cursor
		s.Error, s.Since, s.Tries = nil, time.Time{}, 0
	case FailedTry:
		if f.Error == nil {
			return corrupt("a failure without an error")
		}
		s.Error, s.Tries = f.Error, f.Tries
		if s.Since.IsZero() {
			s.Since = f.At
		}
	case PauseAsked, DeleteAsked:
		s.Error, s.Since, s.Tries = nil, time.Time{}, 0 // nothing is being tried
	}
	s.Phase = next
	return s, nil
}

// wake repeats itself while there is something to do, on whichever node owns the sink.
func (s State) wake() (at time.Time) {
	if s.Phase == Running {
		at = s.CreatedAt
	}
	return at
}

// Object is the name of a batch's object, without the format's ending: names sort as batches were delivered.
func (s *State) Object(seq uint64) string { return fmt.Sprintf("%s-%s-%012d", s.Def.Name, s.Life, seq) }

// after folds facts.
func (s State) after(fs []Fact) (State, error) {
	var err error
	for _, f := range fs {
		if s, err = s.Apply(f); err != nil {
			return s, err
		}
	}
	return s, nil
}
