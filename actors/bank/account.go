package bank

import (
	"fmt"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// AccountKind is the kind of an account.
const AccountKind = "account"

const (
	centsMax  = 1 << 53         // of an account: more is no exact number in JSON everywhere
	holdsMax  = 256             // reservations of one account at a time
	holdCheck = 2 * time.Second // a reservation as old as this asks its transfer what became of it
	requests  = 1024            // remembered by an account
)

// What one may say to an account from outside.
type (
	Open    struct{} // opens it; harmless when it is open
	Deposit struct {
		Cents int64 `json:"cents"`
	} // 1 or more
	Withdraw struct {
		Cents int64 `json:"cents"`
	} // refused with a conflict when more than is free
	Get struct{} // the balance
)

// Balance is what an account answers and shows.
type Balance struct {
	Open  bool  `json:"open"`
	Cents int64 `json:"cents"` // all that is there
	Free  int64 `json:"free"`  // without what transfers under way have reserved
}

// What a transfer says to an account.
type (
	Reserve struct { // answered with Held or Declined
		Transfer string `json:"transfer"`
		Side     Side   `json:"side"`
		Cents    int64  `json:"cents"`
	}
	Settle struct { // answered with Settled
		Transfer string `json:"transfer"`
		Side     Side   `json:"side"`
		Hold     uint64 `json:"hold"`
		Book     bool   `json:"book"` // move the money; else let it go
	}
)

// Account is an account's state. 0 <= Cents <= centsMax, also after all Holds are settled, in whatever way.
type Account struct {
	Opened bool   `json:"opened,omitempty"`
	Cents  int64  `json:"cents,omitempty"` // reserved money included
	Holds  []Hold `json:"holds,omitempty"` // oldest first
}

// Hold is a reservation.
type Hold struct {
	Number   uint64    `json:"number"` // the version of the account that made it
	Transfer string    `json:"transfer"`
	Side     Side      `json:"side"`
	Cents    int64     `json:"cents"`
	At       time.Time `json:"at"`
}

// Entry is an account's event.
type Entry struct {
	What  string `json:"what"`            // opened, moved, held, declined, settled
	Cents int64  `json:"cents,omitempty"` // moved: what came, negative what went
	Hold  *Hold  `json:"hold,omitempty"`  // held
	Ended uint64 `json:"ended,omitempty"` // settled: the number of the reservation
	Book  bool   `json:"book,omitempty"`  // settled: the money moved
}

// Accounts describes the kind. Each call returns its own.
func Accounts() *entity.Kind[Account, Entry] {
	return &entity.Kind[Account, Entry]{
		Name:          AccountKind,
		Apply:         Account.apply,
		Behave:        func(Account) entity.Behavior[Account, Entry] { return serve },
		Enter:         tellTransfer,
		Timer:         Account.check,
		SnapshotEvery: 256,
		Dedupe:        requests,
		Open:          []string{"Open", "Deposit", "Withdraw", "Get"},
		View:          func(a Account) any { return a.balance() },
		Types: cluster.NewTypes().Add("Open", Open{}).Add("Deposit", Deposit{}).Add("Withdraw", Withdraw{}).Add("Get", Get{}).
			Add("Balance", Balance{}).Add("Reserve", Reserve{}).Add("Settle", Settle{}),
	}
}

func (a Account) apply(e Entry) (Account, error) {
	switch e.What {
	case "opened":
		a.Opened = true
	case "moved":
		a.Cents += e.Cents
	case "held":
		a.Holds = append(slices.Clip(a.Holds), *e.Hold)
	case "declined": // nothing changed; it is an event so that only the account's true owner can say it
	case "settled":
		i := a.hold(func(h Hold) bool { return h.Number == e.Ended })
		if i < 0 {
			return a, fault.New(fault.Corrupt, "bank.account", "", "there is no reservation %d", e.Ended)
		}
		if h := a.Holds[i]; e.Book {
			a.Cents += h.Side.sign() * h.Cents
		}
		a.Holds = slices.Delete(slices.Clone(a.Holds), i, i+1)
	default:
		return a, fault.New(fault.Corrupt, "bank.account", "", "%q is no event", e.What)
	}
	return a, nil
}

func (a Account) hold(f func(Hold) bool) int { return slices.IndexFunc(a.Holds, f) }

func (a Account) reserved(side Side) (cents int64) {
	for _, h := range a.Holds {
		if h.Side == side {
			cents += h.Cents
		}
	}
	return cents
}

func (a Account) balance() Balance {
	return Balance{Open: a.Opened, Cents: a.Cents, Free: a.Cents - a.reserved(Out)}
}

// takes says why so many cents cannot come or go; "" when they can.
func (a Account) takes(side Side, cents int64) string {
	switch {
	case !a.Opened:
		return "the account is not open"
	case cents < 1 || cents > centsMax:
		return fmt.Sprintf("%d is no amount: 1 to %d cents", cents, int64(centsMax))
	case side == Out && cents > a.balance().Free:
		return fmt.Sprintf("%d cents are free, not %d", a.balance().Free, cents)
	case side == In && a.Cents+a.reserved(In)+cents > centsMax:
		return "the account would hold too much"
	}
	return ""
}

// check is when to ask what became of the oldest reservation.
func (a Account) check() time.Time {
	if len(a.Holds) == 0 {
		return time.Time{}
	}
	return a.Holds[0].At.Add(holdCheck)
}

func serve(c *entity.Context[Account, Entry]) {
	a := c.State()
	switch m := c.Message().(type) {
	case Open:
		if !a.Opened {
			c.Commit(Entry{What: "opened"})
		}
		c.ReplyWith(answer)
	case Deposit:
		move(c, In, m.Cents)
	case Withdraw:
		move(c, Out, m.Cents)
	case Get:
		if !a.Opened {
			c.Refuse(fault.New(fault.NotFound, "bank.account", c.ID(), "there is no such account"))
			return
		}
		c.Reply(a.balance())
	case Reserve:
		switch {
		case a.hold(m.made) >= 0:
			tellTransfer(c) // it did not hear
		case a.refusal(m) != "":
			c.Commit(Entry{What: "declined"})
		default:
			c.Commit(Entry{What: "held", Hold: &Hold{Number: c.Version() + 1, Transfer: m.Transfer, Side: m.Side, Cents: m.Cents, At: c.Now()}})
		}
	case Settle:
		switch {
		case m.Hold > c.Version(): // a newer owner made it: this one has been replaced
		case a.hold(m.of) >= 0:
			c.Commit(Entry{What: "settled", Ended: m.Hold, Book: m.Book})
		default:
			tellTransfer(c) // it did not hear
		}
	case entity.Wake:
		for _, h := range a.Holds {
			if !h.At.Add(holdCheck).After(c.Now()) {
				c.Tell(transferKey(h.Transfer), Held{Side: h.Side, Hold: h.Number})
			}
		}
	}
}

func (m Reserve) made(h Hold) bool { return h.Transfer == m.Transfer && h.Side == m.Side }

func (m Settle) of(h Hold) bool {
	return h.Number == m.Hold && h.Transfer == m.Transfer && h.Side == m.Side
}

// refusal says why a reservation cannot be made; "" when it can.
func (a Account) refusal(m Reserve) string {
	if len(a.Holds) >= holdsMax {
		return fmt.Sprintf("holdsMax of %d transfers are under way", holdsMax)
	}
	return a.takes(m.Side, m.Cents)
}

func move(c *entity.Context[Account, Entry], side Side, cents int64) {
	a := c.State()
	why := a.takes(side, cents)
	switch {
	case why == "":
		c.Commit(Entry{What: "moved", Cents: side.sign() * cents})
		c.ReplyWith(answer)
	case !a.Opened:
		c.Refuse(fault.New(fault.NotFound, "bank.account", c.ID(), "there is no such account").WithRemedy("send Open first"))
	case cents < 1 || cents > centsMax:
		c.Refuse(fault.New(fault.Invalid, "bank.account", "cents", "%s", why))
	default:
		c.Refuse(fault.New(fault.Conflict, "bank.account", c.ID(), "%s", why))
	}
}

func answer(a Account) any { return a.balance() }

// tellTransfer tells a transfer what its message led to, once that is durable.
func tellTransfer(c *entity.Context[Account, Entry]) {
	a := c.State()
	switch m := c.Message().(type) {
	case Reserve:
		if i := a.hold(m.made); i >= 0 {
			c.Tell(transferKey(m.Transfer), Held{Side: m.Side, Hold: a.Holds[i].Number})
		} else {
			c.Tell(transferKey(m.Transfer), Declined{Side: m.Side, Why: a.refusal(m)})
		}
	case Settle:
		c.Tell(transferKey(m.Transfer), Settled{Side: m.Side, Hold: m.Hold})
	}
}

func accountKey(id string) persistence.Key { return persistence.Key{Kind: AccountKind, ID: id} }
