package callback

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
)

// recordWithin is how long the outcome of a try may take to be journaled.
const recordWithin = 30 * time.Second

// Asker tells a task how its callback went and waits until that is journaled;
// *cluster.Router is one.
type Asker interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
}

// Dispatcher is the task.Callbacks of a node: it delivers side by side, each
// (task, try) once at a time, and reports each outcome to its task. The task, not the
// dispatcher, remembers what is due: nothing is kept here over a crash.
type Dispatcher struct {
	post  func(ctx context.Context, id string, r *task.Record) error
	next  func(try int, err error) (wait time.Duration, giveUp bool)
	max   int // deliveries at once; beyond, the task's timer repeats them
	asker Asker
	meter *meter.Meter
	now   func() time.Time
	log   *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	busy   map[string]bool // task ids with a delivery under way; at most max
}

// NewDispatcher returns a dispatcher that posts with post, at most max at once, and
// plans with next. Stop ends it.
func NewDispatcher(asker Asker, max int, post func(ctx context.Context, id string, r *task.Record) error,
	next func(try int, err error) (time.Duration, bool), m *meter.Meter, now func() time.Time, log *slog.Logger) *Dispatcher {
	d := &Dispatcher{post: post, next: next, max: max, asker: asker, meter: m, now: now, log: log, busy: map[string]bool{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Deliver starts a try and does not block. It is dropped when one of the same task is
// under way or there is no room: the task asks again.
func (d *Dispatcher) Deliver(id string, r task.Record, try int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil || d.busy[id] || len(d.busy) >= d.max {
		return
	}
	d.busy[id] = true
	d.wg.Go(func() { d.deliver(id, r, try) })
}

func (d *Dispatcher) deliver(id string, r task.Record, try int) {
	defer func() {
		d.mu.Lock()
		delete(d.busy, id)
		d.mu.Unlock()
	}()
	err := d.post(d.ctx, id, &r)
	if d.ctx.Err() != nil && err != nil {
		return // the node stops: this was no try
	}
	m := &task.Called{Try: try, Err: err}
	outcome := "delivered"
	if err != nil {
		outcome = "failed"
		if m.Wait, m.GiveUp = d.next(try, err); m.GiveUp {
			outcome = "gave_up"
		}
	} else {
		d.meter.Observe(meter.PhaseCallback, d.now().Sub(r.EndedAt))
	}
	d.meter.Callbacks.WithLabelValues(outcome).Inc()
	ctx, cancel := context.WithTimeout(context.Background(), recordWithin)
	defer cancel()
	if _, err := d.asker.Ask(ctx, task.Key(id), m); err != nil {
		d.log.Warn("a callback's outcome could not be recorded; it is sent again", "task", id, "try", try, "err", err)
	}
}

// Stop cuts deliveries off and returns when all have ended. It is safe to call twice.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	d.cancel()
	d.mu.Unlock()
	d.wg.Wait()
}
