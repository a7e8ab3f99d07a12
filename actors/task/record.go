package task

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Fact is one thing that happened to a task, as journaled. Which fields are set
// depends on Event; the rest stay zero and take no room.
type Fact struct {
	Event   Event     `json:"event"`
	At      time.Time `json:"at"`
	Spec    *Spec     `json:"spec,omitempty"`    // Submitted
	Model   string    `json:"model,omitempty"`   // Submitted: the queue, also when the spec names no model
	Line    *Line     `json:"line,omitempty"`    // Submitted: of a batch
	Trace   string    `json:"trace,omitempty"`   // Submitted: W3C traceparent of the first request that named the task
	Fair    bool      `json:"fair,omitempty"`    // Submitted: by a program whose queues are one tenant's, with near deadlines first
	Attempt uint32    `json:"attempt,omitempty"` // all that concern an attempt; for a callback: the try
	Epoch   uint64    `json:"epoch,omitempty"`   // Claimed: the owner's epoch
	Node    string    `json:"node,omitempty"`    // Claimed
	Boot    string    `json:"boot,omitempty"`    // Claimed: of the node's process
	Engine  string    `json:"engine,omitempty"`  // Claimed
	Until   time.Time `json:"until,omitzero"`    // Claimed: lease; AttemptFailed, LeaseLost, CallbackLost: not before
	Answer  *Answer   `json:"answer,omitempty"`  // Answered, StepDone
	Error   *Failure  `json:"error,omitempty"`   // AttemptFailed, LeaseLost, Refused, Expired, CallbackLost, CallbackGaveUp
	Repair  *Repair   `json:"repair,omitempty"`  // AttemptFailed: the answer broke its form, and is shown to the engine; Error says how
	Reason  string    `json:"reason,omitempty"`  // CancelAsked, OwnerMoved, Returned; AttemptFailed, LeaseLost: why it waits longer than its backoff, or is repaired
	As      string    `json:"as,omitempty"`      // Retried: id of the other task, as its tenant calls it
	Kept    int       `json:"kept,omitempty"`    // Submitted, Answered, StepDone, AttemptFailed: bytes that are counted for the tenant until the task is deleted
	Skip    bool      `json:"skip,omitempty"`    // a program that does not know Event may go on as if only a version had passed
}

// Answer is what an engine said, with what it took.
type Answer struct {
	Text string `json:"text,omitempty"` // empty for a request: see Content

	Status int             `json:"status,omitempty"` // HTTP's, of a request
	Body   json.RawMessage `json:"body,omitempty"`   // the engine's whole answer to a request

	FinishReason string    `json:"finish_reason,omitempty"` // stop, length
	Model        string    `json:"model,omitempty"`         // as the engine named it
	PromptTokens int       `json:"prompt_tokens,omitempty"`
	OutputTokens int       `json:"completion_tokens,omitempty"`
	StartedAt    time.Time `json:"started_at,omitzero"` // request to the engine sent
	EndedAt      time.Time `json:"ended_at,omitzero"`
	DataSHA256   string    `json:"data_sha256,omitempty"` // of what data_url gave, in hex
	DataBytes    int64     `json:"data_bytes,omitempty"`
	Part         *Part     `json:"part,omitempty"`   // of a step with a map
	Second       *Place    `json:"second,omitempty"` // where a second run of the attempt made it; nil: it is of the engine that claimed it
}

// Place is an engine of a node.
type Place struct {
	Node   string `json:"node"`
	Engine string `json:"engine"`
}

// Failure is an error as kept in the journal and shown to clients.
type Failure struct {
	Kind    string `json:"kind"` // fault.Kind.String()
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`

	Status int             `json:"status,omitempty"` // with which the engine refused a request, else 0
	Body   json.RawMessage `json:"body,omitempty"`   // what it said then: JSON of at most SaidBodyMax bytes
}

// FailureOf keeps what the client of a task, a batch or a sink may see of err: ids as its tenant knows them, no steps of programs. The message is cut at 2,000 bytes.
func FailureOf(id string, err error) *Failure {
	msg := tenant.PlainOf(tenant.Of(id), fault.Plain(err))
	if len(msg) > 2000 {
		msg = strings.ToValidUTF8(msg[:2000], "") + "…"
	}
	f := &Failure{Kind: fault.KindOf(err).String(), Message: msg, Remedy: fault.RemedyOf(err)}
	if e, ok := errors.AsType[*EngineError](err); ok {
		f.Status, f.Body = e.Status, e.Body
	}
	return f
}

// SaidBodyMax bounds what is kept of an engine's own words, in bytes.
const SaidBodyMax = 8 << 10

// EngineError is the HTTP error by which an engine refused a request: its caller gets it as it is.
type EngineError struct {
	Status int
	Body   json.RawMessage // see SaidBody
	Err    error           // the fault that policy reads
}

// Error is the fault's text.
func (e *EngineError) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e *EngineError) Unwrap() error { return e.Err }

// SaidBody keeps an engine's error body when it is JSON and not too long, and else makes an error object as OpenAI
// has it, of message.
func SaidBody(body []byte, message string) json.RawMessage {
	if len(body) <= SaidBodyMax && utf8.Valid(body) && json.Valid(body) {
		var b bytes.Buffer
		_ = json.Compact(&b, body) // it is valid
		return b.Bytes()
	}
	b, _ := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": "engine_error", "param": nil, "code": nil}}) // strings encode
	return b
}

// Attempt is one try to run the task, or one of its steps: the execution context.
type Attempt struct {
	Number    uint32    `json:"number"`
	Step      int       `json:"step,omitempty"`
	Node      string    `json:"node"`
	Engine    string    `json:"engine"`
	ClaimedAt time.Time `json:"claimed_at"`
	Answer    *Answer   `json:"answer,omitempty"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Outcome   string    `json:"outcome,omitempty"` // the Event that ended it
	Error     *Failure  `json:"error,omitempty"`
}

// CallbackState is how far the callback of a final task came.
type CallbackState string

const (
	CallbackNone      CallbackState = ""
	CallbackWaiting   CallbackState = "waiting"
	CallbackDelivered CallbackState = "delivered"
	CallbackDropped   CallbackState = "gave up"
)

// Record is what a task's journaled facts add up to. As JSON it goes to other nodes.
type Record struct {
	State     State     `json:"state"`
	Version   uint64    `json:"version"` // grows by one with each fact
	Spec      *Spec     `json:"spec,omitempty"`
	Model     string    `json:"model"`           // whose queue it waits in
	Trace     string    `json:"trace,omitempty"` // W3C traceparent that goes with every request made for the task; "" in old journals
	Line      *Line     `json:"line,omitempty"`  // of the batch that it is a part of
	Fair      bool      `json:"fair,omitempty"`  // its queue is its tenant's, and its deadline counts in it
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	Attempt   uint32    `json:"attempt,omitempty"`   // number of the newest attempt, 0 before the first
	Tries     int       `json:"tries,omitempty"`     // attempts of this step that count against the limit; Tries <= Attempt
	Repairs   int       `json:"repairs,omitempty"`   // attempts of this step whose answer was shown to the engine again: they do not count either
	Repair    *Repair   `json:"repair,omitempty"`    // what the next attempt shows
	Moves     int       `json:"moves,omitempty"`     // attempts that do not count: their node went, or they were never sent
	Epoch     uint64    `json:"epoch,omitempty"`     // of the owner that claimed the newest attempt
	Boot      string    `json:"boot,omitempty"`      // of the process that the newest attempt runs in; "" in old journals
	Lease     time.Time `json:"lease,omitzero"`      // while Running
	NotBefore time.Time `json:"not_before,omitzero"` // while Pending; with AtOnce no more than its place in the queue
	AtOnce    bool      `json:"at_once,omitempty"`   // nobody asked for a wait: a clock that is ahead wrote NotBefore if it is not past
	Answers   []Answer  `json:"answers,omitempty"`   // one a finished question, in the order of walk: a map has one for each part and merge
	Error     *Failure  `json:"error,omitempty"`     // why it failed, or why the newest attempt did
	EndedAt   time.Time `json:"ended_at,omitzero"`   // became final
	Attempts  []Attempt `json:"attempts,omitempty"`  // the newest attemptsKept; the journal has all of them

	Callback       CallbackState `json:"callback,omitempty"`
	CallbackTries  int           `json:"callback_tries,omitempty"`
	CallbackNext   time.Time     `json:"callback_next,omitzero"`    // next try while waiting
	CallbackReason *Failure      `json:"callback_reason,omitempty"` // of the newest failed try

	Kept      int    `json:"kept,omitempty"`       // sum of its facts': what a program from before this count wrote is not in it
	RetriedAs string `json:"retried_as,omitempty"` // the task that a failed one was tried again as
}

// attemptsKept bounds a Record in memory; a task may have AttemptsMax a step.
const attemptsKept = 20

// Apply folds one fact into r. It is pure: recovery folds with the same Apply as
// the live actor. A fact that the lifecycle refuses gives a Conflict fault and the
// record unchanged.
func (r Record) Apply(f Fact) (Record, error) {
	if f.Event == Newer && !f.Skip {
		return r, fault.New(fault.Unavailable, "task.apply", "", "a newer version of the program wrote an event that this one does not know and must not skip").
			WithRemedy("upgrade this node, or let an upgraded one lead the shard")
	}
	next, ok := Next(r.State, f.Event)
	if !ok {
		return r, fault.New(fault.Conflict, "task.apply", "", "%v cannot happen to a %v task", f.Event, r.State)
	}
	if f.Event == Submitted {
		if f.Spec == nil {
			return r, fault.New(fault.Corrupt, "task.apply", "", "submitted without a spec")
		}
		r.Spec, r.Model, r.Trace, r.Line, r.Fair, r.CreatedAt, r.NotBefore = f.Spec, f.Model, f.Trace, f.Line, f.Fair, f.At, f.At
		r.AtOnce = f.Spec.NotBefore == nil // whether one that is given is past, the owner's clock says
		if f.Spec.NotBefore != nil && f.Spec.NotBefore.After(f.At) {
			r.NotBefore = f.Spec.NotBefore.UTC().Truncate(time.Microsecond) // as in its index key
		}
	}
	switch f.Event {
	case Claimed:
		r.Attempt, r.Epoch, r.Boot, r.Lease = f.Attempt, f.Epoch, f.Boot, f.Until
		r.Tries++
		r.Attempts = append(r.kept(), Attempt{Number: f.Attempt, Step: len(r.Answers), Node: f.Node, Engine: f.Engine, ClaimedAt: f.At})
	case StepDone, Answered:
		if f.Answer == nil {
			return r, fault.New(fault.Corrupt, "task.apply", "", "%v without an answer", f.Event)
		}
		r.Answers = append(r.Answers[:len(r.Answers):len(r.Answers)], *f.Answer)
		r.Tries, r.Error, r.NotBefore, r.AtOnce = 0, nil, f.At, true
		r.Repairs, r.Repair = 0, nil
		r.endAttempt(f)
	case AttemptFailed, LeaseLost:
		r.Error, r.NotBefore, r.AtOnce = f.Error, f.Until, false
		switch {
		case f.Repair != nil:
			r.Tries--
			r.Repairs++
			r.Repair, r.AtOnce = &Repair{Text: f.Repair.Text}, true
			if f.Error != nil {
				r.Repair.Error = f.Error.Message
			}
		case f.Error != nil && f.Error.Kind == fault.Malformed.String():
			r.Repair = nil // it did not help: the next try asks as the first one did
		}
		r.endAttempt(f)
	case OwnerMoved, Returned:
		r.Tries--
		r.Moves++
		r.NotBefore, r.AtOnce = f.At, true
		r.endAttempt(f)
	case Refused, Expired, CancelAsked:
		if f.Event != CancelAsked {
			r.Error = f.Error
		}
		if r.State == Running {
			r.endAttempt(f)
		}
	case CallbackSent:
		r.Callback, r.CallbackTries, r.CallbackReason, r.CallbackNext = CallbackDelivered, int(f.Attempt), nil, time.Time{}
	case CallbackLost:
		r.CallbackTries, r.CallbackReason, r.CallbackNext = int(f.Attempt), f.Error, f.Until
	case Retried:
		r.RetriedAs = f.As
	case CallbackGaveUp:
		r.Callback, r.CallbackTries, r.CallbackReason, r.CallbackNext = CallbackDropped, int(f.Attempt), f.Error, time.Time{}
	}
	if next.Final() && !r.State.Final() {
		r.EndedAt, r.Repair = f.At, nil
		if r.Spec.CallbackURL != "" {
			r.Callback, r.CallbackNext = CallbackWaiting, f.At
		}
	}
	if next != Running {
		r.Lease = time.Time{}
	}
	r.State, r.UpdatedAt = next, f.At
	r.Kept += f.Kept
	r.Version++
	return r, nil
}

// kept returns Attempts with room for one more, as a copy: records share nothing.
func (r *Record) kept() []Attempt {
	from := max(0, len(r.Attempts)-attemptsKept+1)
	return append(make([]Attempt, 0, len(r.Attempts)-from+1), r.Attempts[from:]...)
}

func (r *Record) endAttempt(f Fact) {
	if len(r.Attempts) == 0 {
		return
	}
	a := append([]Attempt(nil), r.Attempts...)
	last := &a[len(a)-1]
	last.EndedAt, last.Outcome, last.Error = f.At, f.Event.String(), f.Error
	if f.Error != nil && f.Error.Body != nil {
		short := *f.Error
		short.Body = nil // the newest is kept once, in Error
		last.Error = &short
	}
	if f.Answer != nil {
		meta := *f.Answer
		meta.Text, meta.Body = "", nil // they are kept once, in Answers
		last.Answer = &meta
	}
	r.Attempts = a
}

// Text returns the text of the last answer, or "".
func (r *Record) Text() string {
	if len(r.Answers) == 0 {
		return ""
	}
	return r.Answers[len(r.Answers)-1].Content()
}

// Hash identifies the body of a task, its id aside: equal specs, equal hash.
func (s *Spec) Hash() string {
	c := *s
	c.ID = ""
	b, err := json.Marshal(&c) // fields in order, map keys sorted
	if err != nil {
		panic(fmt.Errorf("task.hash: %w", err)) // only NaN could, and Validate refuses it
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}
