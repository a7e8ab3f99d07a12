package quota

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	askWithin   = 2 * time.Second
	idleEvery   = 5 * time.Second // between questions while no tenant has a quota: so late does the first one show
	admitAsks   = 2               // questions for one admission: the first may find that the share is lent elsewhere
	betweenAsk  = 50 * time.Millisecond
	admitWithin = time.Second // and so long goes it on where the quota is not used up, but lent elsewhere, or not lent yet
	warnEvery   = 10          // questions without an answer
)

// Options of a Desk. All are needed.
type Options struct {
	Alone   bool          // no other node may have shares
	Boot    func() string // of this process, as the others know it
	Changed func()        // shares changed: what was held up may go; must not block
	Mono    func() time.Duration
	Log     *slog.Logger
}

// Desk asks for this node's shares, and lends where this node owns the quotas. It is safe for many goroutines.
type Desk struct {
	*Shares
	o      Options
	router *cluster.Router // nil before Start
	lender *lender
	asking chan struct{} // one question at a time: an answer that is late must not overtake a newer one
	asked  atomic.Int64  // time.Duration of the newest question

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewDesk returns a desk that gives nothing out before Start.
func NewDesk(o Options) *Desk {
	d := &Desk{Shares: NewShares(o.Mono), o: o, asking: make(chan struct{}, 1)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Start begins to lend, and to ask. Call it once.
func (d *Desk) Start(r *cluster.Router) {
	d.router = r
	d.lender = newLender(r, d.o.Alone, d.o.Mono)
	r.HandleOwner(opLease, d.lender.serve)
	r.HandleOwner(opSpent, d.lender.spent)
	d.wg.Go(d.run)
}

// Stop ends it. It is safe to call twice.
func (d *Desk) Stop() {
	d.cancel()
	d.wg.Wait()
}

func (d *Desk) run() {
	t := time.NewTimer(0)
	defer t.Stop()
	failed := 0
	for {
		select {
		case <-t.C:
		case <-d.ctx.Done():
			return
		}
		if err := d.ask(d.ctx); err == nil {
			failed = 0
		} else if failed++; failed%warnEvery == 0 && d.ctx.Err() == nil {
			d.o.Log.Warn("the tenants' quotas cannot be asked for: tasks of tenants that have some wait", "tries", failed, "err", err)
		}
		next := askEvery
		if d.idle() {
			next = idleEvery
		}
		t.Reset(next)
	}
}

// ask is one question.
func (d *Desk) ask(ctx context.Context) error {
	select {
	case d.asking <- struct{}{}:
		defer func() { <-d.asking }()
	case <-ctx.Done():
		return fault.New(fault.Timeout, "quota.ask", "", "%w", context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	boot := d.o.Boot()
	if boot == "" {
		return fault.New(fault.Unavailable, "quota.ask", "", "this node is not known to the cluster yet")
	}
	asked := d.o.Mono()
	d.asked.Store(int64(asked))
	q := d.Shares.ask(d.router.Self(), boot)
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var a Answer
	here := false
	out, err := d.router.CallOwner(ctx, d.router.ShardOf(Key), opLease, body, func(ctx context.Context, o *cluster.Owner) (err error) {
		here = true
		a, err = d.lender.lend(ctx, o, q)
		return err
	})
	if err == nil && !here {
		err = json.Unmarshal(out, &a)
	}
	switch {
	case fault.KindOf(err) == fault.Invalid: // a node of the version before: it knows no quotas, and nobody could set one
		d.none()
	case err != nil:
		return err
	default:
		d.heard(asked, a)
	}
	d.o.Changed()
	return nil
}

// Admit takes n new tasks of a tenant in with the bytes that they keep, or with none a file, or refuses them: Overloaded, and backoff.AskedBy says when to come again. A node that has not heard
// of any quota within admitWithin lets them in: they wait all the same until it has.
func (d *Desk) Admit(ctx context.Context, tenant string, priority, n, bytes int) error {
	if !d.limited(tenant) {
		return nil
	}
	again, err := d.admit(tenant, priority, n, bytes)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, admitWithin)
	defer cancel()
	for !d.knows() {
		if d.ask(ctx) != nil && !d.knows() {
			return nil
		}
		again, err = d.admit(tenant, priority, n, bytes)
	}
	if err == nil {
		return nil
	}
	for tries := 0; err != nil && tries < admitAsks; tries++ {
		if d.soon() && d.ask(ctx) == nil { // there may be a share for who asks
			again, err = d.admit(tenant, priority, n, bytes)
		}
	}
	for errors.Is(err, errLater) && d.askNext(ctx) == nil { // at most each betweenAsk
		again, err = d.admit(tenant, priority, n, bytes)
	}
	return backoff.Asked(err, again)
}

// askNext asks as soon as another question may be, or leaves it to who does meanwhile.
func (d *Desk) askNext(ctx context.Context) error {
	if !cluster.Sleep(ctx, betweenAsk) {
		return context.Cause(ctx)
	}
	if !d.soon() {
		return nil
	}
	return d.ask(ctx)
}

// Spent is what tenants have used up of what they may have in a minute.
func (d *Desk) Spent(ctx context.Context) (all map[string]Spent, err error) {
	here := false
	out, err := d.router.CallOwner(ctx, d.router.ShardOf(Key), opSpent, []byte("{}"), func(_ context.Context, o *cluster.Owner) (err error) {
		here = true
		all, err = d.lender.spentHere(o)
		return err
	})
	if err == nil && !here {
		err = json.Unmarshal(out, &all)
	}
	if fault.KindOf(err) == fault.Invalid { // a node of the version before lends
		return nil, nil
	}
	return all, err
}

// soon tells whether another question may be asked already.
func (d *Desk) soon() bool { return d.o.Mono()-time.Duration(d.asked.Load()) >= betweenAsk }
