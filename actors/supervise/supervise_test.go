package supervise

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestDecide(t *testing.T) {
	const limit = 3
	for kind, atLimit := range map[fault.Kind]Action{
		fault.Unknown: Stop, fault.Invalid: Stop, fault.NotFound: Stop, fault.Fenced: Stop, fault.TooLarge: Stop,
		fault.Corrupt: Stop, fault.Refused: Stop, fault.Kind(200): Stop,
		fault.Conflict: Restart, fault.Unavailable: Restart, fault.Overloaded: Restart, fault.NoSpace: Restart, fault.Timeout: Restart,
	} {
		past := map[bool]Action{true: Escalate, false: GiveUp}
		if atLimit == Stop {
			past = map[bool]Action{true: Stop, false: Stop}
		}
		for _, above := range []bool{true, false} {
			require.Equal(t, atLimit, Decide(kind, 1, limit, above), kind)
			require.Equal(t, atLimit, Decide(kind, limit, limit, above), kind)
			require.Equal(t, past[above], Decide(kind, limit+1, limit, above), kind)
		}
	}
}

func TestActionNames(t *testing.T) {
	for a := range numActions {
		require.NotEqual(t, "unknown", a.String())
	}
	require.Equal(t, "unknown", numActions.String())
}

func TestKindOfAnythingAnActorPanicsWith(t *testing.T) {
	f := fault.New(fault.NoSpace, "op", "", "x")
	for _, c := range []struct {
		reason any
		want   fault.Kind
	}{{f, fault.NoSpace}, {fmt.Errorf("commit: %w", f), fault.NoSpace}, {errors.New("x"), fault.Unknown}, {"text", fault.Unknown}, {nil, fault.Unknown}, {7, fault.Unknown}} {
		require.Equal(t, c.want, kindOf(c.reason))
	}
}

func TestNewRefusesBadBounds(t *testing.T) {
	for _, o := range []Options{{Limit: -1}, {Limit: failuresKept}, {Window: -1}, {Backoff: backoff.Exponential{Min: 2, Max: 1}}} {
		_, err := New(o)
		require.Error(t, err)
	}
}

// tree is an actor system whose timers the test fires, and whose random number is 1/2.
type tree struct {
	*actor.ActorSystem
	strategy *Strategy
	t        *testing.T
	events   chan Event
	log      chan string // what the actors lived through
	timers   chan func()
}

func newTree(t *testing.T, limit int) *tree {
	x := &tree{t: t, events: make(chan Event, 100), log: make(chan string, 100), timers: make(chan func(), 100)}
	x.ActorSystem = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	t.Cleanup(x.Shutdown)
	var err error
	x.strategy, err = New(Options{Limit: limit, Backoff: backoff.Exponential{Min: time.Second, Max: 8 * time.Second, Jitter: 1},
		Observe: func(e Event) { x.events <- e },
		Log:     slog.New(slog.NewTextHandler(io.Discard, nil)),
		After:   func(_ time.Duration, f func()) { x.timers <- f },
		Random:  func() float64 { return 0.5 },
	})
	require.NoError(t, err)
	return x
}

func get[T any](t *testing.T, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		require.Fail(t, "waited a minute")
		panic("unreachable")
	}
}

func (x *tree) logs(lines ...string) {
	x.t.Helper()
	for _, want := range lines {
		require.Equal(x.t, want, get(x.t, x.log))
	}
}

// child says what it lives through, and panics with every error it is sent.
type child struct {
	name string
	x    *tree
}

func (c *child) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		c.x.log <- c.name + " started"
	case *actor.Restarting:
		c.x.log <- c.name + " restarting"
	case *actor.Stopping:
		c.x.log <- c.name + " stopping"
	case *actor.Stopped:
		c.x.log <- c.name + " stopped"
	case string:
		c.x.log <- c.name + " " + m
	case error:
		panic(m)
	}
}

func (x *tree) child(name string) *actor.Props {
	return actor.PropsFromProducer(Guard(func() actor.Actor { return &child{name, x} }))
}

// supervisor spawns its children by name, and sends their PIDs back.
func (x *tree) supervisor(names ...string) (*actor.PID, map[string]*actor.PID) {
	x.t.Helper()
	pids := make(chan map[string]*actor.PID, 10)
	props := actor.PropsFromFunc(func(c actor.Context) {
		switch m := c.Message().(type) {
		case *actor.Started:
			m2 := map[string]*actor.PID{}
			for _, n := range names {
				pid, err := c.SpawnNamed(x.child(n), n)
				if err != nil {
					panic(err)
				}
				m2[n] = pid
			}
			pids <- m2
		case *actor.PID:
			c.Stop(m)
		case *actor.Terminated:
			x.log <- "terminated " + m.Who.Id[len(c.Self().Id)+1:]
		}
	}, actor.WithSupervisor(x.strategy))
	sup := x.Root.WithGuardian(x.strategy).Spawn(props)
	return sup, get(x.t, pids)
}

var (
	notNow = fault.New(fault.Unavailable, "test", "", "not now")
	poison = fault.New(fault.Corrupt, "test", "", "bad bytes")
)

func TestRestartWaitsAndKeepsTheMail(t *testing.T) {
	x := newTree(t, 10)
	_, kids := x.supervisor("a")
	x.logs("a started")
	for n, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
		x.Root.Send(kids["a"], notNow)
		x.Root.Send(kids["a"], "mail")
		e := get(t, x.events)
		require.Equal(t, Restart, e.Action)
		require.Equal(t, fault.Unavailable, e.Kind)
		require.Equal(t, n+1, e.Failures)
		require.Equal(t, want, e.Delay)
		require.Equal(t, notNow, e.Reason)
		require.Empty(t, x.log, "nothing happens before the delay is over")
		get(t, x.timers)()
		x.logs("a restarting", "a started", "a mail")
	}
}

func TestPoisonStopsOneChildAlone(t *testing.T) {
	x := newTree(t, 10)
	_, kids := x.supervisor("a", "b")
	require.ElementsMatch(t, []string{"a started", "b started"}, []string{get(t, x.log), get(t, x.log)})
	x.Root.Send(kids["a"], poison)
	require.Equal(t, Stop, get(t, x.events).Action)
	x.logs("a stopping", "a stopped", "terminated a")
	x.Root.Send(kids["b"], "lives")
	x.logs("b lives")
	require.Empty(t, x.timers)
}

func TestLimitEscalatesAndThenGivesUp(t *testing.T) {
	x := newTree(t, 1)
	sup, kids := x.supervisor("a")
	x.logs("a started")
	x.Root.Send(kids["a"], notNow)
	require.Equal(t, Restart, get(t, x.events).Action)
	get(t, x.timers)()
	x.logs("a restarting", "a started")
	x.Root.Send(kids["a"], notNow)
	// The supervisor fails in turn, and the guardian restarts it: its children end and are new.
	events := map[Action]Event{}
	for range 2 {
		e := get(t, x.events)
		events[e.Action] = e
	}
	require.Contains(t, events, Escalate)
	require.Equal(t, sup.Id, events[Restart].Child)
	get(t, x.timers)()
	x.logs("a stopping", "a stopped", "terminated a", "a started")

	// The same again: the guardian has nobody above it.
	kid := actor.NewPID(sup.Address, sup.Id+"/a")
	x.Root.Send(kid, notNow)
	require.Equal(t, Restart, get(t, x.events).Action)
	get(t, x.timers)()
	x.logs("a restarting", "a started")
	x.Root.Send(kid, notNow)
	seen := map[Action]bool{}
	for range 2 {
		seen[get(t, x.events).Action] = true
	}
	require.Equal(t, map[Action]bool{Escalate: true, GiveUp: true}, seen)
	x.logs("a stopping", "a stopped", "terminated a")
}

func TestAGuardianGivesUpInsteadOfPanicking(t *testing.T) {
	x := newTree(t, 1)
	pid := x.Root.WithGuardian(x.strategy).Spawn(x.child("a"))
	x.logs("a started")
	x.Root.Send(pid, notNow)
	require.Equal(t, Restart, get(t, x.events).Action)
	get(t, x.timers)()
	x.logs("a restarting", "a started")
	x.Root.Send(pid, notNow)
	require.Equal(t, GiveUp, get(t, x.events).Action)
	x.logs("a stopping", "a stopped")
}

func TestRestartLeavesAStoppedChildAlone(t *testing.T) {
	x := newTree(t, 10)
	sup, kids := x.supervisor("a")
	x.logs("a started")
	x.Root.Send(kids["a"], notNow)
	get(t, x.events)
	late := get(t, x.timers)
	x.Root.Send(sup, kids["a"]) // the supervisor stops it while it waits
	x.logs("a stopping", "a stopped", "terminated a")
	late()
	require.NoError(t, x.Root.StopFuture(sup).Wait())
	require.Empty(t, x.log)
}

func TestStopCancelsWaitingRestarts(t *testing.T) {
	x := newTree(t, 10)
	sup, kids := x.supervisor("a")
	x.logs("a started")
	x.Root.Send(kids["a"], notNow)
	get(t, x.events)
	x.strategy.Stop()
	x.strategy.Stop()
	get(t, x.timers)()
	require.NoError(t, x.Root.StopFuture(sup).Wait())
	x.logs("a stopping", "a stopped", "terminated a")
	require.Empty(t, x.log)
}

// restartAnyway sends a restart as a timer would that lost the race against a stop: through a
// process reference it got before.
func restartAnyway(sys *actor.ActorSystem, pid *actor.PID) func() {
	p, _ := sys.ProcessRegistry.GetLocal(pid.Id)
	return func() { p.SendSystemMessage(pid, &actor.Restart{}) }
}

// The mailbox runs on the test's goroutine here, so that what it did is done when a call returns.
func TestGuardUndoesARestartAfterTheStop(t *testing.T) {
	x := newTree(t, 10)
	pid := x.Root.Spawn(x.child("a").Configure(actor.WithDispatcher(actor.NewSynchronizedDispatcher(300))))
	x.logs("a started")
	again := restartAnyway(x.ActorSystem, pid)
	p, _ := x.ProcessRegistry.GetLocal(pid.Id)
	require.NoError(t, x.Root.StopFuture(pid).Wait())
	x.logs("a stopping", "a stopped")
	for range 2 {
		again()
		p.SendUserMessage(pid, "are you there")
		require.Empty(t, x.log)
	}
}

// An actor that stops waits for its child, whose end the test holds up.
func TestGuardUndoesARestartDuringTheStop(t *testing.T) {
	x := newTree(t, 10)
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	grandchild := actor.PropsFromFunc(func(c actor.Context) {
		if _, ok := c.Message().(*actor.Stopping); ok {
			once.Do(func() { close(held); <-hold })
		}
	})
	starts := 0
	pid := x.Root.Spawn(actor.PropsFromProducer(Guard(func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			switch c.Message().(type) {
			case *actor.Started:
				starts++
				c.Spawn(grandchild)
			case *actor.Stopping:
				x.log <- "stopping"
			case *actor.Stopped:
				x.log <- "stopped"
			}
		})
	})))
	again := restartAnyway(x.ActorSystem, pid)
	end := x.Root.StopFuture(pid)
	<-held
	again()
	close(hold)
	require.NoError(t, end.Wait(), "whoever waits for the end gets it")
	x.logs("stopping", "stopped")
	require.Equal(t, 1, starts)
	require.Empty(t, x.log)
}
