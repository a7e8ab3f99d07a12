package chaos

import (
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/actors/bank"
)

// bankVerb is what a client of the bank asked for.
type bankVerb uint8

const (
	openAccount bankVerb = iota + 1
	deposit
	withdraw
	getBalance  // asked of the account's actor
	readBalance // the state that its kind shows, which does not wake it
	startTransfer
	getTransfer
	booked // an account's part of a transfer that is done: nobody's call, and it happened once
)

// String returns the verb in lower case.
func (v bankVerb) String() string {
	return [...]string{"?", "open", "deposit", "withdraw", "get", "read", "start", "look", "booked"}[v]
}

// bankOp is one call of a client of the bank and what came of it.
type bankOp struct {
	Client  int
	Verb    bankVerb
	ID      string // of the account or the transfer
	Request string // the id under which it counts once
	Start   bank.Start
	Cents   int64 // of a deposit, a withdrawal; of booked: negative where money leaves

	Call, Return time.Duration
	Outcome      Outcome // Conflict: there is not enough; Missing: no such account, no such transfer
	Version      uint64  // where Outcome is Done
	Balance      bank.Balance
	Phase        bank.Phase
	Detail       string // of Unknown: why
}

// ofTransfer tells what ID names.
func (o *bankOp) ofTransfer() bool { return o.Verb == startTransfer || o.Verb == getTransfer }

// changes tells whether it may have changed anything: then an unknown outcome must be found out at the end.
func (o *bankOp) changes() bool {
	return o.Verb == openAccount || o.Verb == deposit || o.Verb == withdraw || o.Verb == startTransfer
}

// message is what is sent.
func (o *bankOp) message() (typ string, msg any) {
	switch o.Verb {
	case openAccount:
		return "Open", bank.Open{}
	case deposit:
		return "Deposit", bank.Deposit{Cents: o.Cents}
	case withdraw:
		return "Withdraw", bank.Withdraw{Cents: o.Cents}
	case startTransfer:
		return "Start", o.Start
	}
	return "Get", bank.Get{}
}

// String writes an op on a line.
func (o *bankOp) String() string {
	s := fmt.Sprintf("%10.4fs %10.4fs client %d %s %s", o.Call.Seconds(), o.Return.Seconds(), o.Client, o.Verb, o.ID)
	switch o.Verb {
	case deposit, withdraw, booked:
		s += fmt.Sprintf(" %d", o.Cents)
	case startTransfer:
		s += fmt.Sprintf(" %s -> %s %d", o.Start.From, o.Start.To, o.Start.Cents)
	}
	s += ": " + o.Outcome.String()
	if o.Outcome == Done && o.Verb != booked {
		s += fmt.Sprintf(", version %d", o.Version)
		if o.ofTransfer() {
			s += ", " + string(o.Phase)
		} else {
			s += fmt.Sprintf(", %d cents, %d free", o.Balance.Cents, o.Balance.Free)
		}
	}
	if o.Detail != "" {
		s += " (" + o.Detail + ")"
	}
	return s
}

// bankEnds is how everything was after healing, when no transfer was under way any more.
type bankEnds struct {
	transfers map[string]bank.Phase   // None: there is no such transfer
	accounts  map[string]bank.Balance // Open is false: there is no such account
}
