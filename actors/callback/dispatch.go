package callback

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster/trace"
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
	each  int // of max, to one host
	asker Asker
	meter *meter.Meter
	now   func() time.Time
	log   *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	busy   map[string]bool // task ids with a delivery under way; at most max
	hosts  map[string]int  // how many of them go to each host
}

// NewDispatcher returns a dispatcher that posts with post, at most max at once and at most
// perHost (0: a quarter of max) to one host, and plans with next. Stop ends it.
func NewDispatcher(asker Asker, max, perHost int, post func(ctx context.Context, id string, r *task.Record) error,
	next func(try int, err error) (time.Duration, bool), m *meter.Meter, now func() time.Time, log *slog.Logger) *Dispatcher {
	if perHost < 1 {
		perHost = (max + 3) / 4 // rounded up: at least 1
	}
	d := &Dispatcher{post: post, next: next, max: max, each: perHost, asker: asker, meter: m, now: now, log: log,
		busy: map[string]bool{}, hosts: map[string]int{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Deliver starts a try and does not block. It is dropped when one of the same task is
// under way or there is no room: the task asks again. One host has only a part of the room, or a
// receiver that never answers would keep all others from theirs.
func (d *Dispatcher) Deliver(id string, r task.Record, try int) {
	host := receiver(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil || d.busy[id] || len(d.busy) >= d.max || d.hosts[host] >= d.each {
		return
	}
	d.busy[id] = true
	d.hosts[host]++
	d.wg.Go(func() {
		defer d.free(id, host)
		d.deliver(id, r, try)
	})
}

// free makes room again.
func (d *Dispatcher) free(id, host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.busy, id)
	if d.hosts[host]--; d.hosts[host] == 0 {
		delete(d.hosts, host) // submitters name hosts, so the map must not keep them
	}
}

// receiver is the host and port that a callback goes to; "" for a URL that post will refuse.
func receiver(r task.Record) string {
	if r.Spec == nil {
		return ""
	}
	u, err := url.Parse(r.Spec.CallbackURL)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

func (d *Dispatcher) deliver(id string, r task.Record, try int) {
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
		d.log.Warn("a callback's outcome could not be recorded; it is sent again", "task", id, "trace_id", trace.Parent(r.Trace).ID(), "try", try, "err", err)
	}
}

// Stop cuts deliveries off and returns when all have ended. It is safe to call twice.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	d.cancel()
	d.mu.Unlock()
	d.wg.Wait()
}
