package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/bank"
)

// BankReport is what RunBank found. Tasks and Ends of the Report stay empty.
type BankReport struct {
	Report
	Accounts  int
	Transfers map[bank.Phase]int // by how they ended; none: never begun
	Paid      int64              // cents, in and not out
	Again     int                // requests that got no answer while things broke, and were asked again at the end
}

// String is the report in some lines.
func (r *BankReport) String() string {
	return fmt.Sprintf("seed %d: %d faults, %d ops %v on %d accounts, %d requests asked again at the end, %d cents paid in and not out, transfers ended as %v\n",
		r.Seed, len(r.Rounds), r.Ops, r.Outcomes, r.Accounts, r.Again, r.Paid, r.Transfers) + r.rounds()
}

// RunBank is Run with clients of actors/bank instead of tasks: the binary is one that was built with -tags bank. What
// is judged: each account as one that counts a request once and shows no old balance; each transfer, that it ends, in one way;
// and all the money there is.
func RunBank(ctx context.Context, o Options) (*BankReport, error) {
	r, order, err := form(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	load, err := newBankLoad(r.peers(), r.o.Clients, r.o.Think, r.o.Seed)
	if err != nil {
		return nil, err
	}
	defer load.close()
	load.start()
	defer load.Stop()
	report := &BankReport{Transfers: map[bank.Phase]int{}}
	if err := r.breakAll(ctx, order); err != nil {
		return nil, err
	}
	load.Stop()
	for _, o := range load.ops {
		if o.Outcome == Unknown && o.changes() {
			report.Again++
		}
	}
	ends := load.finish(ctx, r.o.EndMax, r.wrong)
	r.judgeBank(load, ends)
	report.Report = *r.report
	report.Accounts = len(ends.accounts)
	for _, phase := range ends.transfers {
		if phase == bank.None {
			phase = "none"
		}
		report.Transfers[phase]++
	}
	for _, b := range ends.accounts {
		report.Paid += b.Cents
	}
	return report, ctx.Err()
}

func (r *runner) judgeBank(b *bankLoad, ends bankEnds) {
	r.report.Ops = len(b.ops)
	for _, o := range b.ops {
		r.report.Outcomes[o.Verb.String()+" "+o.Outcome.String()]++
	}
	for _, w := range b.wrong {
		r.wrong("", "%s", w)
	}
	r.report.Violations = append(r.report.Violations, checkBank(b.ops, ends, r.o.JudgeMax)...)
	var all strings.Builder
	for _, o := range b.ops {
		fmt.Fprintln(&all, o)
	}
	if err := os.WriteFile(filepath.Join(r.o.Dir, historyFile), []byte(all.String()), 0o644); err != nil {
		r.o.Log("the history is not kept: %v", err)
	}
}

// finish finds out, in limit for all together, what became of everything: requests without an answer are asked again under
// their ids, transfers are waited for, accounts are read. Clients have stopped.
func (b *bankLoad) finish(ctx context.Context, limit time.Duration, wrong func(id, format string, args ...any)) bankEnds {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ends := bankEnds{transfers: map[string]bank.Phase{}, accounts: map[string]bank.Balance{}}
	var open, last []*bankOp
	accounts := map[string]bool{}
	for _, o := range b.ops {
		if o.Outcome == Unknown && o.changes() {
			open = append(open, o)
		}
		switch {
		case o.Verb == startTransfer:
			last = append(last, &bankOp{Client: -1, Verb: getTransfer, ID: o.ID})
		case !o.ofTransfer():
			accounts[o.ID] = true
		}
	}
	b.each(ctx, open, wrong, func(*bankOp) bool { return true })
	b.each(ctx, last, wrong, func(o *bankOp) bool { return o.Outcome == Missing || o.Phase.Final() })
	for _, o := range last {
		if o.Outcome != Unknown {
			ends.transfers[o.ID] = o.Phase
		}
	}
	b.ops = append(b.ops, last...)
	last = nil
	for id := range accounts {
		last = append(last, &bankOp{Client: -1, Verb: getBalance, ID: id})
	}
	// A message that came late may have reserved once more: it is let go in seconds.
	b.each(ctx, last, wrong, func(o *bankOp) bool { return o.Outcome == Missing || o.Balance.Free == o.Balance.Cents })
	for _, o := range last {
		if o.Outcome != Unknown {
			ends.accounts[o.ID] = o.Balance
		}
	}
	b.ops = append(b.ops, last...)
	return ends
}

// each asks every op, through one client after the other, until it has an answer that is enough or ctx ends.
func (b *bankLoad) each(ctx context.Context, ops []*bankOp, wrong func(id, format string, args ...any), enough func(*bankOp) bool) {
	var mu sync.Mutex
	todo := make(chan *bankOp)
	var wg sync.WaitGroup
	for k := range finalReaders {
		wg.Go(func() {
			for o := range todo {
				if err := b.settle(ctx, k, o, enough); err != nil {
					mu.Lock()
					wrong(o.ID, "%v: %v", o, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, o := range ops {
		todo <- o
	}
	close(todo)
	wg.Wait()
}

// settle asks one op. Each look is an op that begins anew, while a request keeps the time when it was first sent.
func (b *bankLoad) settle(ctx context.Context, k int, o *bankOp, enough func(*bankOp) bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if !o.changes() {
			o.Call = 0
		}
		if err := b.ask(ctx, b.any[k%len(b.any)], o); err != nil {
			return err
		}
		if o.Outcome != Unknown && enough(o) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("that is not enough, and time is up")
		case <-tick.C:
		}
	}
}
