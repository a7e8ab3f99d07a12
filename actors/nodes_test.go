package actors_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func echo(n int) actors.Engine {
	return actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{}), Concurrency: n, Prefetch: n}
}

// gated is an engine that answers once its gate is open.
type gated struct {
	*infer.Echo
	gate chan struct{}
	busy atomic.Int64
}

func newGated() *gated {
	return &gated{Echo: infer.NewEcho(infer.EchoOptions{}), gate: make(chan struct{})}
}

func (g *gated) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	g.busy.Add(1)
	defer g.busy.Add(-1)
	select {
	case <-g.gate:
		return g.Echo.Do(ctx, r)
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, "gated", "", "%w", ctx.Err())
	}
}

func (g *gated) engine(n int) actors.Engine { return actors.Engine{Engine: g, Concurrency: n} }

// owned reads a task's record from the memory of its shard, whoever owns it.
func (w *world) record(n *node, id string) task.Record {
	w.t.Helper()
	r, _, err := n.Tasks.Load(w.disks.Memory(n.Router.ShardOf(task.Key(id))), id)
	require.NoError(w.t, err)
	return r
}

// once fails unless the task ended with exactly one result.
func (w *world) once(n *node, id string) {
	w.t.Helper()
	facts, err := n.Tasks.History(w.disks.Memory(n.Router.ShardOf(task.Key(id))), id, 0)
	require.NoError(w.t, err)
	answers := 0
	for _, f := range facts {
		if f.Event == task.Answered {
			answers++
		}
	}
	require.Equal(w.t, 1, answers, "%s: %+v", id, facts)
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 2*time.Millisecond, what)
}

// TestEnginesServeOtherNodesTasks: one node has the tasks, another the engine.
func TestEnginesServeOtherNodesTasks(t *testing.T) {
	w := newWorld(t, 4, "a", "b")
	a := w.start("a", nil)
	b := w.start("b", nil, echo(16))
	w.spread("a")
	for i := range 200 {
		submit(t, []*node{a, b}[i%2].System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("<say & ", i, ">")})
	}
	for i := range 200 {
		r := await(t, []*node{b, a}[i%2].System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.Equal(t, fmt.Sprint("<say & ", i, ">"), r.Text())
		require.Equal(t, "b", r.Attempts[0].Node)
		require.EqualValues(t, 3, r.Version, "submitted, claimed, answered: %+v", r)
	}
	require.Zero(t, len(b.Shards.Owners()))
	until(t, "everything is let go", func() bool { return b.Busy() == 0 })
}

// TestAllEnginesWork: three nodes own and run.
func TestAllEnginesWork(t *testing.T) {
	w := newWorld(t, 6, "a", "b", "c")
	nodes := []*node{w.start("a", nil, echo(4)), w.start("b", nil, echo(4)), w.start("c", nil, echo(4))}
	w.spread("a", "b", "c")
	for i := range 600 {
		submit(t, nodes[i%3].System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	by := map[string]int{}
	for i := range 600 {
		r := await(t, nodes[(i+1)%3].System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		by[r.Attempts[len(r.Attempts)-1].Node]++
		w.once(nodes[0], fmt.Sprint("t", i))
	}
	require.Len(t, by, 3)
}

// TestANodeWithoutRoomAsksNobody: no engine, or an engine that is full, costs no message.
func TestANodeWithoutRoomAsksNobody(t *testing.T) {
	w := newWorld(t, 2, "a", "b")
	a := w.start("a", nil)
	g := newGated()
	w.start("b", nil, g.engine(1))
	w.spread("a")
	submit(t, a.System, &task.Spec{ID: "first", Prompt: "p"})
	until(t, "it runs", func() bool { return g.busy.Load() == 1 })
	before := w.net.sent("task.waiting") + w.net.sent("task.claim") + w.net.sent("task.ready")
	for i := range 50 {
		submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	held := w.net.sent("task.held")
	until(t, "two roll calls", func() bool { return w.net.sent("task.held") >= held+2 })
	after := w.net.sent("task.waiting") + w.net.sent("task.claim") + w.net.sent("task.ready")
	require.LessOrEqual(t, after-before, 2, "each shard may be told of once, since b found both empty")
	close(g.gate)
	for i := range 50 {
		await(t, a.System, fmt.Sprint("t", i))
	}
}

// TestAClockThatIsAheadHoldsNothingUp: what a node accepts by its own clock runs at once where the clock is right, and the
// reverse. What is to wait waits by the clock of its shard's owner.
func TestAClockThatIsAheadHoldsNothingUp(t *testing.T) {
	w := newWorld(t, 4, "a", "b", "c")
	ahead := func() time.Time { return time.Now().Add(10 * time.Minute) }
	a := w.start("a", func(o *actors.Options) { o.Now = ahead })
	b := w.start("b", nil, echo(4))
	c := w.start("c", nil)
	w.spread("b", "c")
	later := time.Now().Add(5 * time.Minute)
	submitAt(t, a.System, &task.Spec{ID: "later", Prompt: "p", NotBefore: &later}, ahead)
	for i := range 40 {
		submitAt(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p", Steps: task.Texts("and")}, ahead)
	}
	for i := range 40 {
		r := await(t, []*node{a, b, c}[i%3].System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.Equal(t, "b", r.Attempts[0].Node)
		w.once(a, fmt.Sprint("t", i))
	}
	require.Equal(t, task.Pending, w.record(a, "later").State)
}

// TestTidingsAreEnough, and questions are: each alone brings tasks to an engine elsewhere.
func TestTidingsAreEnough(t *testing.T) {
	for _, op := range []string{"task.ready", "task.waiting"} {
		t.Run("without "+op, func(t *testing.T) {
			w := newWorld(t, 2, "a", "b")
			a := w.start("a", nil)
			w.start("b", nil, echo(4))
			w.spread("a")
			submit(t, a.System, &task.Spec{ID: "warm", Prompt: "p"}) // now b has found a's shards empty
			await(t, a.System, "warm")
			asked := w.net.sent("task.waiting")
			until(t, "b asks again", func() bool { return w.net.sent("task.waiting") > asked })
			w.net.setRule(func(_, _, o string, answer bool) fate { return fate{lost: o == op && answer == (op == "task.waiting")} })
			for i := range 3 {
				submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
				require.Equal(t, task.Completed, await(t, a.System, fmt.Sprint("t", i)).State)
			}
		})
	}
}

// TestAnAttemptSurvivesItsOwner: the shard moves while an engine works; the answer counts under the new owner.
func TestAnAttemptSurvivesItsOwner(t *testing.T) {
	w := newWorld(t, 1, "a", "b", "c")
	a := w.start("a", nil)
	g := newGated()
	w.start("b", nil, g.engine(8))
	c := w.start("c", nil)
	w.spread("a")
	for i := range 8 {
		submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	until(t, "they run", func() bool { return g.busy.Load() == 8 })
	w.disks.Lead(0, "c")
	until(t, "c owns it", func() bool { _, err := c.Router.Owner(0); return err == nil })
	w.kill("a", "c")
	held := w.net.sent("task.held")
	until(t, "the new owner called the roll", func() bool { return w.net.sent("task.held") > held+1 })
	require.EqualValues(t, 8, g.busy.Load())
	close(g.gate)
	for i := range 8 {
		r := await(t, c.System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
		require.EqualValues(t, 3, r.Version, "nothing was taken back")
	}
}

// TestADeadNodesAttemptsRunElsewhere at once: no lease is waited for, and no try is lost.
func TestADeadNodesAttemptsRunElsewhere(t *testing.T) {
	w := newWorld(t, 2, "a", "b", "c")
	a := w.start("a", func(o *actors.Options) { o.Reconcile = time.Hour })
	g := newGated()
	w.start("b", nil, g.engine(8))
	w.spread("a")
	for i := range 8 {
		submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p", Retry: &task.Retry{Attempts: 1}})
	}
	until(t, "they run", func() bool { return g.busy.Load() == 8 })
	w.start("c", nil, echo(8))
	w.kill("b", "a")
	for i := range 8 {
		r := await(t, a.System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State, "%+v", r)
		require.EqualValues(t, 2, r.Attempt)
		require.EqualValues(t, 1, r.Moves)
		require.Equal(t, "c", r.Attempts[1].Node)
		require.Equal(t, task.OwnerMoved.String(), r.Attempts[0].Outcome)
	}
}

// TestAnOwnerThatRunsItsOwnTasksDies: the heir takes them back on its first look.
func TestAnOwnerThatRunsItsOwnTasksDies(t *testing.T) {
	w := newWorld(t, 2, "a", "b")
	g := newGated()
	a := w.start("a", nil, g.engine(8))
	w.spread("a")
	for i := range 8 {
		submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	until(t, "they run", func() bool { return g.busy.Load() == 8 })
	b := w.start("b", nil, echo(8))
	w.kill("a", "b")
	for i := range 8 {
		r := await(t, b.System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Moves)
		w.once(b, fmt.Sprint("t", i))
	}
}

// TestALostAnswerIsGivenAgain: the next claim goes on under the same id.
func TestALostAnswerIsGivenAgain(t *testing.T) {
	w := newWorld(t, 1, "a", "b")
	a := w.start("a", func(o *actors.Options) { o.Reconcile = time.Hour })
	var lost atomic.Int64
	w.net.setRule(func(_, _, op string, answer bool) fate {
		return fate{lost: op == "task.claim" && answer && lost.Add(1) == 1}
	})
	w.spread("a")
	for i := range 4 {
		submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	w.start("b", nil, echo(8))
	for i := range 4 {
		r := await(t, a.System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
	}
	require.Greater(t, lost.Load(), int64(1))
}

// TestTheRollCallFindsWhatGotLost: an attempt is journaled on a node that never hears of it.
func TestTheRollCallFindsWhatGotLost(t *testing.T) {
	w := newWorld(t, 1, "a", "b")
	a := w.start("a", nil)
	w.net.setRule(func(_, _, op string, answer bool) fate { return fate{lost: op == "task.claim" && answer} })
	w.spread("a")
	submit(t, a.System, &task.Spec{ID: "t", Prompt: "p", Retry: &task.Retry{Attempts: 1}})
	w.start("b", nil, echo(8))
	until(t, "it is returned", func() bool { return w.record(a, "t").Moves > 0 })
	w.net.setRule(nil)
	r := await(t, a.System, "t")
	require.Equal(t, task.Completed, r.State, "no try was lost")
	w.once(a, "t")
}

// TestMessagesThatComeTwice do nothing twice.
func TestMessagesThatComeTwice(t *testing.T) {
	w := newWorld(t, 2, "a", "b")
	a := w.start("a", nil)
	w.start("b", nil, echo(8))
	w.net.setRule(func(string, string, string, bool) fate { return fate{twice: true} })
	w.spread("a")
	for i := range 200 {
		submit(t, a.System, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	for i := range 200 {
		r := await(t, a.System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
		w.once(a, fmt.Sprint("t", i))
	}
}

// TestARoughNetwork loses, delays and repeats, shards move, and a node dies: every task ends with one result.
func TestARoughNetwork(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, 6, "a", "b", "c")
	names := []string{"a", "b", "c"}
	nodes := map[string]*node{}
	for _, n := range names {
		nodes[n] = w.start(n, nil, actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Latency: time.Millisecond}), Concurrency: 8, Prefetch: 8})
	}
	w.spread(names...)
	w.net.setRule(rough(rand.New(rand.NewPCG(seed, 2)), 0.05, 0.1, 5*time.Millisecond))
	const rounds, each, n = 12, 25, 12 * 25
	var senders sync.WaitGroup // a lost message costs its sender a whole try: they do not wait for each other
	for round := range rounds {
		from := nodes[[]string{"a", "b"}[round%2]]
		for i := range each {
			senders.Go(func() { assert.NoError(t, resubmit(t.Context(), from, fmt.Sprint("t", round*each+i))) })
		}
		w.disks.Lead(rng.IntN(6), names[rng.IntN(len(names))])
		if round == rounds/2 {
			until(t, "c works", func() bool { return w.ran(nodes["a"], n, "c") > 0 })
			w.kill("c", "b")
			names = names[:2]
		}
		until(t, "some of them have ended", func() bool { return w.ended(nodes["a"], n) >= round*each/2 })
	}
	senders.Wait()
	require.Eventually(t, func() bool { return w.ended(nodes["a"], n) == n }, 60*time.Second, 50*time.Millisecond)
	for i := range n {
		id := fmt.Sprint("t", i)
		require.Equal(t, task.Completed, w.record(nodes["a"], id).State)
		w.once(nodes["a"], id)
	}
	w.net.setRule(nil)
	from := cluster.Reader{Context: t.Context(), Router: nodes["a"].Router}
	r, _, err := nodes["a"].Tasks.Load(from, "t0")
	require.NoError(t, err)
	require.Equal(t, task.Completed, r.State, "as read through the cluster")
}

// resubmit creates a task, over and over until it is known to be there.
func resubmit(ctx context.Context, from *node, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	spec := &task.Spec{ID: id, Prompt: "p"}
	msg := &task.Submit{Spec: spec, Model: "m"}
	_, write, err := from.Tasks.First(id, msg, time.Now)
	if err != nil {
		return err
	}
	if err = from.Router.Create(ctx, []persistence.Write{write})[0]; fault.KindOf(err) == fault.Conflict {
		_, err = from.Router.Ask(ctx, task.Key(id), msg) // a try whose answer was lost made it, and it went on
	}
	return err
}

// ended counts the final ones of t0 to tn-1.
func (w *world) ended(n *node, tasks int) (final int) {
	for i := range tasks {
		if w.record(n, fmt.Sprint("t", i)).State.Final() {
			final++
		}
	}
	return final
}

// ran counts those of which a node had an attempt.
func (w *world) ran(n *node, tasks int, name string) (had int) {
	for i := range tasks {
		for _, a := range w.record(n, fmt.Sprint("t", i)).Attempts {
			if a.Node == name {
				had++
				break
			}
		}
	}
	return had
}
