package bank

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TransferKind is the kind of a transfer. Its id is the caller's: the same id and the same Start is one transfer.
const TransferKind = "transfer"

// resend is how long a transfer waits for an account before it repeats itself.
const resend = 500 * time.Millisecond

// Side is an account's part in a transfer.
type Side string

// The sides.
const (
	Out Side = "out" // money leaves the account
	In  Side = "in"  // money comes
)

func (s Side) sign() int64 {
	if s == Out {
		return -1
	}
	return 1
}

// Phase is how far a transfer is.
type Phase string

// The phases; doc.go draws them.
const (
	None       Phase = ""
	Reserving  Phase = "reserving"
	Booking    Phase = "booking"    // decided: the money will move
	Cancelling Phase = "cancelling" // decided: it will not
	Done       Phase = "done"       // final
	Failed     Phase = "failed"     // final
)

// Final tells whether nothing more can happen.
func (p Phase) Final() bool { return p == Done || p == Failed }

// What one may say to a transfer from outside: Start, and Get for its status.
type Start struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Cents int64  `json:"cents"`
}

// Status is what a transfer answers and shows. Start is answered as soon as the transfer is sure to end; watch
// it to hear how.
type Status struct {
	Start
	Phase Phase  `json:"phase"`
	Why   string `json:"why,omitempty"` // cancelling, failed: an account's reason
}

// What an account says to a transfer.
type (
	Held struct {
		Side Side   `json:"side"`
		Hold uint64 `json:"hold"`
	}
	Declined struct {
		Side Side   `json:"side"`
		Why  string `json:"why"`
	}
	Settled struct {
		Side Side   `json:"side"`
		Hold uint64 `json:"hold"`
	}
)

// Transfer is a transfer's state.
type Transfer struct {
	Status
	At  time.Time `json:"at"`
	Out Leg       `json:"out"`
	In  Leg       `json:"in"`
}

// Leg is one account's part.
type Leg struct {
	Hold    uint64 `json:"hold,omitempty"` // the reservation; 0: none yet, or none
	Settled bool   `json:"settled,omitempty"`
}

// Step is a transfer's event.
type Step struct {
	What  string    `json:"what"` // started, held, declined, settled
	Start *Start    `json:"start,omitempty"`
	At    time.Time `json:"at,omitzero"`
	Side  Side      `json:"side,omitempty"`
	Hold  uint64    `json:"hold,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// Transfers describes the kind. Each call returns its own.
func Transfers() *entity.Kind[Transfer, Step] {
	return &entity.Kind[Transfer, Step]{
		Name:   TransferKind,
		Apply:  Transfer.apply,
		Behave: func(t Transfer) entity.Behavior[Transfer, Step] { return t.during() },
		Enter:  drive,
		Timer:  Transfer.due,
		Open:   []string{"Start", "Get"},
		View:   func(t Transfer) any { return t.Status },
		Types: cluster.NewTypes().Add("Start", Start{}).Add("Get", Get{}).Add("Status", Status{}).
			Add("Held", Held{}).Add("Declined", Declined{}).Add("Settled", Settled{}),
	}
}

// Kinds returns both kinds, for node.WithKind.
func Kinds() []cluster.Kind {
	return []cluster.Kind{Accounts().Register(), Transfers().Register()}
}

func (t Transfer) apply(e Step) (Transfer, error) {
	leg := t.leg(e.Side)
	switch {
	case e.What == "started" && t.Phase == None:
		t.Start, t.At, t.Phase = *e.Start, e.At, Reserving
	case e.What == "held" && t.Phase == Reserving:
		leg.Hold = e.Hold
		t = t.with(e.Side, leg)
		if t.Out.Hold != 0 && t.In.Hold != 0 {
			t.Phase = Booking
		}
	case e.What == "declined" && t.Phase == Reserving:
		t.Phase, t.Why = Cancelling, e.Why
		t = t.ended()
	case e.What == "settled" && (t.Phase == Booking || t.Phase == Cancelling):
		leg.Settled = true
		t = t.with(e.Side, leg).ended()
	default:
		return t, fault.New(fault.Corrupt, "bank.transfer", "", "%q in phase %q", e.What, t.Phase)
	}
	return t, nil
}

func (t Transfer) leg(s Side) Leg {
	if s == Out {
		return t.Out
	}
	return t.In
}

func (t Transfer) with(s Side, l Leg) Transfer {
	if s == Out {
		t.Out = l
	} else {
		t.In = l
	}
	return t
}

// ended makes the phase final once no reservation that the transfer knows of is open.
func (t Transfer) ended() Transfer {
	for _, l := range []Leg{t.Out, t.In} {
		if l.Hold != 0 && !l.Settled {
			return t
		}
	}
	if t.Phase == Booking {
		t.Phase = Done
	} else {
		t.Phase = Failed
	}
	return t
}

// due wakes a transfer that is under way wherever it is owned: its actor may be asleep, its node dead.
func (t Transfer) due() time.Time {
	if t.Phase == None || t.Phase.Final() {
		return time.Time{}
	}
	return t.At.Add(2 * resend)
}

func (t Transfer) during() entity.Behavior[Transfer, Step] {
	switch t.Phase {
	case None:
		return start
	case Reserving:
		return reserving
	}
	return decided
}

func start(c *entity.Context[Transfer, Step]) {
	switch m := c.Message().(type) {
	case Start:
		if m.From == m.To || m.From == "" || m.To == "" || len(m.From) > persistence.KeyMax || len(m.To) > persistence.KeyMax {
			c.Refuse(fault.New(fault.Invalid, "bank.transfer", "from", "and to must be two accounts"))
			return
		}
		if m.Cents < 1 || m.Cents > centsMax {
			c.Refuse(fault.New(fault.Invalid, "bank.transfer", "cents", "is %d: 1 to %d", m.Cents, int64(centsMax)))
			return
		}
		c.Commit(Step{What: "started", Start: &m, At: c.Now()})
		c.ReplyWith(status)
	case Get:
		c.Refuse(fault.New(fault.NotFound, "bank.transfer", c.ID(), "there is no such transfer"))
	}
}

func status(t Transfer) any { return t.Status }

// asked answers what comes from outside once there is a transfer.
func asked(c *entity.Context[Transfer, Step]) {
	switch m := c.Message().(type) {
	case Start:
		if m != c.State().Start {
			c.Refuse(fault.New(fault.Conflict, "bank.transfer", c.ID(), "another transfer has this id").WithRemedy("choose another id"))
			return
		}
		c.Reply(c.State().Status)
	case Get:
		c.Reply(c.State().Status)
	}
}

func reserving(c *entity.Context[Transfer, Step]) {
	switch m := c.Message().(type) {
	case Held:
		switch known := c.State().leg(m.Side).Hold; known {
		case 0:
			c.Commit(Step{What: "held", Side: m.Side, Hold: m.Hold})
		case m.Hold: // said twice
		default:
			settle(c, m.Side, m.Hold, false)
		}
	case Declined:
		if c.State().leg(m.Side).Hold == 0 { // else a repeated Reserve was declined: the first one stands
			c.Commit(Step{What: "declined", Side: m.Side, Why: m.Side.what() + ": " + m.Why})
		}
	case entity.Wake:
		drive(c)
	default:
		asked(c)
	}
}

func (s Side) what() string {
	if s == Out {
		return "from"
	}
	return "to"
}

// decided carries the decision to both accounts. A reservation that it was not made for is let go.
func decided(c *entity.Context[Transfer, Step]) {
	t := c.State()
	switch m := c.Message().(type) {
	case Held:
		book := t.leg(m.Side).Hold == m.Hold && (t.Phase == Booking || t.Phase == Done)
		settle(c, m.Side, m.Hold, book)
	case Settled:
		if l := t.leg(m.Side); l.Hold == m.Hold && !l.Settled {
			c.Commit(Step{What: "settled", Side: m.Side})
		}
	case entity.Wake:
		drive(c)
	default:
		asked(c)
	}
}

// drive says what is to be said in a phase: after each commit, after waking up, and again until it is heard.
func drive(c *entity.Context[Transfer, Step]) {
	t := c.State()
	switch t.Phase {
	case Reserving:
		for _, side := range []Side{Out, In} {
			if t.leg(side).Hold == 0 {
				c.Tell(t.account(c.ID(), side), Reserve{Transfer: c.ID(), Side: side, Cents: t.Cents})
			}
		}
	case Booking, Cancelling:
		for _, side := range []Side{Out, In} {
			if l := t.leg(side); l.Hold != 0 && !l.Settled {
				settle(c, side, l.Hold, t.Phase == Booking)
			}
		}
	default:
		c.NoAlarm()
		return
	}
	c.Alarm(resend)
}

func settle(c *entity.Context[Transfer, Step], side Side, hold uint64, book bool) {
	c.Tell(c.State().account(c.ID(), side), Settle{Transfer: c.ID(), Side: side, Hold: hold, Book: book})
}

// account is one side's account, of the tenant whose transfer it is.
func (t Transfer) account(transfer string, s Side) persistence.Key {
	if s == Out {
		return accountKey(tenant.Beside(transfer, t.From))
	}
	return accountKey(tenant.Beside(transfer, t.To))
}

func transferKey(id string) persistence.Key { return persistence.Key{Kind: TransferKind, ID: id} }
