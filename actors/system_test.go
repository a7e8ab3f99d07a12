package actors_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

func start(t testing.TB, store persistence.Store, engines ...actors.Engine) *actors.System {
	t.Helper()
	return startWith(t, store, func(*actors.Options) {}, engines...)
}

func startWith(t testing.TB, store persistence.Store, change func(*actors.Options), engines ...actors.Engine) *actors.System {
	t.Helper()
	o := options(store, engines...)
	change(&o)
	sys, err := actors.Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { sys.Stop(); require.NoError(t, store.Close()) })
	select {
	case <-sys.Shards.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("shards are not ready")
	}
	return sys
}

func options(store persistence.Store, engines ...actors.Engine) actors.Options {
	m := meter.New(prometheus.NewRegistry())
	policy := task.DefaultPolicy(rand.Float64)
	policy.BackoffMin, policy.BackoffMax = 5*time.Millisecond, 20*time.Millisecond
	return actors.Options{
		Node: "n1", Store: store, Engines: engines, Policy: policy, Window: batch.DefaultWindow(), Reconcile: 250 * time.Millisecond,
		Runner: &infer.Runner{Meter: m, Now: time.Now}, Meter: m, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
}

func submit(t testing.TB, sys *actors.System, spec *task.Spec) {
	t.Helper()
	submitAt(t, sys, spec, time.Now)
}

// submitAt accepts a task by the clock of the node that does.
func submitAt(t testing.TB, sys *actors.System, spec *task.Spec, now func() time.Time) {
	t.Helper()
	_, w, err := sys.Tasks.First(spec.ID, &task.Submit{Spec: spec, Model: "m"}, now)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, sys.Router.Create(ctx, []persistence.Write{w})[0])
}

// await waits until the task is final.
func await(t testing.TB, sys *actors.System, id string) task.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	changed, stop := sys.Router.Watch(task.Key(id))
	defer stop()
	for {
		r, _, err := sys.Tasks.Load(cluster.Reader{Context: ctx, Router: sys.Router}, id)
		require.NoError(t, err)
		if r.State.Final() {
			return r
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("task %s is still %v: %+v", id, r.State, r)
		}
	}
}

func TestTasksAreAnswered(t *testing.T) {
	// A machine that is busy must not make a roll call find a work missing that is about to arrive.
	patient := func(o *actors.Options) { o.Reconcile = time.Hour }
	sys := startWith(t, persisttest.NewStore(4), patient, actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{}), Concurrency: 32, Prefetch: 8})
	const n = 2000
	for i := range n {
		submit(t, sys, &task.Spec{ID: fmt.Sprintf("t%d", i), Prompt: fmt.Sprintf("say %d", i)})
	}
	for i := range n {
		r := await(t, sys, fmt.Sprintf("t%d", i))
		require.Equal(t, task.Completed, r.State)
		require.Equal(t, fmt.Sprintf("say %d", i), r.Text())
		require.EqualValues(t, 3, r.Version, "submitted, claimed, answered")
	}
}

func TestFailingAttemptsAreRetriedThenGivenUp(t *testing.T) {
	sys := start(t, persisttest.NewStore(2), actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Directives: true}), Concurrency: 4, Prefetch: 2})
	submit(t, sys, &task.Spec{ID: "twice", Prompt: "#echo fail=2 kind=timeout\nhello"})
	submit(t, sys, &task.Spec{ID: "always", Prompt: "#echo fail=always kind=timeout\nhello"})
	submit(t, sys, &task.Spec{ID: "refused", Prompt: "#echo fail=always kind=invalid\nhello"})

	r := await(t, sys, "twice")
	require.Equal(t, task.Completed, r.State)
	require.Equal(t, "hello", r.Text())
	require.EqualValues(t, 3, r.Attempt)

	r = await(t, sys, "always")
	require.Equal(t, task.Failed, r.State)
	require.EqualValues(t, 4, r.Attempt, "the policy's attempts")
	require.Equal(t, "timeout", r.Error.Kind)

	r = await(t, sys, "refused")
	require.Equal(t, task.Failed, r.State)
	require.EqualValues(t, 1, r.Attempt, "an invalid request fails at once")
}

func TestStepsSeeTheAnswersBefore(t *testing.T) {
	sys := start(t, persisttest.NewStore(2), actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{}), Concurrency: 4})
	submit(t, sys, &task.Spec{ID: "steps", Prompt: "one", Steps: task.Texts("two", "three")})
	r := await(t, sys, "steps")
	require.Equal(t, task.Completed, r.State)
	require.Len(t, r.Answers, 3)
	require.Equal(t, "three", r.Text())
	require.Len(t, r.Conversation(), 6)
}

// moody is an engine that is not well until it is told so, and counts who asked it
// all the same.
type moody struct {
	*infer.Echo
	well  atomic.Bool
	asked atomic.Int64
}

func (m *moody) Health(context.Context) error {
	if m.well.Load() {
		return nil
	}
	return fault.New(fault.Unavailable, "moody", "", "not now")
}

func (m *moody) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	m.asked.Add(1)
	if err := m.Health(ctx); err != nil {
		return nil, err
	}
	return m.Echo.Do(ctx, r)
}

// TestAnEngineThatIsDownCostsNoTries: while an engine starts, or is down, tasks wait;
// they do not spend their attempts on it.
func TestAnEngineThatIsDownCostsNoTries(t *testing.T) {
	e := &moody{Echo: infer.NewEcho(infer.EchoOptions{})}
	sys := start(t, persisttest.NewStore(2), actors.Engine{Engine: e, Concurrency: 4, Prefetch: 4})
	for i := range 20 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	require.Eventually(t, func() bool { return sys.Engines()[0].Reason == "not now" }, 10*time.Second, time.Millisecond)
	require.Zero(t, e.asked.Load())
	e.well.Store(true)
	for i := range 20 {
		r := await(t, sys, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
	}

	e.well.Store(false) // it goes down while it has credit to give
	for i := range 20 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("u", i), Prompt: "p"})
	}
	require.Eventually(t, func() bool { return !sys.Engines()[0].Healthy }, 10*time.Second, time.Millisecond)
	e.well.Store(true)
	for i := range 20 {
		r := await(t, sys, fmt.Sprint("u", i))
		require.Equal(t, task.Completed, r.State)
		require.LessOrEqual(t, len(r.Attempts), 3)
	}
}
