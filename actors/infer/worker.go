package infer

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/hedge"
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
	Concurrency int             // requests at once at most; the limit adapts below it
	Knee        bool            // an engine that may let requests wait inside itself: it is found out how many at once are worth it
	Prefetch    int             // works claimed ahead, so that a freed slot never waits for a commit
	Idle        chan<- struct{} // closed once it is to Retire and nothing of it is under way; nil: nobody asks it to
	Batcher     *actor.PID
	Router      *cluster.Router
	Board       *hedge.Board // hears what runs; nil: nobody asks
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
	knee     Knee
	leave    *leave // the same in all its lives
	breaker  Breaker
	trials   int // of inFlight: those that the breaker waits for
	models   []string
	suspect  bool      // an answer says that it may be down: nothing is started until a probe tells
	probing  bool      // one at a time: an old failure must not overtake a newer success
	asked    time.Time // models were asked for
	received uint64    // works ever received
	waiting  []*task.Work
	inFlight int
	unacked  int
	granted  uint64 // newest Credit sent
	spent    map[batch.Whose]batch.Spent
	ctx      context.Context
	cancel   context.CancelFunc
	timer    *time.Timer
}

type (
	// Each carries its incarnation: a goroutine of a life before must not be counted in this one.
	ran struct { // the slot is free
		of    *Worker
		work  *task.Work
		used  int           // tokens, 0 where the engine did not say
		said  int           // of them: those of the answer
		took  time.Duration // of an answer
		asked bool          // the engine was asked; else the error says nothing about it
		trial bool          // its breaker was half open
		cut   bool          // it was asked, and stopped: the other run of the attempt was faster
		err   error
	}
	acked  struct{ of *Worker } // the task has the answer
	models struct {
		of    *Worker
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
	knee := Knee{size: o.Concurrency}
	if o.Knee {
		knee = NewKnee(o.Concurrency)
	}
	leave := &leave{idle: o.Idle}
	return actor.PropsFromProducer(supervise.Guard(func() actor.Actor {
		w := &Worker{WorkerOptions: o, leave: leave, limit: limit, knee: knee, spent: map[batch.Whose]batch.Spent{}}
		w.ctx, w.cancel = context.WithCancel(context.Background())
		return w
	})), nil
}

// Receive handles one message at a time.
func (w *Worker) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		w.askModels(c)
		w.goodbye(c)
	case *batch.Batch:
		w.received += uint64(len(m.Works))
		w.waiting = append(w.waiting, m.Works...)
		if w.models == nil { // it was on its way when the engine went down
			w.down(c, w.Status.Get().Reason)
		} else if w.limit.PausedUntil().After(w.Now()) { // or while it asked for a pause
			w.giveBack("engine " + w.Engine.Name() + " asked for a pause")
		}
		w.Meter.BatchSize.Observe(float64(len(m.Works)))
		w.Meter.Batches.WithLabelValues(string(m.Cause)).Inc()
	case ran:
		if m.of != w {
			return
		}
		w.ran(c, m)
	case acked:
		if m.of != w {
			return
		}
		w.unacked--
	case models:
		if m.of != w {
			return
		}
		w.probing = false
		w.learned(c, m)
	case Resync:
		w.granted = 0
		w.goodbye(c)
	case Retire:
		w.leave.asked = true
		w.goodbye(c)
	case *batch.Forgotten:
		w.leave.forgotten = true
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
// reported as failed: their owners find that they are not held any more, and take them back for free.
func (w *Worker) stop(c actor.Context) {
	c.Send(w.Batcher, &batch.Gone{Engine: c.Self()})
	w.cancel()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.giveBack("engine " + w.Engine.Name() + " is stopping")
	if _, last := c.Message().(*actor.Stopping); last {
		w.leave.over()
	}
}

// giveBack hands what was not sent yet back to its tasks, at no cost of a try.
func (w *Worker) giveBack(reason string) {
	for _, x := range w.waiting {
		x.GiveBack(reason)
		w.spend(x, 0)
	}
	w.waiting = nil
}

// spend notes that a work left, for the next Credit.
func (w *Worker) spend(x *task.Work, used int) {
	who := batch.WhoseIs(x)
	s := w.spent[who]
	w.spent[who] = batch.Spent{Whose: who, Works: s.Works + 1, Charged: s.Charged + x.Cost, Used: s.Used + used}
}

func (w *Worker) ran(c actor.Context, m ran) {
	w.inFlight--
	w.unacked++
	if m.trial {
		w.trials--
	}
	switch {
	case m.used > 0:
		w.spend(m.work, m.used)
	case m.cut, m.asked && fault.KindOf(m.err) != fault.Overloaded, m.work.Record.Lane().Endpoint == task.EndpointTool:
		w.spend(m.work, m.work.Cost) // it had its slot
	default:
		w.spend(m.work, 0)
	}
	switch kind := fault.KindOf(m.err); {
	case !m.asked:
	case m.err == nil:
		w.limit = w.limit.Good(w.inFlight + 1)
		w.knee = w.knee.Good(w.Now(), w.inFlight+1, m.took, m.used)
		w.Status.set(func(s *EngineState) {
			s.Pace, s.Answered, s.Took = s.Pace.Add(w.Now(), m.said), s.Answered+1, s.Took+m.took
		})
	case kind == fault.Overloaded:
		w.limit = w.limit.AtMost(w.knee.Size()).Overloaded(w.Now(), RetryAfterOf(m.err))
		w.Status.set(func(s *EngineState) { s.Reason = "overloaded: its limit was lowered" })
		if w.limit.PausedUntil().After(w.Now()) {
			w.giveBack("engine " + w.Engine.Name() + " asked for a pause")
		}
	case kind == fault.Unavailable:
		// It may be down, or one request was too much for it: a probe tells.
		w.suspect = true
		w.askModels(c)
	}
	if m.asked {
		if m.err != nil {
			w.Status.set(func(s *EngineState) { s.Failed++ })
		}
		w.judge(c, m)
	}
}

// down holds everything until the engine says again what it serves: the credit is
// taken back, and what was not sent yet goes back to its tasks at no cost of a try.
func (w *Worker) down(c actor.Context, why string) {
	w.Status.set(func(s *EngineState) { s.Healthy, s.Reason = false, why })
	w.giveBack("engine " + w.Engine.Name() + " is down")
	if w.models != nil {
		w.models = nil
		w.takeBack(c)
	}
}

func (w *Worker) learned(c actor.Context, m models) {
	w.suspect = false
	if m.err != nil {
		w.down(c, fault.Shown(m.err))
		return
	}
	if !slices.Equal(w.models, m.names) {
		w.granted = 0 // so that the batcher hears of it also where there is no more room than it knows of
	}
	w.models = m.names
	w.Status.set(func(s *EngineState) {
		if s.Models = m.names; w.breaker.state == Closed { // else a task must tell: probes say no more than that it is there
			s.Healthy, s.Reason = true, ""
		}
	})
}

// readier is an engine that may have to do something before a request which is none of the request's time.
type readier interface {
	Ready(context.Context, *Request) error
}

// healthy is an engine that can tell more about itself than its list of models.
type healthy interface{ Health(context.Context) error }

// askModels finds out whether the engine is well and what it serves.
func (w *Worker) askModels(c actor.Context) {
	if w.probing {
		return
	}
	w.probing, w.asked = true, w.Now()
	self, root := c.Self(), c.ActorSystem().Root
	go func() {
		ctx, cancel := context.WithTimeout(w.ctx, modelsWithin)
		defer cancel()
		if h, ok := w.Engine.(healthy); ok {
			if err := h.Health(ctx); err != nil {
				root.Send(self, models{w, nil, err})
				return
			}
		}
		names, err := w.Engine.Models(ctx)
		root.Send(self, models{w, names, err})
	}()
}

// pump starts what there is room for and offers what is free.
func (w *Worker) pump(c actor.Context) {
	now := w.Now()
	if w.leave.asked {
		w.retire()
	}
	w.dropStale()
	w.shed(now)
	free := w.breaker.Room(now, min(w.limit.Free(now, w.inFlight), max(0, w.knee.Size()-w.inFlight)), w.trials)
	for ; free > 0 && len(w.waiting) > 0 && !w.suspect; free-- {
		x := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		w.start(c, x)
	}
	w.dropSeconds()
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
	w.tell(c)
	w.wake(c, now, next)
	w.Meter.InFlight.WithLabelValues(w.Engine.Name()).Set(float64(w.inFlight))
	w.Meter.Limit.WithLabelValues(w.Engine.Name()).Set(float64(w.size()))
	w.Status.set(func(s *EngineState) {
		s.InFlight, s.Limit, s.Unrecorded, s.Paused = w.inFlight, w.size(), w.unacked, w.limit.PausedUntil()
		s.Circuit = w.breaker.State(now)
	})
}

// size is how many requests may be under way.
func (w *Worker) size() int { return min(w.limit.Size(), w.knee.Size()) }

// dropStale gives back what waited for a slot until less than its whole timeout is
// left of its lease: it would fail for a wait that was not its fault.
func (w *Worker) dropStale() {
	w.waiting = slices.DeleteFunc(w.waiting, func(x *task.Work) bool {
		if x.Over() {
			x.Release()
			w.spend(x, 0)
			return true
		}
		stale := x.Remaining() < x.Timeout && !x.IsSecond()
		if stale {
			x.GiveBack("it waited too long for a slot of engine " + w.Engine.Name())
			w.spend(x, 0)
		}
		return stale
	})
}

// dropSeconds gives back second runs that found no slot: they were for one with nothing to do.
func (w *Worker) dropSeconds() {
	w.waiting = slices.DeleteFunc(w.waiting, func(x *task.Work) bool {
		if x.IsSecond() {
			x.GiveBack("engine " + w.Engine.Name() + " has no slot to spare")
			w.spend(x, 0)
		}
		return x.IsSecond()
	})
}

// offer tells the batcher how many works may come. Credit is never taken back:
// what was granted before a limit fell waits here.
func (w *Worker) offer(c actor.Context, free int) {
	if w.leave.asked || w.models == nil || w.suspect || w.unacked >= unackedMax || w.limit.PausedUntil().After(w.Now()) {
		return
	}
	room := free + w.Prefetch - len(w.waiting)
	if w.breaker.state != Closed {
		room = free
	}
	if len(w.waiting) > 0 && room < w.Prefetch/2 {
		return // the engine has enough for now, and half a prefetch is claimed in fewer commits than its works one by one
	}
	if g := w.received + uint64(max(0, room)); g > w.granted || w.inFlight == 0 && len(w.spent) > 0 {
		w.granted = max(g, w.granted)
		w.credit(c, task.Offers(w.models, w.Status.Get().Endpoints), w.inFlight+free)
	}
}

// credit tells the batcher what may come, and what went.
func (w *Worker) credit(c actor.Context, offers []string, slots int) {
	c.Send(w.Batcher, &batch.Credit{Engine: c.Self(), Name: w.Engine.Name(), Models: offers, Granted: w.granted, Taken: w.received, Slots: slots, Spent: w.gone()})
}

// gone is what went since the batcher was told.
func (w *Worker) gone() (all []batch.Spent) {
	for _, s := range w.spent {
		all = append(all, s)
	}
	clear(w.spent)
	return all
}

// tell tells the batcher what went where no credit does: others may wait for the room that it had. While enough waits here the next credit is
// soon enough.
func (w *Worker) tell(c actor.Context) {
	if len(w.spent) > 0 && len(w.waiting) == 0 {
		c.Send(w.Batcher, &batch.Ended{Engine: c.Self(), Spent: w.gone()})
	}
}

// wake sets the timer for what time alone changes: a pause that ends, a look at
// the engine's models.
func (w *Worker) wake(c actor.Context, now time.Time, models time.Duration) {
	at := w.asked.Add(models)
	for _, p := range []time.Time{w.limit.PausedUntil(), w.breaker.Until()} {
		if p.After(now) && p.Before(at) {
			at = p
		}
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	self, root := c.Self(), c.ActorSystem().Root
	w.timer = time.AfterFunc(max(at.Sub(now), time.Millisecond), func() { root.Send(self, wakeUp{}) })
}

// start runs one work in a goroutine of its own: the engine first, which frees the
// slot, then the check of the answer and the way to the task, which is tried until
// the lease ends.
func (w *Worker) start(c actor.Context, x *task.Work) {
	w.inFlight++
	trial := w.breaker.state != Closed
	if trial {
		w.trials++
	}
	self, root, serves := c.Self(), c.ActorSystem().Root, w.models
	go func() {
		answer, asked, err := w.ask(x, serves)
		root.Send(self, ran{of: w, work: x, used: answer.PromptTokens + answer.OutputTokens, said: answer.OutputTokens, took: answer.EndedAt.Sub(answer.StartedAt), asked: asked, trial: trial,
			cut: !asked && !answer.StartedAt.IsZero() && x.Lost(), err: err})
		if err == nil {
			err = w.check(x, &answer)
		}
		w.end(x, answer, err)
		x.Release() // recorded, or nothing more can be done here: its owner asks
		root.Send(self, acked{w})
	}()
}

// end brings the outcome of a run to its task, where it is the attempt's.
func (w *Worker) end(x *task.Work, a task.Answer, err error) {
	if err == nil && x.IsSecond() {
		a.Second = &task.Place{Node: w.Router.Self(), Engine: w.Engine.Name()}
	}
	if of, ends := Ends(x, w.Meter, err, w.ctx.Err() != nil); ends {
		w.deliver(x, a, of)
	}
}

// ask does what needs the slot. asked tells whether the engine is what err is about.
func (w *Worker) ask(x *task.Work, serves []string) (a task.Answer, asked bool, err error) {
	defer crashed(&err)
	ctx, cancel := context.WithTimeout(w.ctx, x.Remaining())
	defer cancel()
	q, a, err := w.Run.Prepare(ctx, serves, x)
	if err != nil {
		return a, false, err
	}
	if e, ok := w.Engine.(readier); ok {
		if err = e.Ready(ctx, q); err != nil {
			return a, false, err
		}
	}
	ctx, cancel = context.WithTimeout(ctx, x.Timeout)
	defer cancel()
	x.OnAbort(cancel)
	if x.IsSecond() {
		w.Meter.Hedges.WithLabelValues("started").Inc()
	}
	w.Board.Began(x, w.Engine.Name())
	answered := false
	defer func() { w.Board.Ended(x, answered) }()
	err = w.Run.Ask(ctx, w.Engine, q, x, &a)
	answered = err == nil
	return a, !(err != nil && (x.Over() || q.Tool != nil)), err // what was stopped says nothing about the engine, and one tool's trouble nothing about the others
}

func (w *Worker) check(x *task.Work, a *task.Answer) (err error) {
	defer crashed(&err)
	return w.Run.Check(x.Record.FormatOr(), a)
}

// crashed turns a panic into the attempt's error: it is one task's misfortune, not
// the process'.
func crashed(err *error) {
	if r := recover(); r != nil {
		*err = fault.New(fault.Unknown, "infer.worker", "", "the attempt crashed: %v", r)
	}
}

func (w *Worker) deliver(x *task.Work, answer task.Answer, err error) {
	outcome := "answered"
	if err != nil {
		outcome = fault.KindOf(err).String()
	} else {
		w.Meter.Tokens.WithLabelValues(w.Engine.Name(), "prompt").Add(float64(answer.PromptTokens))
		w.Meter.Tokens.WithLabelValues(w.Engine.Name(), "output").Add(float64(answer.OutputTokens))
	}
	w.Meter.Attempts.WithLabelValues(w.Engine.Name(), outcome).Inc()
	if !x.Tell(answer, err) {
		Postman{w.Router, w.Meter, w.Log}.Bring(x, answer, err)
	}
}
