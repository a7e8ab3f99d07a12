package actors_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// stubborn is an engine that answers "go" and otherwise works until it is told to stop.
type stubborn struct {
	*infer.Echo
	began, ended chan string
}

func newStubborn() *stubborn {
	return &stubborn{infer.NewEcho(infer.EchoOptions{}), make(chan string, 100), make(chan string, 100)}
}

func (e *stubborn) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	if r.Messages[0].Content == "go" {
		return e.Echo.Do(ctx, r)
	}
	e.began <- r.Key
	<-ctx.Done()
	e.ended <- r.Key
	return nil, fault.New(fault.Unavailable, "stubborn", "", "%w", ctx.Err())
}

func took(t *testing.T, c chan string, want string) {
	t.Helper()
	select {
	case got := <-c:
		require.Equal(t, want, got)
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not come", want)
	}
}

// TestACancelReachesTheEngine, on this node and on another one: its slot is free at once, and nothing is held against it.
func TestACancelReachesTheEngine(t *testing.T) {
	t.Run("here", func(t *testing.T) {
		e := newStubborn()
		sys := start(t, persisttest.NewStore(1), actors.Engine{Engine: e, Concurrency: 1, Prefetch: 1})
		cancelled(t, sys, sys, e)
	})
	t.Run("on another node", func(t *testing.T) {
		w := newWorld(t, 2, "a", "b")
		a := w.start("a", nil)
		e := newStubborn()
		b := w.start("b", nil, actors.Engine{Engine: e, Concurrency: 1, Prefetch: 1})
		w.spread("a")
		cancelled(t, a.System, b.System, e)
	})
}

func cancelled(t *testing.T, sys, runs *actors.System, e *stubborn) {
	cancel := func(id string) {
		_, err := sys.Router.Ask(t.Context(), task.Key(id), &task.Cancel{Reason: "enough"})
		require.NoError(t, err)
	}
	submit(t, sys, &task.Spec{ID: "long", Prompt: "for ever"})
	took(t, e.began, "long/1")
	submit(t, sys, &task.Spec{ID: "ahead", Prompt: "for ever"})
	until(t, "it is claimed ahead", func() bool {
		r, _, err := sys.Tasks.Load(cluster.Reader{Context: t.Context(), Router: sys.Router}, "ahead")
		return err == nil && r.State == task.Running
	})
	cancel("ahead")
	submit(t, sys, &task.Spec{ID: "after", Prompt: "go"})
	cancel("long")
	took(t, e.ended, "long/1")
	require.Equal(t, task.Completed, await(t, sys, "after").State)
	r := await(t, sys, "long")
	require.Equal(t, task.Cancelled, r.State)
	require.EqualValues(t, 3, r.Version, "submitted, claimed, cancelled: what the engine said of it is nobody's business")
	require.Empty(t, e.began, "what was claimed ahead never began")
	require.True(t, runs.Engines()[0].Healthy)
	until(t, "everything is let go", func() bool { return runs.Busy() == 0 })
}
