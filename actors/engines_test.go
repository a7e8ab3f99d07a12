package actors_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// guest is an engine that knows whether it has been sent home.
type guest struct {
	*infer.Echo
	gone  atomic.Bool
	late  *atomic.Int64 // requests after that
	asked *atomic.Int64
}

func (g *guest) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	g.asked.Add(1)
	if g.gone.Load() {
		g.late.Add(1)
	}
	return g.Echo.Do(ctx, r)
}

// TestEnginesComeAndGo under load: no task is lost, none is asked for twice, none loses a try, and an engine that was removed is asked nothing.
func TestEnginesComeAndGo(t *testing.T) {
	var late, asked atomic.Int64
	newGuest := func(i int) *guest {
		return &guest{Echo: infer.NewEcho(infer.EchoOptions{Name: fmt.Sprint("e", i), Latency: time.Millisecond}), late: &late, asked: &asked}
	}
	engine := func(g *guest) actors.Engine { return actors.Engine{Engine: g, Concurrency: 8, Prefetch: 8} }
	old := newGuest(0)
	sys := start(t, persisttest.NewStore(4), engine(old))
	require.Equal(t, fault.Conflict, fault.KindOf(sys.AddEngine(engine(newGuest(0)))))
	require.Equal(t, fault.NotFound, fault.KindOf(sys.RemoveEngine(t.Context(), "nobody")))
	require.Equal(t, fault.Invalid, fault.KindOf(sys.AddEngine(actors.Engine{Engine: newGuest(77)})))

	const n, swaps = 1200, 12
	for i := range n {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("say ", i)})
		if i%(n/swaps) == n/swaps-1 { // while most of them wait
			next := newGuest(1 + i)
			require.NoError(t, sys.AddEngine(engine(next)))
			require.NoError(t, sys.RemoveEngine(t.Context(), old.Name()))
			old.gone.Store(true)
			old = next
			require.Len(t, sys.Engines(), 1)
		}
	}
	for i := range n {
		r := await(t, sys, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
		require.Equal(t, fmt.Sprint("say ", i), r.Text())
		for _, a := range r.Attempts[:len(r.Attempts)-1] {
			require.Equal(t, task.Returned.String(), a.Outcome, "and cost no try")
		}
	}
	require.Zero(t, late.Load())
	require.EqualValues(t, n, asked.Load(), "each was asked for once")
}

// TestRemovingAnEngineThatHangs: what it never answers is broken off when the time is over, and done by another at no cost of a try.
func TestRemovingAnEngineThatHangs(t *testing.T) {
	slow := infer.NewEcho(infer.EchoOptions{Name: "slow", Latency: time.Hour})
	sys := start(t, persisttest.NewStore(2), actors.Engine{Engine: slow, Concurrency: 2, Prefetch: 2})
	for i := range 4 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	require.Eventually(t, func() bool { return sys.Engines()[0].InFlight == 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, sys.AddEngine(actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{}), Concurrency: 2}))
	ctx, cancel := context.WithCancel(t.Context())
	removed := make(chan error)
	go func() { removed <- sys.RemoveEngine(ctx, "slow") }()
	require.Eventually(t, func() bool { return sys.Engines()[0].Draining }, 10*time.Second, time.Millisecond)
	require.Equal(t, 2, sys.Engines()[0].InFlight, "what runs may end")
	cancel()
	require.NoError(t, <-removed)
	for i := range 4 {
		r := await(t, sys, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State)
	}
}
