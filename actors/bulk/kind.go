package bulk

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of a batch.
const KindName = "batch"

// IndexAll has all batches of a tenant, newest first: ^created id; see tenant.Index. IndexInput has those that are not final, by their input: file 0 id.
const (
	IndexAll   = "batches"
	IndexInput = "batchinput"
)

const snapshotEvery = 32 // rows: a batch reports its progress some times a second, and only the newest counts

// Key is the journal of a batch.
func Key(id string) persistence.Key { return persistence.Key{Kind: KindName, ID: id} }

// NewID makes an id.
func NewID() string { return idPrefix + hexOf(uuid.New()) }

const idPrefix = "batch_"

// IDOf is the id of the batch that is created under an idempotency key: always the same.
func IDOf(key string) string { return idPrefix + derived("batch", key) }

func hexOf(u uuid.UUID) string { return hex.EncodeToString(u[:]) }

// derived makes 128 bits, in hex, out of what something belongs to.
func derived(what, of string) string {
	sum := sha256.Sum256([]byte(what + "\x00" + of))
	return hex.EncodeToString(sum[:16])
}

// Parts of what a batch gives.
const (
	PartOutput = "output" // the lines that completed
	PartErrors = "error"  // the others
)

// FileID is the id of the file of a part, once it has a line.
func FileID(batch, part string) string {
	return tenant.Beside(batch, "file-"+derived("batch "+part, tenant.Bare(batch)))
}

// What one may say to a batch. Each is answered with its State.
type (
	Create struct { // the same one again is harmless
		Header *Header `json:"header"`
	}
	Get    struct{}
	Cancel struct{}
	Pause  struct {
		On bool `json:"on"` // else it goes on
	}
	Prioritize struct {
		Priority task.Priority `json:"priority"`
	}
)

// Report is what a driver found. One that comes twice, or does not fit any more, changes nothing: the answer tells what is.
type Report struct {
	Epoch uint64    `json:"epoch"`          // of the owner that the driver was started by; of another one it is refused with a conflict
	From  *Progress `json:"from,omitempty"` // Progressed: what it follows
	Fact  Fact      `json:"fact"`
}

// Told is how a try to tell a receiver went.
type Told struct {
	Hook   int           `json:"hook"`
	Try    int           `json:"try"`
	Error  *task.Failure `json:"error,omitempty"`
	Wait   time.Duration `json:"wait,omitempty"`
	GiveUp bool          `json:"give_up,omitempty"`
}

// Driver does the work of batches on a node. Its methods do not block.
type Driver interface {
	Ensure(id string, epoch uint64)    // this batch has something to do here, or has changed
	Tell(id string, s State, hook int) // this receiver is to be told, now
	Counted(r Report, s State)         // a report was journaled, and led to this: for metrics
}

// NewKind describes the kind. driver hears from it when a batch has work, at least once every few seconds.
func NewKind(driver Driver) *entity.Kind[State, Fact] {
	b := behavior{driver}
	return &entity.Kind[State, Fact]{
		Name:          KindName,
		Apply:         State.Apply,
		Behave:        func(State) entity.Behavior[State, Fact] { return b.serve },
		Enter:         b.drive,
		Index:         index,
		Timer:         State.wake,
		SnapshotEvery: snapshotEvery,
		Truncate:      true,
		Types: cluster.NewTypes().Add("create", Create{}).Add("get", Get{}).Add("cancel", Cancel{}).Add("pause", Pause{}).
			Add("prioritize", Prioritize{}).Add("report", Report{}).Add("told", Told{}).Add("state", State{}).
			Add("forget", Forget{}).Add("forgotten", Forgotten{}),
	}
}

func index(id string, before, after State) (rows []persistence.Index) {
	if after.Phase == None { // it is erased: final, so that it has one row
		return []persistence.Index{{Name: tenant.Index(IndexAll, tenant.Of(id)), Key: task.AllKey(before.CreatedAt, id), Delete: true}}
	}
	if before.Phase == None {
		rows = append(rows, persistence.Index{Name: tenant.Index(IndexAll, tenant.Of(id)), Key: task.AllKey(after.CreatedAt, id)},
			persistence.Index{Name: IndexInput, Key: inputKey(after.Header.InputFile, id)})
	}
	if after.Phase.Final() && !before.Phase.Final() {
		rows = append(rows, persistence.Index{Name: IndexInput, Key: inputKey(after.Header.InputFile, id), Delete: true})
	}
	return rows
}

func inputKey(file, id string) []byte { return []byte(file + "\x00" + id) }

type behavior struct{ driver Driver }

func (b behavior) serve(c *entity.Context[State, Fact]) {
	s := c.State()
	if s.Phase == None {
		create(c)
		return
	}
	switch m := c.Message().(type) {
	case Create:
		if m.Header == nil || !s.Header.equal(m.Header) {
			c.Refuse(fault.New(fault.Conflict, "bulk.create", c.ID(), "another request was sent under this idempotency key").
				WithRemedy("give each batch a key of its own"))
			return
		}
		c.Reply(s)
	case Get:
		c.Reply(s)
	case Cancel:
		switch {
		case s.Phase == Cancelling || s.Phase == Cancelled:
			c.Reply(s)
		default:
			commit(c, Fact{Event: CancelAsked}, "cancelled")
		}
	case Pause:
		if s.Paused == m.On && !s.Phase.Final() {
			c.Reply(s)
			return
		}
		event, done := Paused, "paused"
		if !m.On {
			event, done = Resumed, "resumed"
		}
		commit(c, Fact{Event: event}, done)
	case Prioritize:
		if err := m.Priority.Check(); err != nil {
			c.Refuse(err)
			return
		}
		commit(c, Fact{Event: Prioritized, Priority: &m.Priority}, "given another priority")
	case Report:
		report(c, m)
	case Told:
		told(c, m)
	case Forget:
		forget(c, m)
	case entity.Wake:
		b.drive(c)
	}
}

func create(c *entity.Context[State, Fact]) {
	switch m := c.Message().(type) {
	case Create:
		if m.Header == nil {
			c.Refuse(fault.New(fault.Invalid, "bulk.create", c.ID(), "there is no header"))
			return
		}
		c.Commit(Fact{Event: Created, At: c.Now(), Header: m.Header})
		c.ReplyWith(answer)
	case entity.Wake: // a timer row that outlived what it was for
	default:
		c.Refuse(noSuch(c.ID()))
	}
}

func noSuch(id string) *fault.Error {
	return fault.New(fault.NotFound, "bulk.batch", id[:min(len(id), 100)], "no such batch")
}

func answer(s State) any { return s }

// commit makes what a client asked for true, or says that it is too late.
func commit(c *entity.Context[State, Fact], f Fact, done string) {
	s := c.State()
	if _, ok := Next(s.Phase, f.Event); !ok {
		c.Refuse(fault.New(fault.Conflict, "bulk.batch", c.ID(), "a batch with status %q cannot be %s", s.Phase.Status(), done))
		return
	}
	f.At = c.Now()
	c.Commit(f)
	c.ReplyWith(answer)
}

// report commits what a driver found, if the driver is the one of this owner and has not said so before.
func report(c *entity.Context[State, Fact], m Report) {
	s := c.State()
	if m.Epoch != c.Epoch() {
		c.Refuse(fault.New(fault.Conflict, "bulk.report", c.ID(), "epoch %d is over, it is %d", m.Epoch, c.Epoch()))
		return
	}
	f := m.Fact
	f.At = c.Now()
	_, ok := Next(s.Phase, f.Event)
	if f.Event == Progressed && ok {
		if f.Progress == nil || m.From == nil {
			c.Refuse(fault.New(fault.Invalid, "bulk.report", c.ID(), "a progress is missing"))
			return
		}
		ok = !f.Progress.same(&s.Progress)
		if ok && !m.From.same(&s.Progress) {
			c.Refuse(fault.New(fault.Conflict, "bulk.report", c.ID(), "it follows a progress that is out of date"))
			return
		}
	}
	if !ok {
		c.Reply(s)
		return
	}
	c.Commit(f)
	c.ReplyWith(answer)
}

func told(c *entity.Context[State, Fact], m Told) {
	s := c.State()
	if !s.Phase.Final() || m.Hook < 0 || m.Hook >= len(s.Hooks) || s.Hooks[m.Hook].Done || s.Hooks[m.Hook].Tries >= m.Try {
		c.Reply(s)
		return
	}
	f := Fact{Event: HookSent, At: c.Now(), Hook: m.Hook, Try: m.Try, Failure: m.Error}
	switch {
	case m.Error == nil:
	case m.GiveUp:
		f.Event = HookGaveUp
	default:
		f.Event, f.Until = HookLost, c.Now().Add(m.Wait)
	}
	c.Commit(f)
	c.ReplyWith(answer)
}

// drive starts what is to be done in a state: after each commit, after waking up, and again until it is done.
func (b behavior) drive(c *entity.Context[State, Fact]) {
	s := c.State()
	if r, ok := c.Message().(Report); ok && !c.Recovered() {
		b.driver.Counted(r, s)
	}
	if s.busy() {
		if _, driven := c.Message().(Report); !driven || c.Recovered() { // a driver knows what it said
			b.driver.Ensure(c.ID(), c.Epoch())
		}
		return
	}
	for i, h := range s.Hooks {
		if !h.Done && !h.Next.After(c.Now()) {
			b.driver.Tell(c.ID(), s, i)
		}
	}
}

// IsLine tells whether a task's id is one that a batch gives: those are not for others.
func IsLine(id string) bool {
	rest, ok := strings.CutPrefix(id, idPrefix)
	batch, number, ok2 := strings.Cut(rest, "-")
	if !ok || !ok2 || len(batch) != 32 || number == "" {
		return false
	}
	return strings.Trim(batch, "0123456789abcdef") == "" && strings.Trim(number, "0123456789") == ""
}
