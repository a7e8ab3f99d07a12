package actors_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
)

// arrivals is the order in which tasks reach the engines of all nodes.
type arrivals struct {
	mu   sync.Mutex
	ids  []string
	open chan struct{} // closed when engines may answer
}

// turnedIn is an engine that notes who came, and answers after a moment once all may.
type turnedIn struct {
	*infer.Echo
	*arrivals
}

func (e turnedIn) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	e.mu.Lock()
	e.ids = append(e.ids, r.Key[:strings.LastIndexByte(r.Key, '/')])
	e.mu.Unlock()
	select {
	case <-e.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return e.Echo.Do(ctx, r)
}

// TestInversion: a tenant's priorities over 12 shards on three nodes, each with an engine. How many better tasks still waited somewhere when a
// task reached an engine: no more than were claimed ahead by all engines, of some hundred that wait.
func TestInversion(t *testing.T) {
	const tasks, slots, ahead, shards = 900, 4, 4, 12
	w := newWorld(t, shards, "a", "b", "c")
	came := &arrivals{open: make(chan struct{})}
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		e := turnedIn{infer.NewEcho(infer.EchoOptions{Latency: 5 * time.Millisecond}), came}
		nodes = append(nodes, w.start(name, func(o *actors.Options) { o.Reconcile = time.Hour }, actors.Engine{Engine: e, Concurrency: slots, Prefetch: ahead}))
	}
	w.spread("a", "b", "c")
	rng := rand.New(rand.NewPCG(1, 2))
	priority := map[string]task.Priority{}
	for i := range tasks {
		id, p := fmt.Sprintf("t-%03d", i), task.Priority(rng.IntN(10))
		priority[id] = p
		submit(t, nodes[i%3].System, &task.Spec{ID: id, Prompt: "p", Priority: &p})
	}
	close(came.open)
	for id := range priority {
		require.Equal(t, task.Completed, await(t, nodes[0].System, id).State)
	}
	came.mu.Lock()
	defer came.mu.Unlock()
	require.Equal(t, tasks, len(came.ids), "each came once")
	early := 3 * (slots + ahead) // claimed while the others were not there yet
	var left [task.PriorityMax + 1]int
	for _, id := range came.ids[early:] {
		left[priority[id]]++
	}
	most, sum, inverted := 0, 0, 0
	for _, id := range came.ids[early:] {
		p, better := priority[id], 0
		left[p]--
		for _, n := range left[:p] {
			better += n
		}
		if better > 0 {
			inverted++
		}
		sum += better
		most = max(most, better)
	}
	mean := float64(sum) / float64(tasks-early)
	t.Logf("%d of %d tasks reached an engine while a better one waited: %d better ones at most, %.2f over all tasks", inverted, tasks-early, most, mean)
	require.Less(t, mean, 3.0*(slots+ahead), "less than what the engines have claimed ahead; in no order there would be some two hundred")
}
