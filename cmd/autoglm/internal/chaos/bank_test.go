package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bank"
)

// when places an op on the clock.
func when(from, to int, o bankOp) *bankOp {
	if o.ID == "" {
		o.ID = "a"
	}
	o.Call, o.Return = time.Duration(from)*time.Millisecond, time.Duration(to)*time.Millisecond
	return &o
}

// told is an op that was answered with an account's state.
func told(v bankVerb, amount int64, version uint64, cents, free int64) bankOp {
	return bankOp{Verb: v, Cents: amount, Outcome: Done, Version: version, Balance: bank.Balance{Open: true, Cents: cents, Free: free}}
}

// moves is a transfer that a client started and saw in a phase.
func moves(v bankVerb, from, to string, cents int64, version uint64, p bank.Phase) bankOp {
	return bankOp{Verb: v, ID: "t", Start: bank.Start{From: from, To: to, Cents: cents}, Outcome: Done, Version: version, Phase: p}
}

func in(id string, o bankOp) bankOp { o.ID = id; return o }

var (
	opened  = told(openAccount, 0, 1, 0, 0)
	paid    = told(deposit, 100, 2, 100, 100)
	noSuch  = bankOp{Verb: getBalance, Outcome: Missing}
	too     = bankOp{Verb: withdraw, Cents: 60, Outcome: Conflict}
	lostPay = bankOp{Verb: deposit, Cents: 100}
)

// TestBankHistories: the judge passes what a correct bank may answer and finds what it must not. Each history goes on from one of an
// account that was opened and got 100 cents.
func TestBankHistories(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []*bankOp
		end  int64
		want string // part of what is wrong; "" for nothing
	}{
		{"nothing more", nil, 100, ""},
		{"a read", []*bankOp{when(10, 11, told(readBalance, 0, 2, 100, 100))}, 100, ""},
		{"opened again", []*bankOp{when(10, 11, told(openAccount, 0, 2, 100, 100))}, 100, ""},
		{"a withdrawal", []*bankOp{when(10, 11, told(withdraw, 30, 3, 70, 70)), when(12, 13, told(getBalance, 0, 3, 70, 70))}, 70, ""},
		{"a lost deposit, read", []*bankOp{when(10, 11, told(getBalance, 0, 2, 0, 0))}, 100, "no one order"},
		{"a lost deposit, at the end", nil, 0, "has 0 cents"},
		{"a doubled deposit, read", []*bankOp{when(10, 11, told(getBalance, 0, 3, 200, 200))}, 100, "no one order"},
		{"a doubled deposit, at the end", nil, 200, "has 200 cents"},
		{"a doubled deposit, then a withdrawal", []*bankOp{when(10, 11, told(withdraw, 150, 4, 50, 50))}, 50, "no one order"},
		{"a stale balance", []*bankOp{when(10, 11, told(deposit, 5, 3, 105, 105)), when(12, 13, told(getBalance, 0, 2, 100, 100))}, 105, "no one order"},
		{"an older balance that was under way", []*bankOp{when(10, 14, told(deposit, 5, 3, 105, 105)), when(12, 13, told(getBalance, 0, 2, 100, 100))}, 105, ""},
		{"an account that was forgotten", []*bankOp{when(10, 11, noSuch)}, 100, "no one order"},
		{"two deposits in one version", []*bankOp{when(10, 15, told(deposit, 5, 3, 105, 105)), when(10, 15, told(deposit, 5, 3, 110, 110))}, 110, "no one order"},
		{"two balances at once", []*bankOp{when(10, 15, told(withdraw, 80, 3, 20, 20)), when(10, 15, told(withdraw, 80, 3, 20, 20))}, -60, "no one order"},
		{"a version that goes back", []*bankOp{when(10, 11, told(getBalance, 0, 5, 100, 100)), when(12, 13, told(getBalance, 0, 4, 100, 100))}, 100, "no one order"},
		{"reserved by nobody", []*bankOp{when(10, 11, told(getBalance, 0, 3, 100, 90))}, 100, "no one order"},
		{"refused for nothing", []*bankOp{when(10, 11, too)}, 100, "no one order"},
		{"refused rightly", []*bankOp{when(10, 11, told(withdraw, 50, 3, 50, 50)), when(12, 13, too)}, 50, ""},
		{"no answer, and never found out", []*bankOp{when(10, 11, lostPay)}, 200, "not told"},
		{"no answer, and it happened at once", []*bankOp{when(10, 30, told(deposit, 5, 3, 105, 105)), when(12, 13, told(getBalance, 0, 3, 105, 105))}, 105, ""},
		{"no answer, and it happened late", []*bankOp{when(10, 30, told(deposit, 5, 3, 105, 105)), when(12, 13, told(getBalance, 0, 2, 100, 100))}, 105, ""},
		{"no answer, it happened, and is lost", []*bankOp{when(10, 30, told(deposit, 5, 3, 105, 105)), when(12, 13, told(getBalance, 0, 3, 105, 105)),
			when(14, 15, told(getBalance, 0, 3, 100, 100))}, 105, "no one order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops := append([]*bankOp{when(0, 1, noSuch), when(2, 3, opened), when(4, 5, paid)}, c.ops...)
			bad := checkBank(ops, bankEnds{accounts: map[string]bank.Balance{"a": {Open: true, Cents: c.end, Free: c.end}}}, 10*time.Second)
			finds(t, bad, c.want)
		})
	}
}

func finds(t *testing.T, bad []Violation, want string) {
	t.Helper()
	if want == "" {
		require.Empty(t, bad)
		return
	}
	all := ""
	for _, v := range bad {
		all += v.String() + "\n"
	}
	require.Contains(t, all, want)
}

// TestBankTransfers: money between accounts. Both are opened, and a has 100 cents.
func TestBankTransfers(t *testing.T) {
	begun := when(10, 11, moves(startTransfer, "a", "b", 30, 1, bank.Reserving))
	look := func(from, to int, version uint64, p bank.Phase) *bankOp {
		return when(from, to, moves(getTransfer, "", "", 0, version, p))
	}
	done := look(20, 21, 5, bank.Done)
	bal := func(from int, id string, version uint64, cents, free int64) *bankOp {
		return when(from, from+1, in(id, told(getBalance, 0, version, cents, free)))
	}
	for _, c := range []struct {
		name  string
		ops   []*bankOp
		phase bank.Phase
		a, b  int64
		want  string
	}{
		{"done", []*bankOp{begun, bal(12, "a", 3, 100, 70), bal(14, "a", 4, 70, 70), bal(16, "b", 1, 0, 0), done, bal(22, "a", 4, 70, 70), bal(22, "b", 3, 30, 30)}, bank.Done, 70, 30, ""},
		{"cancelled", []*bankOp{begun, bal(12, "a", 3, 100, 70), look(20, 21, 4, bank.Failed), bal(22, "a", 4, 100, 100)}, bank.Failed, 100, 0, ""},
		{"half of it", []*bankOp{begun, done}, bank.Done, 70, 0, "b: has 0 cents"},
		{"half of it, to everybody's loss", []*bankOp{begun, done}, bank.Done, 70, 0, "all accounts together have 70 cents: 100"},
		{"twice", []*bankOp{begun, done}, bank.Done, 40, 60, "a: has 40 cents"},
		{"cancelled, and the money moved", []*bankOp{begun, look(20, 21, 4, bank.Failed)}, bank.Failed, 70, 30, "has 70 cents"},
		{"done, and an old balance", []*bankOp{begun, done, bal(22, "a", 3, 100, 70)}, bank.Done, 70, 30, "no one order"},
		{"done before it was asked for", []*bankOp{bal(8, "a", 4, 70, 70), begun, done}, bank.Done, 70, 30, "no one order"},
		{"more reserved than asked for", []*bankOp{begun, bal(12, "a", 3, 100, 69), done}, bank.Done, 70, 30, "no one order"},
		{"never ended", []*bankOp{begun}, bank.Booking, 100, 0, "never ended"},
		{"never begun", []*bankOp{when(10, 11, bankOp{Verb: startTransfer, ID: "t", Start: begun.Start})}, bank.None, 100, 0, "not told"},
		{"forgotten", []*bankOp{begun, when(12, 13, bankOp{Verb: getTransfer, ID: "t", Outcome: Missing})}, bank.Done, 70, 30, "t: no one order"},
		{"two ends", []*bankOp{begun, done, look(22, 23, 6, bank.Failed)}, bank.Done, 70, 30, "t: no one order"},
		{"booked, then cancelled", []*bankOp{begun, look(12, 13, 3, bank.Booking), look(14, 15, 4, bank.Cancelling)}, bank.Failed, 100, 0, "t: no one order"},
		{"two phases of one version", []*bankOp{begun, look(12, 13, 3, bank.Booking), look(12, 13, 3, bank.Cancelling)}, bank.Done, 70, 30, "t: no one order"},
		{"a start that was answered late", []*bankOp{when(10, 30, moves(startTransfer, "a", "b", 30, 5, bank.Done)), look(12, 13, 3, bank.Booking), look(31, 32, 5, bank.Done)}, bank.Done, 70, 30, ""},
		{"a start that was answered late, and too early", []*bankOp{when(10, 30, moves(startTransfer, "a", "b", 30, 1, bank.Reserving)), look(8, 9, 3, bank.Booking), done}, bank.Done, 70, 30, "t: no one order"},
		{"a start that shows what was before", []*bankOp{begun, done, when(22, 23, moves(startTransfer, "a", "b", 30, 3, bank.Booking))}, bank.Done, 70, 30, "t: no one order"},
		{"back", []*bankOp{begun, done, look(22, 23, 3, bank.Booking)}, bank.Done, 70, 30, "t: no one order"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops := append([]*bankOp{when(0, 1, opened), when(0, 1, in("b", opened)), when(4, 5, paid)}, c.ops...)
			ends := bankEnds{transfers: map[string]bank.Phase{"t": c.phase},
				accounts: map[string]bank.Balance{"a": {Open: true, Cents: c.a, Free: c.a}, "b": {Open: true, Cents: c.b, Free: c.b}}}
			finds(t, checkBank(ops, ends, 10*time.Second), c.want)
		})
	}
}

func TestReservedForEver(t *testing.T) {
	finds(t, checkBank([]*bankOp{when(0, 1, opened), when(2, 3, paid)}, bankEnds{accounts: map[string]bank.Balance{"a": {Open: true, Cents: 100, Free: 60}}}, time.Second),
		"40 of its 100 cents are reserved for ever")
	finds(t, checkBank([]*bankOp{when(0, 1, opened)}, bankEnds{}, time.Second), "not read at the end")
}
