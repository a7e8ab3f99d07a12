package infer

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/meter"
)

// growing is an engine whose models change.
type growing struct {
	mu    sync.Mutex
	names []string
}

func (g *growing) Name() string                                    { return "g" }
func (g *growing) Do(context.Context, *Request) (*Response, error) { panic("nobody asks") }
func (g *growing) Models(context.Context) ([]string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.names, nil
}

func (g *growing) set(names ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names = names
}

// TestAnIdleEngineTellsOfItsNewModels: tasks wait for one of them, and nothing else would make it speak.
func TestAnIdleEngineTellsOfItsNewModels(t *testing.T) {
	var mu sync.Mutex
	now := time.Unix(0, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	defer system.Shutdown()
	heard := make(chan []string, 16)
	batcher := system.Root.Spawn(actor.PropsFromFunc(func(c actor.Context) {
		if m, ok := c.Message().(*batch.Credit); ok {
			heard <- m.Models
		}
	}))
	e := &growing{names: []string{"small"}}
	props, err := NewWorker(WorkerOptions{Engine: e, Concurrency: 2, Prefetch: 2, Batcher: batcher, Status: NewStatus("g", nil, nil), Meter: meter.New(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler), Now: clock})
	require.NoError(t, err)
	w := system.Root.Spawn(props)
	hear := func() []string {
		select {
		case names := <-heard:
			return names
		case <-time.After(20 * time.Second):
			require.FailNow(t, "the batcher heard nothing")
			return nil
		}
	}
	few := hear()
	for _, names := range [][]string{{"small", "large"}, {"large"}} { // one goes, too
		e.set(names...)
		mu.Lock()
		now = now.Add(modelsFresh)
		mu.Unlock()
		system.Root.Send(w, wakeUp{}) // as its timer does
		many := hear()
		require.NotEqual(t, few, many)
		few = many
	}
	require.NoError(t, system.Root.StopFuture(w).Wait())
}
