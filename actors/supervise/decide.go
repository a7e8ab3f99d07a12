package supervise

import "github.com/open-autoglm/autoglm/persistence/fault"

// Action is the cure for one failure.
type Action uint8

const (
	Stop     Action = iota // end this child alone: a restart would meet the same bug or bytes again
	Restart                // after a delay
	Escalate               // the supervisor fails with the same reason: its own supervisor decides
	GiveUp                 // as Escalate, where nobody is above: end this child, and tell the owner
	numActions
)

var actionNames = [numActions]string{"stop", "restart", "escalate", "give_up"}

// String returns the name used in logs and metrics.
func (a Action) String() string {
	if a >= numActions {
		return "unknown"
	}
	return actionNames[a]
}

// cures are what a restart can help with. Conflict is among them: the sequence moved on, so a
// replay brings the actor up to it. Kinds that are missing here stop the child.
var cures = map[fault.Kind]bool{
	fault.Unavailable: true,
	fault.Timeout:     true,
	fault.Overloaded:  true,
	fault.NoSpace:     true,
	fault.Conflict:    true,
}

// Decide is the whole policy: the kind of this failure, how many failures of this child lie in
// the window (this one included), the limit, and whether a supervisor stands above.
func Decide(kind fault.Kind, failures, limit int, above bool) Action {
	switch {
	case !cures[kind]:
		return Stop
	case failures <= limit:
		return Restart
	case above:
		return Escalate
	}
	return GiveUp
}
