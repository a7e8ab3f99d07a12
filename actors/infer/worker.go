package infer

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/supervise"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	unackedMax   = 4096                   // answers on their way to their tasks; beyond: no more credit
	modelsEvery  = 500 * time.Millisecond // an engine whose models are not known is asked this often
	modelsFresh  = time.Minute            // a known list is asked for again after this
	modelsWithin = 3 * time.Second
	deliverAgain = 250 * time.Millisecond // between tries to record an answer
)

// WorkerOptions configure an inference actor.
type WorkerOptions struct {
	Engine      Engine
	Concurrency int // requests at once at most; the limit adapts below it
	Prefetch    int // works claimed ahead, so that a freed slot never waits for a commit
	Batcher     *actor.PID
	Router      *cluster.Router
	Run         *Runner
	Status      *Status // written by the actor, read by anybody
	Meter       *meter.Meter
	Log         *slog.Logger
	Now         func() time.Time
}

// Worker is the inference actor of one engine slot: it offers credit, runs the works
// of its batches at most Size at once, and brings each answer to its task.
type Worker struct {
	WorkerOptions
	limit    Limit
	models   []string
	asked    time.Time // models were asked for
	received uint64    // works ever received
	waiting  []*task.Work
	inFlight int
	unacked  int
	granted  uint64 // newest Credit sent
	ctx      context.Context
	cancel   context.CancelFunc
	timer    *time.Timer
}

type (
	ran struct { // an engine call ended: its slot is free
		kind  fault.Kind
		ok    bool
		again time.Duration
	}
	acked  struct{} // the task has the answer
	models struct {
		names []string
		err   error
	}
	wakeUp struct{}
)

// Resync makes an inference actor repeat its offer, for a batcher that restarted.
type Resync struct{}

// NewWorker returns the props of an inference actor.
func NewWorker(o WorkerOptions) (*actor.Props, error) {
	limit, err := NewLimit(o.Concurrency)
	if err != nil {
		return nil, err
	}
	return actor.PropsFromProducer(supervise.Guard(func() actor.Actor {
		w := &Worker{WorkerOptions: o, limit: limit}
		w.ctx, w.cancel = context.WithCancel(context.Background())
		return w
	})), nil
}

// Receive handles one message at a time.
func (w *Worker) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		w.askModels(c)
	case *batch.Batch:
		w.received += uint64(len(m.Works))
		w.waiting = append(w.waiting, m.Works...)
		if w.models == nil { // it was on its way when the engine went down
			w.down(c, w.Status.Get().Reason)
		}
		w.Meter.BatchSize.Observe(float64(len(m.Works)))
		w.Meter.Batches.WithLabelValues(string(m.Cause)).Inc()
	case ran:
		w.ran(c, m)
	case acked:
		w.unacked--
	case models:
		w.learned(c, m)
	case Resync:
		w.granted = 0
	case wakeUp:
	case *actor.Stopping, *actor.Restarting:
		w.stop(c)
		return
	default:
		return
	}
	w.pump(c)
}

// stop gives the credit back and ends what is under way. Those attempts are not
// reported as failed: their leases end, or the next owner takes them over for free.
func (w *Worker) stop(c actor.Context) {
	c.Send(w.Batcher, &batch.Gone{Engine: c.Self()})
	w.cancel()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.waiting = nil
}

func (w *Worker) ran(c actor.Context, m ran) {
	w.inFlight--
	w.unacked++
	switch {
	case m.ok:
		w.limit = w.limit.Good(w.inFlight + 1)
		w.Status.set(func(s *EngineState) { s.Healthy, s.Reason = true, "" })
	case m.kind == fault.Overloaded:
		w.limit = w.limit.Overloaded(w.Now(), m.again)
		w.Status.set(func(s *EngineState) { s.Reason = "overloaded: its limit was lowered" })
	case m.kind == fault.Unavailable:
		w.down(c, "it does not answer")
	}
}

// down holds everything until the engine says again what it serves: the credit is
// taken back, and what was not sent yet goes back to its tasks at no cost of a try.
func (w *Worker) down(c actor.Context, why string) {
	w.Status.set(func(s *EngineState) { s.Healthy, s.Reason = false, why })
	if w.models != nil {
		w.models = nil
		w.granted = w.received
		c.Send(w.Batcher, &batch.Credit{Engine: c.Self(), Name: w.Engine.Name(), Granted: w.granted, Taken: w.received})
	}
	for _, x := range w.waiting {
		w.Router.Tell(task.Key(x.ID), &task.Return{Attempt: x.Attempt, Epoch: x.Epoch, Reason: "engine " + w.Engine.Name() + " is down"})
	}
	w.waiting = nil
}

func (w *Worker) learned(c actor.Context, m models) {
	if m.err != nil {
		w.down(c, m.err.Error())
		return
	}
	w.models = m.names
	w.Status.set(func(s *EngineState) { s.Healthy, s.Reason, s.Models = true, "", m.names })
}

// healthy is an engine that can tell more about itself than its list of models.
type healthy interface{ Health(context.Context) error }

// askModels finds out whether the engine is well and what it serves.
func (w *Worker) askModels(c actor.Context) {
	w.asked = w.Now()
	self, root := c.Self(), c.ActorSystem().Root
	go func() {
		ctx, cancel := context.WithTimeout(w.ctx, modelsWithin)
		defer cancel()
		if h, ok := w.Engine.(healthy); ok {
			if err := h.Health(ctx); err != nil {
				root.Send(self, models{nil, err})
				return
			}
		}
		names, err := w.Engine.Models(ctx)
		root.Send(self, models{names, err})
	}()
}

// pump starts what there is room for and offers what is free.
func (w *Worker) pump(c actor.Context) {
	now := w.Now()
	free := w.limit.Free(now, w.inFlight)
	for ; free > 0 && len(w.waiting) > 0; free-- {
		x := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		w.start(c, x)
	}
	if len(w.waiting) == 0 {
		w.waiting = nil
	}
	next := modelsFresh
	if w.models == nil {
		next = modelsEvery
	}
	if now.Sub(w.asked) >= next {
		w.askModels(c)
	}
	w.offer(c, free)
	w.wake(c, now, next)
	w.Meter.InFlight.WithLabelValues(w.Engine.Name()).Set(float64(w.inFlight))
	w.Meter.Limit.WithLabelValues(w.Engine.Name()).Set(float64(w.limit.Size()))
	w.Status.set(func(s *EngineState) { s.InFlight, s.Limit, s.Unrecorded = w.inFlight, w.limit.Size(), w.unacked })
}

// offer tells the batcher how many works may come. Credit is never taken back:
// what was granted before a limit fell waits here.
func (w *Worker) offer(c actor.Context, free int) {
	if w.models == nil || w.unacked >= unackedMax {
		return
	}
	room := free + w.Prefetch - len(w.waiting)
	if g := w.received + uint64(max(0, room)); g > w.granted {
		w.granted = g
		c.Send(w.Batcher, &batch.Credit{Engine: c.Self(), Name: w.Engine.Name(), Models: w.models, Granted: g, Taken: w.received})
	}
}

// wake sets the timer for what time alone changes: a pause that ends, a look at
// the engine's models.
func (w *Worker) wake(c actor.Context, now time.Time, models time.Duration) {
	at := w.asked.Add(models)
	if p := w.limit.PausedUntil(); p.After(now) && p.Before(at) {
		at = p
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	self, root := c.Self(), c.ActorSystem().Root
	w.timer = time.AfterFunc(max(at.Sub(now), time.Millisecond), func() { root.Send(self, wakeUp{}) })
}

// start runs one work in a goroutine of its own: first the engine, which frees the
// slot, then the way to the task, which is tried until the lease ends.
func (w *Worker) start(c actor.Context, x *task.Work) {
	w.inFlight++
	self, root, models := c.Self(), c.ActorSystem().Root, w.models
	go func() {
		answer, err := w.Run.Do(w.ctx, w.Engine, models, x)
		m := ran{ok: err == nil, kind: fault.KindOf(err), again: RetryAfterOf(err)}
		root.Send(self, m)
		if err == nil || w.ctx.Err() == nil {
			w.deliver(x, answer, err)
		}
		root.Send(self, acked{})
	}()
}

func (w *Worker) deliver(x *task.Work, answer task.Answer, err error) {
	var msg any = &task.Done{Attempt: x.Attempt, Epoch: x.Epoch, Answer: answer}
	outcome := "answered"
	if err != nil {
		kind := fault.KindOf(err)
		outcome = kind.String()
		msg = &task.Lost{Attempt: x.Attempt, Epoch: x.Epoch, Err: err, RetryAfter: RetryAfterOf(err)}
	} else {
		w.Meter.Tokens.WithLabelValues(w.Engine.Name(), "prompt").Add(float64(answer.PromptTokens))
		w.Meter.Tokens.WithLabelValues(w.Engine.Name(), "output").Add(float64(answer.OutputTokens))
	}
	w.Meter.Attempts.WithLabelValues(w.Engine.Name(), outcome).Inc()
	// Not w.ctx: an answer that is there is worth recording while the node stops.
	ctx, cancel := context.WithDeadline(context.Background(), x.Lease)
	defer cancel()
	v, err := w.Router.Ask(ctx, task.Key(x.ID), msg)
	for fault.KindOf(err).Retryable() && wait(ctx, deliverAgain) == nil { // a full disk, a full queue: the answer is worth the wait
		v, err = w.Router.Ask(ctx, task.Key(x.ID), msg)
	}
	if _, late := v.(task.Dropped); late {
		w.Meter.Late.Inc()
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.Log.Warn("an answer could not be recorded; the task runs again after its lease", "task", x.ID, "attempt", x.Attempt, "err", err)
	}
}
