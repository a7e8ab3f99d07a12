package schedule

import (
	"maps"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// What a schedule is at. "" is none.
const (
	Active  = "active"
	Paused  = "paused"
	Deleted = "deleted" // its name may be taken again
)

// recentMax is how many of the newest runs a schedule remembers.
const recentMax = 10

// Run is one time that fired.
type Run struct {
	Planned time.Time     `json:"planned"`
	Task    string        `json:"task_id"`
	ByHand  bool          `json:"by_hand,omitempty" doc:"Somebody asked for it; planned is when."`
	Error   *task.Failure `json:"error,omitempty" doc:"Why its task could not be submitted."`
}

// State is a schedule as its facts add up.
type State struct {
	Plan      *Plan     `json:"plan"`
	Life      string    `json:"life"` // of this schedule, among those that had or will have its name
	Phase     string    `json:"phase"`
	CreatedAt time.Time `json:"created_at"`
	Next      time.Time `json:"next,omitzero"`     // the first planned time of which nothing is decided; zero: there is none
	Waiting   time.Time `json:"waiting,omitzero"`  // a planned time that waits until the task before has ended
	Pending   []Run     `json:"pending,omitempty"` // fired, and not known to be submitted
	Recent    []Run     `json:"recent,omitempty"`  // the newest that fired, oldest first; at most recentMax
	Fired     uint64    `json:"fired,omitempty"`
	Skipped   uint64    `json:"skipped,omitempty"` // the task before had not ended
	Missed    uint64    `json:"missed,omitempty"`  // late, and not caught up
	Failed    uint64    `json:"failed,omitempty"`  // their tasks were refused
}

// The events.
const (
	created   = "created"
	decided   = "decided"
	submitted = "submitted"
	ran       = "ran" // by hand
	paused    = "paused"
	resumed   = "resumed"
	deleted   = "deleted"
)

// Fact is one thing that happened to a schedule.
type Fact struct {
	Event     string    `json:"event"`
	At        time.Time `json:"at"`
	Plan      *Plan     `json:"plan,omitempty"`      // created
	Life      string    `json:"life,omitempty"`      // created
	Next      time.Time `json:"next,omitzero"`       // created, resumed
	Decision  *Decision `json:"decision,omitempty"`  // decided
	Submitted []Run     `json:"submitted,omitempty"` // submitted: with an error where that is for good
	Run       *Run      `json:"run,omitempty"`       // ran
}

func (s *State) exists() bool { return s.Phase == Active || s.Phase == Paused }

// TaskID is the id of the task of a planned time.
func (s State) TaskID(planned time.Time) string {
	return s.Plan.Name + "-" + s.Life + "-" + planned.UTC().Format("20060102T150405Z")
}

// Spec is the task of a run.
func (s State) Spec(r *Run) *task.Spec {
	spec := *s.Plan.Task
	spec.ID = r.Task
	spec.Metadata = maps.Clone(spec.Metadata)
	if spec.Metadata == nil {
		spec.Metadata = map[string]string{}
	}
	spec.Metadata[MetaSchedule], spec.Metadata[MetaPlanned] = s.Plan.Name, r.Planned.UTC().Format(time.RFC3339)
	return &spec
}

// Last is the newest run; nil: there was none.
func (s State) Last() *Run {
	if n := len(s.Recent); n > 0 {
		return &s.Recent[n-1]
	}
	return nil
}

// Apply folds one fact. It is pure: recovery folds with the same Apply as the live actor.
func (s State) Apply(f Fact) (State, error) {
	corrupt := func(why string) (State, error) {
		return s, fault.New(fault.Corrupt, "schedule.apply", "", "%s %s", f.Event, why)
	}
	if s.exists() == (f.Event == created) {
		return corrupt("cannot happen to a schedule that is " + s.Phase)
	}
	switch f.Event {
	case created:
		if f.Plan == nil || f.Life == "" {
			return corrupt("without a plan")
		}
		s = State{Plan: f.Plan, Life: f.Life, Phase: Active, CreatedAt: f.At, Next: f.Next}
	case decided:
		d := f.Decision
		if d == nil {
			return corrupt("without a decision")
		}
		s.Next, s.Waiting, s.Skipped, s.Missed = d.Next, d.Waiting, s.Skipped+uint64(d.Skipped), s.Missed+uint64(d.Missed)
		for _, t := range d.Fire {
			s = s.fire(Run{Planned: t, Task: s.TaskID(t)})
		}
	case ran:
		if f.Run == nil {
			return corrupt("without a run")
		}
		s = s.fire(*f.Run)
	case submitted:
		s = s.submitted(f.Submitted)
	case paused:
		if !s.Waiting.IsZero() {
			s.Skipped++
		}
		s.Phase, s.Next, s.Waiting = Paused, time.Time{}, time.Time{}
	case resumed:
		s.Phase, s.Next = Active, f.Next
	case deleted:
		s = State{Phase: Deleted}
	default:
		return corrupt("is no event of a schedule")
	}
	return s, nil
}

// fire returns the state with one run more. What an older state has stays as it is.
func (s State) fire(r Run) State {
	s.Pending = append(slices.Clone(s.Pending), r)
	s.Recent = append(slices.Clone(s.Recent), r)
	s.Recent = s.Recent[max(0, len(s.Recent)-recentMax):]
	s.Fired++
	return s
}

func (s State) submitted(runs []Run) State {
	s.Recent = slices.Clone(s.Recent)
	for _, r := range runs {
		is := func(x Run) bool { return x.Task == r.Task }
		if !slices.ContainsFunc(s.Pending, is) {
			continue
		}
		s.Pending = slices.DeleteFunc(slices.Clone(s.Pending), is)
		if r.Error == nil {
			continue
		}
		s.Failed++
		if i := slices.IndexFunc(s.Recent, is); i >= 0 {
			s.Recent[i].Error = r.Error
		}
	}
	return s
}

// due is when a planned time is to be looked at.
func (s *State) due(planned time.Time) time.Time { return planned.Add(s.Plan.delay(s.Life, planned)) }

// wake is the durable timer: it repeats itself until what it is for is done.
func (s State) wake() time.Time {
	switch {
	case !s.exists():
	case len(s.Pending) > 0:
		return s.Pending[0].Planned
	case !s.Waiting.IsZero():
		return s.Waiting
	case !s.Next.IsZero():
		return s.due(s.Next)
	}
	return time.Time{}
}
