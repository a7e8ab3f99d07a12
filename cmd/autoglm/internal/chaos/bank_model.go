package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/open-autoglm/autoglm/actors/bank"
)

// money is what a sequence of ops tells about one account. Transfers reserve on it, and let go, at times that no client sees:
// each is a version, so version is a bound. What is there is known exactly, for money moves only in deposits, withdrawals
// and transfers that are done, each of them one op.
type money struct {
	open    bool
	version uint64 // at least
	cents   int64
	free    int64 // at version, where shown
	shown   bool  // version and free are what a client was told, not bounds
}

// after is the account after a change that nobody saw.
func (m money) after(cents int64) money {
	m.version, m.cents, m.shown = m.version+1, m.cents+cents, false
	return m
}

// saw takes in what a client was told, once the cents are as the ops before it make them. reserved is the most that transfers can hold back.
func (m money) saw(o *bankOp, reserved int64) (bool, money) {
	b := o.Balance
	switch {
	case !m.open, !b.Open, o.Version < m.version, b.Cents != m.cents, b.Free < 0, b.Free > b.Cents, b.Cents-b.Free > reserved:
		return false, m
	case o.Version == m.version && m.shown && b.Free != m.free: // a version is one state
		return false, m
	}
	m.version, m.free, m.shown = o.Version, b.Free, true
	return true, m
}

// accountOp is a bankOp with what the model must know of the transfers around it.
type accountOp struct {
	*bankOp
	reserved int64 // the most that transfers may have reserved when it was answered
}

// accountStep tells whether an op may follow what is known, and what is known after it.
func accountStep(m money, o accountOp) (bool, money) {
	cents := o.Cents
	if o.Verb == withdraw {
		cents = -cents
	}
	switch o.Outcome {
	case Unknown: // if it never happened it is the last op of all
		if o.Verb == openAccount && !m.open {
			m.open = true
			return true, m.after(0)
		}
		if (o.Verb == deposit || o.Verb == withdraw) && m.open && m.cents+cents >= 0 {
			return true, m.after(cents)
		}
		return true, m
	case Missing:
		return o.Verb != openAccount && o.Verb != booked && !m.open, m
	case Conflict:
		return o.Verb == withdraw && m.open && m.cents-o.reserved < o.Cents, m
	case Done:
		switch o.Verb {
		case openAccount:
			if !m.open {
				m.open = true
				m = m.after(0)
			}
			return m.saw(o.bankOp, o.reserved)
		case deposit, withdraw: // it is a version of its own
			return m.after(cents).saw(o.bankOp, o.reserved)
		case getBalance, readBalance:
			return m.saw(o.bankOp, o.reserved)
		case booked:
			return m.open && m.cents+cents >= 0, m.after(cents)
		}
	}
	return false, m
}

// course is what a sequence of ops tells about one transfer.
type course struct {
	phase   bank.Phase
	version uint64
}

func courseStep(c course, o *bankOp) (bool, course) {
	switch {
	case o.Verb == startTransfer && (o.Outcome == Unknown || o.Outcome == Done): // its answer is an op of its own: see apart
		if c.phase == bank.None {
			c = course{bank.Reserving, 1}
		}
		return true, c
	case o.Verb == getTransfer && o.Outcome == Missing:
		return c.phase == bank.None, c
	case o.Verb != getTransfer || o.Outcome != Done:
		return false, c
	}
	ok := o.Version > c.version && leads(c.phase, o.Phase) || o.Version == c.version && o.Phase == c.phase
	return ok, course{o.Phase, o.Version}
}

// leads tells whether a transfer in one phase may be seen in the other later.
func leads(from, to bank.Phase) bool {
	switch from {
	case bank.Reserving:
		return to != bank.None
	case bank.Booking:
		return to == bank.Booking || to == bank.Done
	case bank.Cancelling:
		return to == bank.Cancelling || to == bank.Failed
	}
	return false // none, or final: there is no later version
}

// checkBank judges all accounts and transfers, each by what its clients were told, and the money by what there is in the end.
func checkBank(ops []*bankOp, ends bankEnds, patience time.Duration) (bad []Violation) {
	accounts, transfers := map[string][]*bankOp{}, map[string][]*bankOp{}
	for _, o := range ops {
		if o.ofTransfer() {
			transfers[o.ID] = append(transfers[o.ID], o)
		} else {
			accounts[o.ID] = append(accounts[o.ID], o)
		}
	}
	starts := map[string][]*bankOp{} // by the account that pays
	for _, id := range slices.Sorted(maps.Keys(transfers)) {
		mine := transfers[id]
		if what := porcupined(model(course{}, courseStep), apart(mine), func(o *bankOp) *bankOp { return o }, patience); what != "" {
			bad = append(bad, Violation{id, what, describeBank(mine)})
		}
		phase, read := ends.transfers[id]
		if !read || phase != bank.None && !phase.Final() {
			bad = append(bad, Violation{id, fmt.Sprintf("the transfer never ended: it is %q", phase), describeBank(mine)})
		}
		for _, o := range mine {
			if o.Verb != startTransfer {
				continue
			}
			if o.Outcome == Unknown && phase == bank.None { // it may begin yet
				bad = append(bad, Violation{id, "was not told what became of its start, although everything was healed", describeBank(mine)})
			}
			starts[o.Start.From] = append(starts[o.Start.From], o)
			if phase == bank.Done {
				out := &bankOp{Verb: booked, ID: o.Start.From, Request: id, Cents: -o.Start.Cents, Call: o.Call, Return: doneAt(mine), Outcome: Done, Detail: id}
				in := *out
				in.ID, in.Cents = o.Start.To, o.Start.Cents
				accounts[out.ID], accounts[in.ID] = append(accounts[out.ID], out), append(accounts[in.ID], &in)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(accounts)) {
		mine := accounts[id]
		around := func(o *bankOp) accountOp {
			a := accountOp{bankOp: o}
			for _, s := range starts[id] {
				if s.Call < o.Return { // also when it is over: a message that comes late reserves once more, until it is told
					a.reserved += s.Start.Cents
				}
			}
			return a
		}
		if what := porcupined(model(money{}, accountStep), mine, around, patience); what != "" {
			bad = append(bad, Violation{id, what, describeBank(mine)})
		}
	}
	return append(bad, audit(accounts, ends)...)
}

// apart makes two ops of a start: that it happened, and what its answer showed. A transfer remembers no requests, so a
// start that is sent again is answered with how far the first one has come.
func apart(ops []*bankOp) (all []*bankOp) {
	for _, o := range ops {
		all = append(all, o)
		if o.Verb == startTransfer && o.Outcome == Done {
			shown := *o
			shown.Verb = getTransfer
			all = append(all, &shown)
		}
	}
	return all
}

// doneAt is when a client first knew that both accounts had booked a transfer.
func doneAt(ops []*bankOp) time.Duration {
	first := time.Duration(math.MaxInt64)
	for _, o := range ops {
		if o.Outcome == Done && o.Phase == bank.Done {
			first = min(first, o.Return)
		}
	}
	return first
}

// audit compares what is there with what came and went: account by account, and all together.
func audit(accounts map[string][]*bankOp, ends bankEnds) (bad []Violation) {
	var total, paid int64
	open := false // some ops are unknown for ever: the total is then not
	for _, id := range slices.Sorted(maps.Keys(accounts)) {
		var want int64
		for _, o := range accounts[id] {
			if o.Outcome == Unknown && o.changes() {
				open = true
				bad = append(bad, Violation{id, "was not told what became of a request, although everything was healed", describeBank([]*bankOp{o})})
			}
			if o.Outcome != Done {
				continue
			}
			switch o.Verb {
			case deposit:
				want, paid = want+o.Cents, paid+o.Cents
			case withdraw:
				want, paid = want-o.Cents, paid-o.Cents
			case booked:
				want += o.Cents
			}
		}
		end, read := ends.accounts[id]
		switch {
		case !read:
			bad = append(bad, Violation{id, "was not read at the end", ""})
		case end.Cents != want:
			bad = append(bad, Violation{id, fmt.Sprintf("has %d cents, and its clients' deposits, withdrawals and transfers make %d", end.Cents, want), describeBank(accounts[id])})
		case end.Free != end.Cents:
			bad = append(bad, Violation{id, fmt.Sprintf("%d of its %d cents are reserved for ever", end.Cents-end.Free, end.Cents), describeBank(accounts[id])})
		}
		total += end.Cents
	}
	if total != paid && !open {
		bad = append(bad, Violation{"", fmt.Sprintf("all accounts together have %d cents: %d were paid in and not out", total, paid), ""})
	}
	return bad
}

// model is a step for porcupine.
func model[S comparable, O fmt.Stringer](zero S, step func(S, O) (bool, S)) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return zero },
		Step: func(s, in, _ any) (bool, any) { return step(s.(S), in.(O)) },
	}
}

// porcupined says what is wrong with the ops of one account or transfer; "" for nothing.
func porcupined[O any](m porcupine.Model, ops []*bankOp, input func(*bankOp) O, patience time.Duration) string {
	var history []porcupine.Operation
	for _, o := range ops {
		end := int64(o.Return)
		if o.Outcome == Unknown {
			if !o.changes() {
				continue
			}
			end = math.MaxInt64 // it may happen at any time from its call on
		}
		history = append(history, porcupine.Operation{ClientId: len(history), Input: input(o), Call: int64(o.Call), Return: end})
	}
	switch porcupine.CheckOperationsTimeout(m, history, patience) {
	case porcupine.Illegal:
		return "no one order of its ops explains what clients were told"
	case porcupine.Unknown:
		return fmt.Sprintf("its history of %d ops was not judged in %v", len(history), patience)
	}
	return ""
}

func describeBank(ops []*bankOp) string {
	ops = slices.SortedFunc(slices.Values(ops), func(a, b *bankOp) int { return cmp.Compare(a.Call, b.Call) })
	var b strings.Builder
	for _, o := range ops { // a history is short: accountOps, and a person needs all of it
		fmt.Fprintf(&b, "    %v\n", o)
	}
	return b.String()
}
