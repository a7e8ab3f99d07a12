package bulk

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Router is what batches need of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
	Create(ctx context.Context, writes []persistence.Write) []error
	Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
	ReadAll(ctx context.Context, shard int, keys []persistence.Key) ([]persistence.Log, error)
	Scan(ctx context.Context, shard int, index string, from, to []byte, limit int) (cluster.Page, error)
	Newest(ctx context.Context, index string, from []byte, limit int, keep func(cluster.IndexRow) bool) ([]cluster.IndexRow, error)
	Watch(key persistence.Key) (<-chan struct{}, func())
	ShardOf(key persistence.Key) int
	Shards() int
}

// Files are where inputs come from and outputs go; *file.Library is one.
type Files interface {
	Put(ctx context.Context, o file.PutOptions, r io.Reader) (file.Info, error)
	Get(ctx context.Context, id string) (file.Info, error)
	Open(ctx context.Context, id string, offset int64) (io.ReadCloser, file.Info, error)
	Register(ctx context.Context, in file.Info) error
	Forget(ctx context.Context, id string) error
}

// Options of Batches. All are needed but Hooks, Post, Steps, Counted and Ended.
type Options struct {
	Router     Router
	Files      Files
	Tasks      *entity.Kind[task.Record, task.Fact]
	Submit     func(ctx context.Context, lines []*task.Submit) []error    // makes them tasks; the same ones again are harmless
	Served     func(ctx context.Context, endpoint, model string) error    // refuses what no engine serves; model "" is any
	Steps      func(own bool) error                                       // refuses steps that are objects, or wait in a lane of their own; nil: all nodes know them
	Post       func(ctx context.Context, d callback.Delivery) error       // nil: nobody is told
	Next       func(try int, err error) (wait time.Duration, giveUp bool) // after a failed Post
	Counted    func(outcome string, lines uint64)                         // lines that ended, or never were; nil: nobody counts
	Ended      func(status string)                                        // of a batch; nil: nobody counts
	Hooks      []string                                                   // URLs that hear of every batch
	Dir        string                                                     // for temporary files
	TimeoutMax time.Duration                                              // no line may ask for more
	Window     int                                                        // lines of one batch that are created and have not ended
	DriversMax int                                                        // batches driven at once on this node; the others wait
	Now        func() time.Time
	Log        *slog.Logger
}

const (
	waitingMax = 10_000                 // batches that wait for a driver on a node; beyond, their timers repeat it
	retryMin   = 200 * time.Millisecond // between tries of a driver
	retryMax   = 15 * time.Second
)

// Batches drives the batches whose shards this node owns, and is how clients reach all of them. It is safe for many goroutines.
type Batches struct {
	o    Options
	kind *entity.Kind[State, Fact]

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	running map[string]*running // at most DriversMax
	waiting []turn              // at most waitingMax, first come first served
	telling map[string]bool     // webhooks under way; at most tellingMax
}

type turn struct {
	id    string
	epoch uint64
}

// running is a batch that is driven here.
type running struct {
	epoch  uint64
	cancel context.CancelFunc
	news   chan struct{} // it has changed; holds one
}

// New makes the batches of a node. Attach, then Kind's registration, then messages; Stop ends it.
func New(now func() time.Time, log *slog.Logger) *Batches {
	b := &Batches{o: Options{Now: now, Log: log}, running: map[string]*running{}, telling: map[string]bool{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.kind = NewKind(b)
	return b
}

// Kind is to be registered with the cluster.
func (b *Batches) Kind() cluster.Kind { return b.kind.Register() }

// Attach gives what does not exist yet when kinds are registered. Before it nothing is driven.
func (b *Batches) Attach(o Options) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o.Now, o.Log = b.o.Now, b.o.Log
	b.o = o
}

// Ensure starts a driver for a batch, or tells the one that runs that something has changed.
func (b *Batches) Ensure(id string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil || b.o.Router == nil {
		return
	}
	if r := b.running[id]; r != nil {
		if r.epoch < epoch {
			r.cancel() // it is of the owner before; the timer brings the next one
			r.epoch = epoch
		}
		kick(r.news)
		return
	}
	if i := slices.IndexFunc(b.waiting, func(s turn) bool { return s.id == id }); i >= 0 {
		b.waiting[i].epoch = epoch
		return
	}
	if len(b.waiting) < waitingMax {
		b.waiting = append(b.waiting, turn{id, epoch})
	}
	b.next()
}

// next starts those who wait, where there is room. The caller holds the lock.
func (b *Batches) next() {
	for len(b.waiting) > 0 && len(b.running) < b.o.DriversMax {
		s := b.waiting[0]
		b.waiting = slices.Delete(b.waiting, 0, 1)
		ctx, cancel := context.WithCancel(b.ctx)
		r := &running{epoch: s.epoch, cancel: cancel, news: make(chan struct{}, 1)}
		b.running[s.id] = r
		d := &driver{Options: &b.o, kind: b.kind, id: s.id, epoch: s.epoch, news: r.news}
		b.wg.Go(func() {
			defer cancel()
			err := d.run(ctx)
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.running, s.id)
			if r.epoch != s.epoch && b.ctx.Err() == nil { // a newer owner asked for it meanwhile
				b.waiting = append(b.waiting, turn{s.id, r.epoch})
			} else if err != nil && ctx.Err() == nil {
				b.o.Log.Warn("a batch is not driven on by this node for now; its timer brings it back", "batch", s.id, "err", err)
			}
			b.next()
		})
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// Stop ends all drivers and returns when they have ended. It is safe to call twice. Batches go on where they were.
func (b *Batches) Stop() {
	b.mu.Lock()
	b.cancel()
	b.waiting = nil
	b.mu.Unlock()
	b.wg.Wait()
}

// driver works for one batch under one epoch.
type driver struct {
	*Options
	kind  *entity.Kind[State, Fact]
	id    string
	epoch uint64
	news  chan struct{}

	quiet    time.Time     // no line has ended since; see look
	patience time.Duration // until a recount
}

// run does what the batch's phase asks for until that is final, or nothing is left to do. An error that will not go away by itself
// ends it, others are tried again.
func (d *driver) run(ctx context.Context) error {
	wait := retryMin
	for {
		s, err := d.get(ctx)
		began := d.Now()
		if err == nil {
			if !s.busy() {
				return nil
			}
			switch s.Phase {
			case Validating:
				err = d.validate(ctx, s)
			case InProgress:
				err = d.work(ctx, s)
			case Expiring, Cancelling:
				err = d.windDown(ctx, s)
			case Finalizing:
				err = d.finish(ctx, s)
			}
		}
		if ctx.Err() != nil || fault.KindOf(err) == fault.Conflict || fault.KindOf(err) == fault.NotFound && s.Phase == None {
			return err
		}
		if err == nil || d.Now().Sub(began) > retryMax {
			wait = retryMin
		}
		if err == nil {
			continue
		}
		d.Log.Info("a batch waits", "batch", d.id, "phase", s.Phase.String(), "err", err)
		if !d.pause(ctx, wait) {
			return err
		}
		wait = min(2*wait, retryMax)
	}
}

// pause waits, not longer than until the batch has changed.
func (d *driver) pause(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-d.news:
	case <-t.C:
	}
	return true
}

func (d *driver) get(ctx context.Context) (State, error) {
	return state(d.Router.Ask(ctx, Key(d.id), Get{}))
}

// report says what was found, and returns what is true now.
func (d *driver) report(ctx context.Context, f Fact, from *Progress) (State, error) {
	return state(d.Router.Ask(ctx, Key(d.id), Report{Epoch: d.epoch, From: from, Fact: f}))
}

func state(v any, err error) (State, error) {
	if err != nil {
		return State{}, err
	}
	s, ok := v.(State)
	if !ok {
		return State{}, fault.New(fault.Unavailable, "bulk.batch", "", "the answer is a %T", v)
	}
	return s, nil
}
