package task

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of tasks in journals and keys.
const KindName = "task"

// Messages to a task. Each is harmless when it comes twice.
type (
	// Submit creates the task. The answer is Accepted.
	Submit struct {
		Spec  *Spec  `json:"spec"`
		Model string `json:"model"`           // the queue; Spec.Model, or the node's default
		Trace string `json:"trace,omitempty"` // W3C traceparent of the request
		Line  *Line  `json:"line,omitempty"`
	}
	// Claim takes a pending task for an engine. The answer is *Work, or nothing where the deadline passed.
	Claim struct {
		Node   string `json:"node"`
		Boot   string `json:"boot,omitempty"` // of the node's process, see cluster.Peer: the attempt lives as long as it does
		Engine string `json:"engine"`
		Taste  Taste  `json:"-"` // for the queue, not the task
		Room   *Room  `json:"-"` // shared by the claims of one answer to another node; nil: no end
	}
	// Done is the answer of an attempt.
	Done struct {
		Attempt uint32 `json:"attempt"`
		Epoch   uint64 `json:"epoch"` // of the owner under which it was claimed, as journaled
		Answer  Answer `json:"answer"`
	}
	// Lost is the end of an attempt without an answer. Err's Kind decides what follows.
	Lost struct {
		Attempt    uint32
		Epoch      uint64
		Err        error
		RetryAfter time.Duration // as the engine asked; 0: no wish
		Dropped    bool          // the worker or its lease is gone, rather than an error answered
	}
	// Return hands an attempt back that was never sent to its engine, or that its node does not have.
	Return struct {
		Attempt uint32 `json:"attempt"`
		Epoch   uint64 `json:"epoch"`
		Reason  string `json:"reason"`
	}
	// Cancel ends a task that is not final. The answer is the Record; a final task
	// refuses with a Conflict.
	Cancel struct {
		Reason string `json:"reason,omitempty"`
	}
	// TriedAgain tells a failed task as which other one it was tried again. The answer is the Record.
	TriedAgain struct {
		As string `json:"as"`
	}
	// Called is how a try to call back ended. Err nil: acknowledged.
	Called struct {
		Try    int
		Err    error
		Wait   time.Duration // until the next try
		GiveUp bool
	}
)

// Dropped answers a Done or Lost that came too late to count.
type Dropped struct{}

// Accepted answers Submit.
type Accepted struct {
	Version uint64 `json:"version"`
	State   State  `json:"state"`
	Existed bool   `json:"existed,omitempty"`
}

// Callbacks delivers a final task's callback and tells the task by Called. Deliver
// must not block; a delivery that finds no room is dropped, and the task's timer
// repeats it.
type Callbacks interface {
	Deliver(id string, r Record, try int)
}

// callbackGrace is when the durable timer looks after a callback whose first
// delivery follows the commit at once: only a crash in between needs it.
const callbackGrace = 15 * time.Second

// Task is the behaviors of the task kind and what they need.
type Task struct {
	policy    Policy
	callbacks Callbacks
}

// NewKind returns the task kind. callbacks may be nil where nothing calls back.
func NewKind(p Policy, callbacks Callbacks, observe func(entity.Note)) *entity.Kind[Record, Fact] {
	t := &Task{policy: p, callbacks: callbacks}
	decode := func(row []byte) ([]Fact, error) {
		fs, err := DecodeFacts(row)
		for _, f := range fs {
			if f.Event == Newer && f.Skip && observe != nil {
				observe(entity.Note{What: entity.Skipped})
			}
		}
		return fs, err
	}
	return &entity.Kind[Record, Fact]{
		Name:         KindName,
		Apply:        Record.Apply,
		Behave:       t.behavior,
		Enter:        t.enter,
		Index:        index,
		Count:        count,
		Timer:        timer,
		Nap:          true, // a waiting task is a row in an index, not an actor
		Resident:     func(r Record) bool { return r.State == Running },
		EncodeEvents: EncodeFacts,
		DecodeEvents: decode,
		Types:        types,
		Observer:     observe,
	}
}

type context = entity.Context[Record, Fact]

// behavior is a switch from state to method.
func (t *Task) behavior(r Record) entity.Behavior[Record, Fact] {
	switch r.State {
	case None:
		return t.none
	case Pending:
		return t.pending
	case Running:
		return t.running
	default:
		return t.final
	}
}

// none is a task nobody submitted.
func (t *Task) none(c *context) {
	switch m := c.Message().(type) {
	case *Submit:
		c.Commit(Fact{Event: Submitted, At: clock(c), Spec: m.Spec, Model: m.Model, Trace: m.Trace, Line: m.Line, Fair: t.policy.Fair == nil || t.policy.Fair(), Kept: t.policy.kept(m.Spec.Bytes())})
		c.Reply(Accepted{Version: 1, State: Pending})
	case entity.Wake:
	default:
		c.Refuse(fault.New(fault.NotFound, "task", c.ID(), "no such task"))
	}
}

// pending waits for a batch, or for its time.
func (t *Task) pending(c *context) {
	r := c.State()
	switch m := c.Message().(type) {
	case *Submit:
		t.again(c, m)
	case *Claim:
		now := clock(c)
		if t.expired(c, now) {
			return
		}
		if !r.AtOnce && r.NotBefore.After(now) {
			c.Refuse(fault.New(fault.Unavailable, "task.claim", c.ID(), "not before %v", r.NotBefore))
			return
		}
		if err := m.Room.take(c.ID(), &r); err != nil {
			c.Refuse(err)
			return
		}
		t.policy.Budget.Attempt(r.budget(c.ID()), now)
		timeout := t.policy.AttemptTimeout(&r)
		lease := timeout + t.policy.LeaseMargin
		until := now.Add(lease)
		c.Commit(Fact{Event: Claimed, At: now, Attempt: r.Attempt + 1, Epoch: c.Epoch(), Node: m.Node, Boot: m.Boot, Engine: m.Engine, Until: until})
		c.ReplyWith(func(r Record) any {
			return &Work{ID: c.ID(), Attempt: r.Attempt, Epoch: r.Epoch, Lease: until, Left: lease, Timeout: timeout, Record: r}
		})
	case *Cancel:
		c.Commit(Fact{Event: CancelAsked, At: clock(c), Reason: m.Reason})
		c.ReplyWith(record)
	case entity.Wake:
		t.expired(c, clock(c))
	case *Forget:
		t.forget(c, m)
	default:
		t.late(c)
	}
}

// running waits for one attempt. An answer to an older attempt is late, not wrong:
// drop it.
func (t *Task) running(c *context) {
	r := c.State()
	switch m := c.Message().(type) {
	case *Submit:
		t.again(c, m)
	case *Done:
		if m.Attempt != r.Attempt || m.Epoch != r.Epoch {
			t.late(c)
			return
		}
		e := StepDone
		if r.Ends(&m.Answer) {
			e = Answered
		}
		c.Commit(Fact{Event: e, At: clock(c), Attempt: m.Attempt, Answer: &m.Answer, Kept: t.policy.kept(len(m.Answer.Text) + len(m.Answer.Body))})
	case *Lost:
		if m.Attempt != r.Attempt || m.Epoch != r.Epoch {
			t.late(c)
			return
		}
		t.lost(c, m)
	case *Return:
		switch {
		case m.Attempt != r.Attempt || m.Epoch != r.Epoch:
			t.late(c)
		case r.Moves >= t.policy.MovesMax:
			t.lost(c, &Lost{Attempt: m.Attempt, Epoch: m.Epoch, Err: fault.New(fault.Unavailable, "task", c.ID(), "%s", m.Reason)})
		default:
			c.Commit(Fact{Event: Returned, At: clock(c), Attempt: r.Attempt, Reason: m.Reason})
		}
	case *Claim:
		c.Refuse(fault.New(fault.Conflict, "task.claim", c.ID(), "attempt %d holds it", r.Attempt))
	case *Cancel:
		c.Commit(Fact{Event: CancelAsked, At: clock(c), Attempt: r.Attempt, Reason: m.Reason})
		c.ReplyWith(record)
	case entity.Wake:
		t.runningTooLong(c)
	case *Forget:
		t.forget(c, m)
	default:
		t.late(c)
	}
}

// final is for ever. Only the callback goes on.
func (t *Task) final(c *context) {
	r := c.State()
	switch m := c.Message().(type) {
	case *Submit:
		t.again(c, m)
	case *Cancel:
		c.Refuse(fault.New(fault.Conflict, "task.cancel", c.ID(), "it is %v already", r.State))
	case *Claim:
		c.Refuse(fault.New(fault.Conflict, "task.claim", c.ID(), "it is %v", r.State))
	case *Called:
		if r.Callback != CallbackWaiting || m.Try != r.CallbackTries+1 {
			return
		}
		f := Fact{Event: CallbackSent, At: clock(c), Attempt: uint32(m.Try)}
		switch {
		case m.Err != nil && m.GiveUp:
			f.Event, f.Error = CallbackGaveUp, FailureOf(c.ID(), m.Err)
		case m.Err != nil:
			f.Event, f.Error, f.Until = CallbackLost, FailureOf(c.ID(), m.Err), f.At.Add(m.Wait)
		}
		c.Commit(f)
	case *TriedAgain:
		t.triedAgain(c, m)
	case entity.Wake:
		t.call(c)
	case *Forget:
		t.forget(c, m)
	default:
		t.late(c)
	}
}

// again answers a Submit of a task that exists: the same body is harmless.
func (t *Task) again(c *context, m *Submit) {
	r := c.State()
	if r.Spec.Hash() != m.Spec.Hash() || !m.Line.same(r.Line) {
		c.Refuse(fault.New(fault.Conflict, "task.submit", c.ID(), "another body was submitted under this id").
			WithRemedy("use a new task_id, or send the same body to get the same task"))
		return
	}
	c.Reply(Accepted{Version: c.Version(), State: r.State, Existed: true})
}

// late drops what an older attempt, or one under an older owner, still says.
func (t *Task) late(c *context) { c.Reply(Dropped{}) }

func (t *Task) expired(c *context, now time.Time) bool {
	r := c.State()
	if d := r.Spec.Deadline; d == nil || d.After(c.Wall()) {
		return false
	}
	err := fault.New(fault.Timeout, "task", c.ID(), "the deadline %v passed", r.Spec.Deadline.UTC().Format(time.RFC3339))
	c.Commit(Fact{Event: Expired, At: now, Attempt: r.Attempt, Error: FailureOf(c.ID(), err)})
	if _, claim := c.Message().(*Claim); claim {
		c.ReplyWith(func(Record) any { return nil })
	}
	return true
}

func (t *Task) lost(c *context, m *Lost) {
	r := c.State()
	now := clock(c)
	if t.expired(c, now) {
		return
	}
	if p, reason := r.repair(m.Err); p != nil {
		c.Commit(Fact{Event: AttemptFailed, At: now, Attempt: r.Attempt, Error: FailureOf(c.ID(), m.Err), Until: now, Repair: p, Reason: reason, Kept: len(p.Text)})
		return
	}
	kind := fault.KindOf(m.Err)
	if again, wait := t.policy.verdict(&r, kind, m.RetryAfter); again {
		e := AttemptFailed
		if m.Dropped {
			e = LeaseLost
		}
		f := Fact{Event: e, At: now, Attempt: r.Attempt, Error: FailureOf(c.ID(), m.Err)}
		if longer := t.policy.Budget.Retry(r.budget(c.ID()), now, wait); longer > wait {
			wait, f.Reason = longer, "it waits longer than its backoff: the retries of "+r.Lane().plain()+" are over task.retry_percent of its attempts"
		}
		f.Until = now.Add(wait.Truncate(time.Microsecond))
		c.Commit(f)
		return
	}
	f := FailureOf(c.ID(), m.Err)
	if kind.Retryable() {
		f.Remedy = "the attempts are used up: see the task's attempts, raise retry.attempts, and submit it under a new id"
	}
	c.Commit(Fact{Event: Refused, At: now, Attempt: r.Attempt, Error: f})
}

// runningTooLong runs on a lease or deadline that is due, on a new owner's first look, and when a node is
// gone: an attempt lives as long as the process that claimed it, whoever owns the shard.
func (t *Task) runningTooLong(c *context) {
	r, now := c.State(), clock(c)
	gone := r.gone(c.Owner())
	switch {
	case t.expired(c, now):
	case gone != "" && r.Moves < t.policy.MovesMax:
		c.Commit(Fact{Event: OwnerMoved, At: now, Attempt: r.Attempt, Reason: gone})
	case gone != "":
		t.lost(c, &Lost{Attempt: r.Attempt, Epoch: r.Epoch, Dropped: true, Err: fault.New(fault.Unavailable, "task", c.ID(), "%s", gone)})
	case c.Lease(uint64(r.Attempt), r.lease()) <= 0:
		t.lost(c, &Lost{Attempt: r.Attempt, Epoch: r.Epoch, Dropped: true,
			Err: fault.New(fault.Timeout, "task", c.ID(), "no word from engine %s within the lease", r.engine())})
	}
}

// lease is how long the attempt under way may take: as journaled, but without the times of day, since the wall clock may have been
// set since.
func (r *Record) lease() time.Duration {
	if n := len(r.Attempts); n > 0 {
		return r.Lease.Sub(r.Attempts[n-1].ClaimedAt)
	}
	return 0
}

// gone says why the attempt cannot end any more, "" while it can. An attempt without a boot was journaled by
// a program that took every attempt back when the owner changed.
func (r *Record) gone(o *cluster.Owner) string {
	if r.Boot == "" {
		if r.Epoch != o.Epoch() {
			return "the shard's owner changed"
		}
		return ""
	}
	for _, p := range o.Router().Alive() {
		if p.Boot == r.Boot {
			return ""
		}
	}
	return "node " + r.node() + " is gone or was started again"
}

func (r *Record) node() string {
	if n := len(r.Attempts); n > 0 {
		return r.Attempts[n-1].Node
	}
	return ""
}

func (r *Record) engine() string {
	if n := len(r.Attempts); n > 0 {
		return r.Attempts[n-1].Engine
	}
	return ""
}

// enter runs after a commit is durable, and once after recovery.
func (t *Task) enter(c *context) {
	r := c.State()
	switch {
	case r.State == Running:
		c.Lease(uint64(r.Attempt), r.lease()) // a deadline has a row
	case r.State.Final():
		c.NoAlarm()
		if u, ok := r.cutOff(c.ID()); ok && !c.Recovered() && t.policy.Abort != nil {
			t.policy.Abort(u)
		}
		if !c.Recovered() && r.CallbackTries == 0 {
			t.call(c)
		}
	default:
		c.NoAlarm()
	}
}

// budget is whose retries are counted together: a tenant's of a model, so that nobody waits for another's failures.
func (r *Record) budget(id string) string {
	l := r.Lane()
	if l.Endpoint == EndpointTool {
		return tenant.Of(id) + "/" + endpointMark + l.Model
	}
	return tenant.Of(id) + "/" + l.Model
}

// cutOff returns the attempt that ran when the task was ended by somebody else than it, just now.
func (r *Record) cutOff(id string) (u UnderWay, ok bool) {
	if len(r.Attempts) == 0 || r.Boot == "" || !r.UpdatedAt.Equal(r.EndedAt) {
		return u, false
	}
	last := r.Attempts[len(r.Attempts)-1]
	if !last.EndedAt.Equal(r.EndedAt) || last.Outcome != CancelAsked.String() && last.Outcome != Expired.String() {
		return u, false
	}
	u = r.running()
	u.ID = id
	return u, true
}

// call hands the callback over. The timer goes on asking until a try is journaled;
// Callbacks knows which deliveries are under way.
func (t *Task) call(c *context) {
	r := c.State()
	if r.Callback != CallbackWaiting || t.callbacks == nil || r.CallbackNext.After(clock(c)) {
		return
	}
	t.callbacks.Deliver(c.ID(), r, r.CallbackTries+1)
}

// timer is the task's durable timer: what must happen even if nobody asks.
func timer(r Record) time.Time {
	switch {
	case r.State.Final():
		switch {
		case r.Callback == CallbackWaiting && r.CallbackTries == 0:
			return r.EndedAt.Add(callbackGrace)
		case r.Callback == CallbackWaiting:
			return r.CallbackNext
		}
	case r.Spec != nil && r.Spec.Deadline != nil:
		return *r.Spec.Deadline
	}
	return time.Time{}
}

func record(r Record) any { return r }

// clock returns whole microseconds in UTC: what index keys keep, so that a task and
// its rows agree on what is due.
func clock(c *context) time.Time { return c.Now().UTC().Truncate(time.Microsecond) }

// Row format of a task's facts: a version byte, then a JSON array.
const factsVersion = 1

// EncodeFacts makes a journal row.
func EncodeFacts(fs []Fact) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, 256))
	b.WriteByte(factsVersion)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false) // "<" would take six bytes; nobody reads this in a browser
	if err := e.Encode(fs); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// DecodeFacts reads a journal row. A version it does not know is Corrupt: a newer
// program wrote it.
func DecodeFacts(b []byte) (fs []Fact, err error) {
	if len(b) == 0 || b[0] != factsVersion {
		return nil, fault.New(fault.Corrupt, "task.decode", "", "row of an unknown version").WithRemedy("run the program version that wrote it, or a newer one")
	}
	if err := json.Unmarshal(b[1:], &fs); err != nil {
		return nil, fault.New(fault.Corrupt, "task.decode", "", "%w", err)
	}
	return fs, nil
}
