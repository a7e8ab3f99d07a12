package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// A follower of results must see every result, also when the shard moves to an owner whose clock is behind.
func TestResultsAcrossClocks(t *testing.T) {
	var ahead atomic.Int64
	ahead.Store(int64(5 * time.Second))
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	disks := persisttest.NewCluster(1, "a")
	store := disks.Store("a")
	disks.Lead(0, "a")
	sys, err := actors.Start(actors.Options{Node: "a", Store: store, Engines: []actors.Engine{{Engine: infer.NewEcho(infer.EchoOptions{Name: "echo"}), Concurrency: 4}},
		Policy: task.DefaultPolicy(func() float64 { return 0.5 }),
		Window: batch.DefaultWindow(), Runner: &infer.Runner{Meter: meter.New(prometheus.NewRegistry()), Now: now},
		Meter: meter.New(prometheus.NewRegistry()), Now: now, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer sys.Stop()
	s := &service{id: "a", sys: sys, store: store, now: now, timeoutMax: time.Hour, defaultModel: task.AnyModel, engines: func() []api.EngineStatus { return nil }}
	run := func(id string) {
		out := s.Submit(context.Background(), []*task.Spec{{ID: id, Prompt: "p"}})
		require.NoError(t, out[0].Err)
		require.Eventually(t, func() bool { r, err := s.Get(context.Background(), id); return err == nil && r.State.Final() }, 10*time.Second, 5*time.Millisecond)
	}
	seen := map[string]bool{}
	cur := ""
	follow := func() {
		c, err := s.Results(context.Background(), cur, func(i api.Item) bool { seen[i.ID] = true; return true })
		require.NoError(t, err)
		cur = c
	}
	run("first")
	require.Eventually(t, func() bool { follow(); return seen["first"] }, 5*time.Second, 50*time.Millisecond)
	ahead.Store(0) // the shard's next owner has the right time
	run("second")
	require.Eventually(t, func() bool { follow(); return seen["second"] }, 15*time.Second, 100*time.Millisecond, fmt.Sprint("second is never given"))
}
