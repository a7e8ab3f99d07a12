package actors_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
)

// BenchmarkDrain submits b.N tasks in bulk and waits until an engine that answers
// at once has completed all of them: the whole path but for inference.
func BenchmarkDrain(b *testing.B) {
	store, err := persistence.Open(persistence.Options{Dir: b.TempDir()})
	require.NoError(b, err)
	sys := start(b, store, actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{}), Concurrency: 1024, Prefetch: 1024})
	b.ResetTimer()
	began := time.Now()
	const bulk = 1000
	for i := 0; i < b.N; i += bulk {
		var writes []persistence.Write
		for j := i; j < min(b.N, i+bulk); j++ {
			spec := &task.Spec{ID: fmt.Sprintf("t%d", j), Prompt: "say it"}
			_, w, err := sys.Tasks.First(spec.ID, &task.Submit{Spec: spec, Model: "m"}, time.Now)
			require.NoError(b, err)
			writes = append(writes, w)
		}
		for _, err := range sys.Router.Create(context.Background(), writes) {
			require.NoError(b, err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "submits/s")
	for {
		var t task.Tally
		for _, o := range sys.Shards.Owners() {
			c, err := o.Counters()
			require.NoError(b, err)
			t.Add(c)
		}
		if t.ByState[task.Completed] == int64(b.N) {
			break
		}
		time.Sleep(time.Millisecond) // the benchmark's own poll, not part of the path
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "tasks/s")
}
