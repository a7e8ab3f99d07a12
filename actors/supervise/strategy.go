package supervise

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Options of a Strategy; the zero value is a sane one.
type Options struct {
	Backoff backoff.Exponential // between restarts; 50 ms to 30 s with full jitter when zero
	Vital   bool                // the node cannot live without these actors: a bug restarts them too, up to Limit
	Limit   int                 // failures of one child within Window before escalating; 10 when 0
	Window  time.Duration       // 10 min when 0

	// Observe is called for each failure, on the supervisor's goroutine or a sender's: it must not
	// block. With GiveUp the child ends and nobody above knows: the owner acts here.
	Observe func(Event)
	Log     *slog.Logger // slog.Default() when nil

	After  func(time.Duration, func()) // runs the function once, later; time.AfterFunc when nil
	Random func() float64              // in [0, 1); math/rand's when nil
}

// Event is one failure and its cure, for metrics.
type Event struct {
	Child    string // id
	Kind     fault.Kind
	Action   Action
	Failures int           // of this child within Window, this one included
	Delay    time.Duration // before a restart
	Reason   any           // what the actor panicked with
}

// failuresKept bounds the library's list of failure times of one child that fails for ever, but
// too seldom to reach Limit.
const failuresKept = 1000

// Strategy is an actor.SupervisorStrategy. It keeps no state of a child; protoactor does.
type Strategy struct {
	o       Options
	stopped atomic.Bool
}

var _ actor.SupervisorStrategy = (*Strategy)(nil)

// New checks the options. One Strategy serves any number of supervisors.
func New(o Options) (*Strategy, error) {
	if o.Backoff == (backoff.Exponential{}) {
		o.Backoff = backoff.Exponential{Min: 50 * time.Millisecond, Max: 30 * time.Second, Jitter: 1}
	}
	if o.Limit == 0 {
		o.Limit = 10
	}
	if o.Window == 0 {
		o.Window = 10 * time.Minute
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.After == nil {
		o.After = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if err := o.Backoff.Validate(); err != nil {
		return nil, fmt.Errorf("supervise: %w", err)
	}
	if o.Limit < 1 || o.Limit >= failuresKept || o.Window < 0 {
		return nil, fmt.Errorf("supervise: limit %d and window %v: use 1 to %d failures in a positive time", o.Limit, o.Window, failuresKept-1)
	}
	return &Strategy{o: o}, nil
}

// Stop makes restarts that still wait do nothing: the tree is being taken down. Safe to call twice.
func (s *Strategy) Stop() { s.stopped.Store(true) }

// HandleFailure cures one failure; protoactor calls it on the supervisor's goroutine, or on the
// failing child's when the supervisor is a root guardian.
func (s *Strategy) HandleFailure(sys *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	if rs.FailureCount() >= failuresKept {
		rs.Reset()
	}
	rs.Fail()
	e := Event{Child: child.Id, Kind: kindOf(reason), Failures: rs.NumberOfFailures(s.o.Window), Reason: reason}
	kind := e.Kind
	if s.o.Vital && kind == fault.Unknown {
		kind = fault.Unavailable
	}
	e.Action = Decide(kind, e.Failures, s.o.Limit, hasAbove(sup))
	log := s.o.Log.With("actor", e.Child, "kind", e.Kind.String(), "failures", e.Failures, "reason", reason)
	switch e.Action {
	case Restart:
		e.Delay = s.o.Backoff.Delay(e.Failures, s.o.Random())
		log.Warn("actor restarts", "in", e.Delay)
		s.o.Observe(e) // before the restart: an observer sees failures in order
		s.o.After(e.Delay, func() { s.restart(sys, sup, child) })
		return
	case Escalate:
		log.Warn("actor's failure escalates", "limit", s.o.Limit, "window", s.o.Window)
		sup.EscalateFailure(reason, message)
	case GiveUp:
		log.Error("actor is given up", "limit", s.o.Limit, "window", s.o.Window)
		sup.StopChildren(child)
	default:
		log.Error("actor is stopped", "message", fmt.Sprintf("%T", message))
		sup.StopChildren(child)
	}
	s.o.Observe(e)
}

// restart runs when the delay is over, on a timer's goroutine. A child that has ended meanwhile is
// left alone; one that ends between this look and the restart is what Guard is for.
func (s *Strategy) restart(sys *actor.ActorSystem, sup actor.Supervisor, child *actor.PID) {
	if s.stopped.Load() {
		return
	}
	if _, here := sys.ProcessRegistry.GetLocal(child.Id); here {
		sup.RestartChildren(child)
	}
}

// kindOf classes what an actor panicked with: not an error is a bug.
func kindOf(reason any) fault.Kind {
	err, _ := reason.(error)
	return fault.KindOf(err)
}

// hasAbove tells whether a failure can be escalated: to an actor's supervisor, but not from a root
// guardian, which panics when asked. A guardian is no actor and so has no actor.Context.
func hasAbove(sup actor.Supervisor) bool {
	c, ok := sup.(actor.Context)
	return ok && c.Parent() != nil
}
