package quota

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// opLease asks the owner of the quotas for shares. The name is for ever; bodies grow by fields only.
const opLease = "quota.lease"

// opSpent asks it what tenants have used up.
const opSpent = "quota.spent"

const (
	lendAfter   = leaseFor + time.Second // of a new owner: shares of the one before are over then
	countWithin = 500 * time.Millisecond // of all shards; where it takes longer, nobody is let in to wait
	namesMax    = 512                    // bytes
)

// lender lends out on the node that owns the quotas. It is safe for many goroutines.
type lender struct {
	router   *cluster.Router
	alone    bool
	mono     func() time.Duration
	shards   int
	counters func(ctx context.Context, shard int) (map[string]int64, error)
	rounds   *rounds
	failed   time.Duration // a count could not be made, last; of the round

	mu     sync.Mutex
	owner  *cluster.Owner // whose ledger it is
	ledger *Ledger
	seq    uint64
}

func newLender(r *cluster.Router, alone bool, mono func() time.Duration) *lender {
	l := &lender{router: r, alone: alone, mono: mono, shards: r.Shards(), counters: r.Counters}
	l.rounds = newRounds(l.count)
	return l
}

// failedFor is how long nobody counts after that: all that ask would wait for it.
const failedFor = 2 * time.Second

func (l *lender) serve(ctx context.Context, from string, o *cluster.Owner, body []byte) ([]byte, error) {
	var q Ask
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fault.New(fault.Invalid, "quota.lend", from, "%w", err)
	}
	q.Node = from
	a, err := l.lend(ctx, o, q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// lend answers one question, as the owner that o is: a node that was replaced as owner and has not noticed must not lend.
func (l *lender) lend(ctx context.Context, o *cluster.Owner, q Ask) (a Answer, err error) {
	if len(q.Boot) > namesMax || len(q.Wants) > TermsMax*(classesMax+1) {
		return a, fault.New(fault.Invalid, "quota.lend", q.Node, "too many accounts, or a name too long")
	}
	book, _, err := kind.Load(o, Key.ID)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin) // others wait for it
	defer cancel()
	tally, leave, err := l.rounds.join(ctx, q.counts())
	if err != nil {
		return a, err
	}
	defer leave()
	c := make(chan error, 1)
	o.Confirm(func(err error) { c <- err })
	select {
	case err = <-c:
	case <-ctx.Done():
		err = fault.New(fault.Timeout, "quota.lend", "", "%w", context.Cause(ctx))
	}
	if err != nil {
		return a, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.mono()
	if l.owner != o {
		after := lendAfter
		if l.alone {
			after = 0
		}
		l.owner, l.ledger, l.seq = o, NewLedger(now, after), 0
	}
	l.seq++
	a = Answer{Seq: o.Epoch()<<32 | l.seq, For: leaseFor}
	a.Shares = l.ledger.Grant(now, a.Seq, q, book.Terms, counted(book, tally), l.alive())
	if book.Version != q.Knows || q.Has == 0 {
		a.Book = &book
	}
	return a, nil
}

// spent answers what tenants have used up of this minute.
func (l *lender) spent(_ context.Context, _ string, o *cluster.Owner, _ []byte) ([]byte, error) {
	all, err := l.spentHere(o)
	if err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

func (l *lender) spentHere(o *cluster.Owner) (map[string]Spent, error) {
	book, _, err := kind.Load(o, Key.ID)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner != o { // nobody has asked it yet
		return nil, nil
	}
	return l.ledger.Spent(l.mono(), book.Terms), nil
}

func (l *lender) alive() map[string]string {
	all := map[string]string{}
	for _, p := range l.router.Alive() {
		all[p.Name] = p.Boot
	}
	if l.alone {
		clear(all) // nobody else has anything
	}
	return all
}

// counts tells whether the node would like what must be counted for it.
func (q *Ask) counts() bool {
	for _, w := range q.Wants {
		if w.Queue > 0 || w.Bytes > 0 {
			return true
		}
	}
	return false
}

// count asks all shards at once what is there; nil when one does not say.
func (l *lender) count() *task.Tally {
	if l.failed > 0 && l.mono()-l.failed < failedFor {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), countWithin)
	defer cancel()
	all, errs := make([]map[string]int64, l.shards), make([]error, l.shards)
	var wg sync.WaitGroup
	for shard := range l.shards {
		wg.Go(func() {
			if all[shard], errs[shard] = l.counters(ctx, shard); errs[shard] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	if errors.Join(errs...) != nil {
		l.failed = l.mono()
		return nil
	}
	t := &task.Tally{}
	for _, c := range all {
		t.Add(c)
	}
	return t
}

// counted is what those with quotas have; nil where nobody counted.
func counted(book Book, t *task.Tally) map[string]Count {
	if t == nil {
		return nil
	}
	n := map[string]Count{}
	for whose := range book.Terms {
		of := t.Of(whose)
		n[whose] = Count{Tasks: int(of[task.Pending] + of[task.Running]), Bytes: int(t.Bytes[whose])}
	}
	return n
}
