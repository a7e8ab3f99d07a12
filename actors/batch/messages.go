package batch

import (
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// Messages of the batcher.
type (
	// Credit is an inference actor's standing offer. Granted counts every work it ever
	// took or can take now, so a repeated or lost Credit does no harm.
	Credit struct {
		Engine  *actor.PID
		Name    string
		Models  []string // queues that it serves: see task.Offers
		Granted uint64
		Taken   uint64  // works received so far; Taken <= Granted. A restarted batcher counts on from here
		Slots   int     // works that it runs or could begin at once; Granted has those that would wait for a slot too
		Spent   []Spent // what ended since the Credit before; one for each Whose
	}
	// Ended is a Credit's Spent, of an inference actor that has nothing to offer now.
	Ended struct {
		Engine *actor.PID
		Spent  []Spent
	}
	// Spent is works that left an engine: with an answer, an error, or back to their tasks.
	Spent struct {
		Whose
		Works   int
		Charged int // tokens, the sum of their Cost
		Used    int // tokens that they took; 0 of what never ran
	}
	// Whose is who is charged for works.
	Whose struct {
		Tenant   string
		Priority int
	}
	// Gone says that an inference actor stopped.
	Gone struct{ Engine *actor.PID }
	// Forgotten answers a Gone that was asked: no Batch follows it.
	Forgotten struct{}
	// Ready says that a shard has, or at a time will have, something in a queue.
	Ready struct {
		Queue Queue
		Name  task.QueueName
		At    time.Time
	}
	// Again says that more may be claimed than a moment ago: a quota has room.
	Again struct{}
	// Closed says that a queue is no way to its shard any more: the shard came here, or went.
	Closed struct{ Queue Queue }
	// Batch goes to an inference actor.
	Batch struct {
		Works []*task.Work
		Cause Cause
	}

	// Visit is a second run for another node; it is given back where no engine has a slot to spare.
	Visit struct{ Work *task.Work }

	claimed struct {
		of    *Batcher // the life that asked: the next one knows nothing of it
		slot  *slot
		hint  *hint
		asked int
		each  float64 // tokens charged for each asked
		seen  uint64  // the hint's count when it was asked
		works []*task.Work
		err   error
		over  bool // its queue closed meanwhile

		state atomic.Int32 // claimOut, then one of the others
	}
	look struct{} // a timer: look again
)

// States of a claim, so that what comes as the batcher stops is given back by exactly one side.
const (
	claimOut       = iota
	claimAnswered  // works is set, the message is on its way
	claimAbandoned // whoever answers gives the works back
)

// WhoseIs is who is charged for a work.
func WhoseIs(w *task.Work) Whose { return Whose{tenant.Of(w.ID), w.Record.Spec.PriorityOr()} }
