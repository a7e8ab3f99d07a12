package actors_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/hedge"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// stalling answers at once, but for one request of so many, which it does not answer until it is stopped or its gate opens.
type stalling struct {
	*infer.Echo
	every   atomic.Int64 // 0: none
	asked   atomic.Int64
	stalled atomic.Int64 // so far
	stopped atomic.Int64 // of them, by who asked
	gate    chan struct{}
}

func newStalling(name string, every int64) *stalling {
	e := &stalling{Echo: infer.NewEcho(infer.EchoOptions{Name: name, Latency: time.Millisecond}), gate: make(chan struct{})}
	e.every.Store(every)
	return e
}

func (e *stalling) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	if n, every := e.asked.Add(1), e.every.Load(); every > 0 && n%every == 0 {
		e.stalled.Add(1)
		select {
		case <-e.gate:
		case <-ctx.Done():
			e.stopped.Add(1)
			return nil, fault.New(fault.Timeout, "stalling", "", "%w", ctx.Err())
		}
	}
	return e.Echo.Do(ctx, r)
}

func (e *stalling) engine(n int) actors.Engine {
	return actors.Engine{Engine: e, Concurrency: n, Prefetch: n}
}

// hedging has no least age: what is usual here are milliseconds.
func hedging(o *actors.Options) {
	o.Hedge = hedge.Rule{Factor: 10, After: 20 * time.Millisecond, Percent: 100}
	o.Policy.Timeout, o.Policy.LeaseMargin = time.Hour, time.Hour // no test here waits for either
}

// answers counts the results that a task's journal has, and fails where it has anything else than one claim for each.
func answers(t *testing.T, sys *actors.System, id string) (n int) {
	t.Helper()
	facts, err := sys.Tasks.History(cluster.Reader{Context: t.Context(), Router: sys.Router}, id, 0)
	require.NoError(t, err)
	for _, f := range facts {
		switch f.Event {
		case task.Answered, task.StepDone:
			n++
		case task.Submitted, task.Claimed:
		default:
			t.Fatalf("%s: %+v", id, f)
		}
	}
	require.Len(t, facts, 1+2*n, "submitted, then claimed and answered: %+v", facts)
	return n
}

// TestStragglersRunTwice: one of two engines never answers one task of ten. Every task is completed, once, at its first attempt,
// where without a second run it would take its whole timeout.
func TestStragglersRunTwice(t *testing.T) {
	bad, good := newStalling("bad", 10), newStalling("good", 0)
	sys := startWith(t, persisttest.NewStore(2), hedging, bad.engine(4), good.engine(4))
	const n = 300
	for i := range n {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("say ", i)})
	}
	seconds := int64(0)
	for i := range n {
		id := fmt.Sprint("t", i)
		r := await(t, sys, id)
		require.Equal(t, task.Completed, r.State)
		require.Equal(t, fmt.Sprint("say ", i), r.Text())
		require.EqualValues(t, 1, r.Attempt)
		require.Equal(t, 1, answers(t, sys, id))
		if p := r.Attempts[0].Answer.Second; p != nil && r.Attempts[0].Engine == "bad" {
			require.Equal(t, &task.Place{Node: "n1", Engine: "good"}, p)
			seconds++
		}
	}
	until(t, "everything is let go", func() bool { return sys.Busy() == 0 })
	require.NotZero(t, bad.stalled.Load())
	require.Equal(t, bad.stalled.Load(), bad.stopped.Load(), "the slot of each is free again")
	require.GreaterOrEqual(t, seconds, bad.stalled.Load()-1, "but for one that was itself a second run")
	for _, e := range sys.Engines() {
		require.Equal(t, infer.Closed, e.Circuit, "a run that was stopped is no failure")
		require.Equal(t, 4, e.Limit)
		require.True(t, e.Healthy)
	}
}

// TestStepsOfAStragglerRunTwice: of a task with steps it is the same step.
func TestStepsOfAStragglerRunTwice(t *testing.T) {
	bad, good := newStalling("bad", 5), newStalling("good", 0)
	sys := startWith(t, persisttest.NewStore(2), hedging, bad.engine(4), good.engine(4))
	const n = 40
	for i := range n {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "one", Steps: task.Texts("two", "three")})
	}
	for i := range n {
		r := await(t, sys, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.Equal(t, 3, answers(t, sys, fmt.Sprint("t", i)))
		require.Len(t, r.Answers, 3)
		for j, want := range []string{"one", "two", "three"} {
			require.Equal(t, want, r.Answers[j].Text)
		}
	}
}

// usual makes it known how long tasks like those of the tests take.
func usual(t *testing.T, sys *actors.System) {
	t.Helper()
	for i := range 60 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("usual", i), Prompt: "say"})
	}
	for i := range 60 {
		await(t, sys, fmt.Sprint("usual", i))
	}
}

// TestBothRunsAnswer, at the same moment: one result is recorded.
func TestBothRunsAnswer(t *testing.T) {
	a, b := newHolding("a"), newHolding("b")
	sys := startWith(t, persisttest.NewStore(2), hedging, a.engine(8), b.engine(8))
	usual(t, sys)
	for round := range 5 {
		id := fmt.Sprint("t", round)
		gate := make(chan struct{})
		a.hold(gate)
		b.hold(gate)
		submit(t, sys, &task.Spec{ID: id, Prompt: "say"})
		until(t, "both are at it", func() bool { return a.held.Load()+b.held.Load() == 2 })
		a.hold(nil)
		b.hold(nil)
		close(gate)
		r := await(t, sys, id)
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
		until(t, "both are done", func() bool { return sys.Busy() == 0 })
		require.Equal(t, 1, answers(t, sys, id))
	}
}

// TestOneRunFailsAndTheOtherAnswers: an error of one says nothing, whichever it is; of both it is a failed try.
func TestOneRunFailsAndTheOtherAnswers(t *testing.T) {
	a, b := newHolding("a"), newHolding("b")
	sys := startWith(t, persisttest.NewStore(2), hedging, a.engine(8), b.engine(8))
	usual(t, sys)
	for i, fails := range [][]*holding{{a}, {b}, {a, b}} {
		id := fmt.Sprint("t", i)
		gateA, gateB := make(chan struct{}), make(chan struct{})
		a.hold(gateA)
		b.hold(gateB)
		submit(t, sys, &task.Spec{ID: id, Prompt: "say"})
		until(t, "both are at it", func() bool { return a.held.Load()+b.held.Load() == 2 })
		a.hold(nil)
		b.hold(nil)
		for _, e := range fails {
			e.fail.Store(true)
		}
		if fails[0] == a {
			close(gateA)
			until(t, "one failed", func() bool { return a.held.Load() == 0 })
			close(gateB)
		} else {
			close(gateB)
			until(t, "one failed", func() bool { return b.held.Load() == 0 })
			close(gateA)
		}
		until(t, "both are done", func() bool { return a.held.Load()+b.held.Load() == 0 })
		for _, e := range fails {
			e.fail.Store(false)
		}
		r := await(t, sys, id)
		require.Equal(t, task.Completed, r.State)
		if len(fails) == 2 {
			require.EqualValues(t, 2, r.Attempt, "one try failed, and not two")
			continue
		}
		require.EqualValues(t, 1, r.Attempt)
		require.Equal(t, 1, answers(t, sys, id))
	}
}

// TestTheOwnerGoesWhileBothRun: the lead is won anew, so its tasks are replayed, and the result is recorded by the next life.
func TestTheOwnerGoesWhileBothRun(t *testing.T) {
	a, b := newHolding("a"), newHolding("b")
	w := newWorld(t, 2, "x", "y", "z")
	w.start("x", nil)
	w.start("y", nil)
	z := w.start("z", hedging, a.engine(8), b.engine(8))
	w.spread("x")
	usual(t, z.System)
	gate := make(chan struct{})
	a.hold(gate)
	b.hold(gate)
	for i := range 4 {
		submit(t, z.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "say"})
	}
	until(t, "all run twice", func() bool { return a.held.Load()+b.held.Load() == 8 })
	var wg sync.WaitGroup
	wg.Go(func() { close(gate) })
	w.kill("x", "y")
	wg.Wait()
	for i := range 4 {
		require.Equal(t, task.Completed, await(t, z.System, fmt.Sprint("t", i)).State)
		require.Equal(t, 1, answers(t, z.System, fmt.Sprint("t", i)))
	}
	until(t, "everything is let go", func() bool { return z.Busy() == 0 })
}

// farHedging has two nodes with an engine each, of which the first owns all tasks. Both know what is usual.
func farHedging(t *testing.T, a, b actors.Engine, asked ...*atomic.Int64) (w *world, x, y *node) {
	w = newWorld(t, 2, "x", "y")
	x = w.start("x", hedging, a)
	y = w.start("y", hedging, b)
	w.spread("x")
	n := 0
	until(t, "both have answered some", func() bool {
		for range 50 {
			submit(t, x.System, &task.Spec{ID: fmt.Sprint("usual", n), Prompt: "say"})
			n++
		}
		for i := range n {
			await(t, x.System, fmt.Sprint("usual", i))
		}
		return asked[0].Load() >= 40 && asked[1].Load() >= 40
	})
	return w, x, y
}

// TestStragglersRunOnAnotherNode, where this one has no other engine.
func TestStragglersRunOnAnotherNode(t *testing.T) {
	bad, good := newStalling("e", 0), newStalling("e", 0) // engines of two nodes may have one name
	w, x, y := farHedging(t, bad.engine(4), good.engine(4), &bad.asked, &good.asked)
	bad.every.Store(10)
	const n = 100
	for i := range n {
		submit(t, x.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "say"})
	}
	elsewhere := 0
	for i := range n {
		id := fmt.Sprint("t", i)
		r := await(t, x.System, id)
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
		require.Equal(t, 1, answers(t, x.System, id))
		if p := r.Attempts[0].Answer.Second; p != nil && r.Attempts[0].Node == "x" {
			require.Equal(t, &task.Place{Node: "y", Engine: "e"}, p)
			elsewhere++
		}
	}
	require.NotZero(t, elsewhere)
	require.NotZero(t, w.net.sent("task.second"))
	until(t, "everything is let go", func() bool { return x.Busy() == 0 && y.Busy() == 0 })
	require.Equal(t, bad.stalled.Load(), bad.stopped.Load())
}

// TestARunOnAnotherNodeThatIsTooSlow is stopped there; one whose node dies costs nothing.
func TestARunOnAnotherNodeThatIsTooSlow(t *testing.T) {
	a, b := newHolding("a"), newHolding("b")
	w, x, _ := farHedging(t, a.engine(8), b.engine(8), &a.asked, &b.asked)
	run := func(id string) (gates [2]chan struct{}) {
		before := a.held.Load() + b.held.Load()
		gates = [2]chan struct{}{make(chan struct{}), make(chan struct{})}
		a.hold(gates[0])
		b.hold(gates[1])
		submit(t, x.System, &task.Spec{ID: id, Prompt: "say"})
		until(t, "both are at it", func() bool { return a.held.Load()+b.held.Load() == before+2 })
		a.hold(nil)
		b.hold(nil)
		return gates
	}
	gates := run("slow")
	first, other := 0, b
	if x.record(t, "slow").Attempts[0].Node == "y" {
		first, other = 1, a
	}
	close(gates[first])
	require.Equal(t, task.Completed, await(t, x.System, "slow").State)
	require.Nil(t, x.record(t, "slow").Attempts[0].Answer.Second)
	until(t, "the other is stopped", func() bool { return other.held.Load() == 0 })

	gates = run("dead")
	w.kill("y", "x")
	close(gates[0])
	require.Equal(t, task.Completed, await(t, x.System, "dead").State)
	facts, err := x.Tasks.History(cluster.Reader{Context: t.Context(), Router: x.Router}, "dead", 0)
	require.NoError(t, err)
	answered := 0
	for _, f := range facts {
		require.NotEqual(t, task.AttemptFailed, f.Event)
		if f.Event == task.Answered {
			answered++
		}
	}
	require.Equal(t, 1, answered)
	until(t, "everything is let go", func() bool { return x.Busy() == 0 })
}

func (n *node) record(t *testing.T, id string) task.Record {
	t.Helper()
	r, _, err := n.Tasks.Load(cluster.Reader{Context: t.Context(), Router: n.Router}, id)
	require.NoError(t, err)
	return r
}

// TestTheNodeOfASecondRunRestarts: that says nothing about the task, whose first run failed in a way that is tried again.
func TestTheNodeOfASecondRunRestarts(t *testing.T) {
	a, b := newHolding("a"), newHolding("b")
	w, x, _ := farHedging(t, a.engine(8), b.engine(8), &a.asked, &b.asked)
	id := ""
	var gateA, gateB chan struct{}
	for i := 0; ; i++ {
		require.Less(t, i, 50, "the first run is never on x")
		id = fmt.Sprint("t", i)
		gateA, gateB = make(chan struct{}), make(chan struct{})
		a.hold(gateA)
		b.hold(gateB)
		submit(t, x.System, &task.Spec{ID: id, Prompt: "say"})
		until(t, "both are at it", func() bool { return a.held.Load() == 1 && b.held.Load() == 1 })
		a.hold(nil)
		b.hold(nil)
		if x.record(t, id).Attempts[0].Node == "x" {
			break
		}
		close(gateA)
		close(gateB)
		await(t, x.System, id)
		until(t, "both are done", func() bool { return a.held.Load()+b.held.Load() == 0 })
	}
	a.fail.Store(true)
	close(gateA)
	until(t, "the first run failed", func() bool { return a.held.Load() == 0 })
	w.kill("y", "x")
	w.start("y", hedging, b.engine(8))
	r := await(t, x.System, id)
	require.Equal(t, task.Completed, r.State)
	require.EqualValues(t, 2, r.Attempt)
	require.Contains(t, r.Attempts[0].Error.Message, "failed", "the first run's own error")
}

// TestAnErrorIsKeptWhereTheOtherRunFindsNoRoom: the first run fails for good while another node is asked for a second one, and that node has
// no room. The task has failed, and is not run once more for free.
func TestAnErrorIsKeptWhereTheOtherRunFindsNoRoom(t *testing.T) {
	a := newHolding("a")
	w := newWorld(t, 2, "x", "y")
	x := w.start("x", hedging, a.engine(8))
	w.start("y", hedging, actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Name: "b", Models: []string{"other"}}), Concurrency: 1})
	w.spread("x")
	usual(t, x.System)
	w.net.setRule(func(_, _, op string, answer bool) (f fate) {
		if op == "task.second" && answer {
			f.late = time.Second
		}
		return f
	})
	gate := make(chan struct{})
	a.hold(gate)
	a.wrong.Store(true)
	submit(t, x.System, &task.Spec{ID: "t", Prompt: "say"})
	until(t, "y is asked", func() bool { return w.net.sent("task.second") > 0 })
	a.hold(nil)
	close(gate)
	r := await(t, x.System, "t")
	require.Equal(t, task.Failed, r.State)
	require.EqualValues(t, 1, r.Attempt)
	require.Contains(t, r.Attempts[0].Error.Message, "wrong")
	until(t, "everything is let go", func() bool { return x.Busy() == 0 })
}

// TestACancelStopsBothRuns.
func TestACancelStopsBothRuns(t *testing.T) {
	a, b := newHolding("a"), newHolding("b")
	w := newWorld(t, 1, "x")
	x := w.start("x", hedging, a.engine(8), b.engine(8))
	w.spread("x")
	usual(t, x.System)
	a.hold(make(chan struct{}))
	b.hold(make(chan struct{}))
	submit(t, x.System, &task.Spec{ID: "t", Prompt: "say"})
	until(t, "both are at it", func() bool { return a.held.Load()+b.held.Load() == 2 })
	_, err := x.Router.Ask(t.Context(), task.Key("t"), &task.Cancel{Reason: "enough"})
	require.NoError(t, err)
	until(t, "both are stopped", func() bool { return a.held.Load()+b.held.Load() == 0 })
	until(t, "everything is let go", func() bool { return x.Busy() == 0 })
	require.EqualValues(t, 3, await(t, x.System, "t").Version)
}

// holding is an engine that holds what comes while a gate is set.
type holding struct {
	*infer.Echo
	mu    sync.Mutex
	gate  chan struct{}
	held  atomic.Int64
	asked atomic.Int64
	fail  atomic.Bool // what was held fails, and another try may not
	wrong atomic.Bool // as it always will
}

func newHolding(name string) *holding {
	return &holding{Echo: infer.NewEcho(infer.EchoOptions{Name: name, Latency: time.Millisecond})}
}

func (e *holding) engine(n int) actors.Engine {
	return actors.Engine{Engine: e, Concurrency: n, Prefetch: n}
}

// hold sets the gate; nil: none.
func (e *holding) hold(gate chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gate = gate
}

func (e *holding) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	e.asked.Add(1)
	e.mu.Lock()
	gate := e.gate
	e.mu.Unlock()
	if gate == nil {
		return e.Echo.Do(ctx, r)
	}
	e.held.Add(1)
	defer e.held.Add(-1)
	select {
	case <-gate:
	case <-ctx.Done():
		return nil, fault.New(fault.Timeout, "holding", "", "%w", ctx.Err())
	}
	if e.wrong.Load() {
		return nil, fault.New(fault.Invalid, "holding", "", "wrong")
	}
	if e.fail.Load() {
		return nil, fault.New(fault.Timeout, "holding", "", "failed")
	}
	return e.Echo.Do(ctx, r)
}
