package chaos

import (
	"fmt"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Verb is what a client asked for.
type Verb uint8

// The verbs.
const (
	Submit Verb = iota + 1
	Get
	Cancel
	List // one op for each task that a list showed: true at some time, not at the time of the call
)

// String returns the verb in lower case.
func (v Verb) String() string { return [...]string{"?", "submit", "get", "cancel", "list"}[v] }

// Outcome is what a client learned.
type Outcome uint8

// The outcomes of a call.
const (
	Unknown  Outcome = iota // no answer, or one that promises nothing: it may have happened, or happen yet
	Done                    // submit: it is new; get: here it is; cancel: it is cancelled
	Existed                 // submit: the same body was there
	Conflict                // submit: another body is there; cancel: it ended otherwise
	Missing                 // get, cancel: no such task
)

// String returns the outcome in lower case.
func (o Outcome) String() string {
	return [...]string{"unknown", "done", "existed", "conflict", "missing"}[o]
}

// Op is one call of a client and what came of it.
type Op struct {
	Client int
	Node   string // that was asked
	Verb   Verb
	ID     string
	Body   int // of a submit, from 1: which of the task's possible bodies

	Call, Return time.Duration // on the recorder's clock
	Outcome      Outcome
	State        task.State // where Outcome is Done or Existed
	Version      uint64
	Text         string // the answer, of a completed task that was read
	Detail       string // of Unknown: why
}

// String writes an op on a line, for a person who looks for what went wrong.
func (o Op) String() string {
	s := fmt.Sprintf("%10.4fs %10.4fs client %d %s %s %s", o.Call.Seconds(), o.Return.Seconds(), o.Client, o.Node, o.Verb, o.ID)
	if o.Verb == Submit {
		s += fmt.Sprintf(" body %d", o.Body)
	}
	s += ": " + o.Outcome.String()
	if o.Outcome == Done || o.Outcome == Existed {
		s += fmt.Sprintf(", %v, version %d", o.State, o.Version)
		if o.Text != "" {
			s += fmt.Sprintf(", %q", o.Text)
		}
	}
	if o.Detail != "" {
		s += " (" + o.Detail + ")"
	}
	return s
}

// TextOf is the right answer to a task's body: what Echo makes of SpecOf's prompt.
func TextOf(id string, body int) string { return fmt.Sprintf("%s body %d", id, body) }

// OpsMax bounds a Recorder: a run that is longer is several runs.
const OpsMax = 2_000_000

// Recorder collects the ops of all clients. It is safe for any number of goroutines.
type Recorder struct {
	began time.Time

	mu  sync.Mutex
	ops []Op
}

// NewRecorder starts the clock.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Now is the time on the recorder's clock, which only grows.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

// Add keeps an op. It returns false when OpsMax are there: the run must end, for later ops cannot be judged.
func (r *Recorder) Add(o Op) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ops) >= OpsMax {
		return false
	}
	r.ops = append(r.ops, o)
	return true
}

// Ops returns all ops so far, in the order of their returns.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Op(nil), r.ops...)
}
