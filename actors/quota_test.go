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
	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// crowd counts how many requests are at engines at once.
type crowd struct{ now, most atomic.Int64 }

// counted is an engine that a crowd goes through.
type counted struct {
	*infer.Echo
	*crowd
}

func (e counted) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	n := e.now.Add(1)
	defer e.now.Add(-1)
	for old := e.most.Load(); n > old && !e.most.CompareAndSwap(old, n); old = e.most.Load() {
	}
	return e.Echo.Do(ctx, r)
}

func (c *crowd) engine(slots int) actors.Engine {
	return actors.Engine{Engine: counted{infer.NewEcho(infer.EchoOptions{Latency: 2 * time.Millisecond}), c}, Concurrency: slots, Prefetch: slots}
}

// knows tells whether a node has heard of a tenant's quota. Room does not: there is none before it has heard of anything, and all of it after an
// answer of the time before the quota.
func knows(s *actors.System, tenant string) bool {
	_, ok := s.Quota.Terms(tenant)
	return ok
}

// TestAQuotaHoldsOverNodes: three nodes with eight slots each run as many of a tenant's tasks as its quota says, and others' without end.
func TestAQuotaHoldsOverNodes(t *testing.T) {
	w := newWorld(t, 4, "a", "b", "c")
	limited := &crowd{}
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, w.start(name, nil, limited.engine(8)))
	}
	w.spread("a", "b", "c")
	require.NoError(t, quota.New(nodes[0].Router).Set(t.Context(), quota.Terms{Tenant: "acme", Hard: quota.Limits{Running: 4}}))
	for _, n := range nodes {
		until(t, "it knows of the quota", func() bool { return knows(n.System, "acme") })
	}
	const tasks = 300
	for i := range tasks {
		submit(t, nodes[i%3].System, &task.Spec{ID: fmt.Sprint("/acme/", i), Prompt: "p"})
	}
	for i := range tasks {
		require.Equal(t, task.Completed, await(t, nodes[i%3].System, fmt.Sprint("/acme/", i)).State)
	}
	require.LessOrEqual(t, limited.most.Load(), int64(4))
	require.GreaterOrEqual(t, limited.most.Load(), int64(3), "it is used")
}

// TestTokensAreCharged: a tenant whose tokens are used up waits, and nobody else does.
func TestTokensAreCharged(t *testing.T) {
	sys := start(t, persisttest.NewStore(2), echo(8))
	require.NoError(t, quota.New(sys.Router).Set(t.Context(), quota.Terms{Tenant: "acme", Hard: quota.Limits{TokensPerMinute: 60}}))
	until(t, "it knows", func() bool { return knows(sys, "acme") && sys.Quota.Room("acme", 5, 1<<20) > 0 })
	for i := range 20 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("/acme/", i), Prompt: "p", MaxTokens: 1000})
		submit(t, sys, &task.Spec{ID: fmt.Sprint("/other/", i), Prompt: "p", MaxTokens: 1000})
	}
	for i := range 20 {
		require.Equal(t, task.Completed, await(t, sys, fmt.Sprint("/other/", i)).State)
	}
	until(t, "in debt", func() bool { return sys.Quota.Room("acme", 5, 1<<20) == 0 })
}

// TestAPauseFreesTheQuota: what an engine gives back, or fails, while it wants to be left alone, leaves room for another one at once.
func TestAPauseFreesTheQuota(t *testing.T) {
	moody := actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Name: "moody", Directives: true}), Concurrency: 4, Prefetch: 4}
	sys := start(t, persisttest.NewStore(2), moody)
	require.NoError(t, quota.New(sys.Router).Set(t.Context(), quota.Terms{Tenant: "acme", Hard: quota.Limits{Running: 4}}))
	until(t, "it knows", func() bool { n := sys.Quota.Room("acme", 5, 1<<20); return n > 0 && n <= 4 })
	for i := range 8 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("/acme/", i), Prompt: "#echo fail=always kind=overloaded retry_after=1h\nx"})
	}
	until(t, "it asked for a pause", func() bool { return sys.Engines()[0].Reason != "" })
	until(t, "nothing is in hand", func() bool { return sys.Busy() == 0 && sys.Quota.Room("acme", 5, 1<<20) == 4 })
}

// TestOldTasksOfATenant wait in everybody's queue: who claims them there charges them to whom they are.
func TestOldTasksOfATenant(t *testing.T) {
	sys := start(t, persisttest.NewStore(2), echo(8))
	require.NoError(t, quota.New(sys.Router).Set(t.Context(), quota.Terms{Tenant: "default", Hard: quota.Limits{Running: 4}}))
	until(t, "it knows", func() bool { n := sys.Quota.Room("default", 5, 1<<20); return n > 0 && n <= 4 })
	old := task.NewKind(task.Policy{Fair: func() bool { return false }}, nil, nil) // as a program of before journals a task
	for i := range 8 {
		id := fmt.Sprint("/acme/", i)
		_, w, err := old.First(id, &task.Submit{Spec: &task.Spec{ID: id, Prompt: "p"}, Model: "m"}, time.Now)
		require.NoError(t, err)
		require.NoError(t, sys.Router.Create(t.Context(), []persistence.Write{w})[0])
	}
	for i := range 8 {
		require.Equal(t, task.Completed, await(t, sys, fmt.Sprint("/acme/", i)).State)
	}
	until(t, "nothing is in hand", func() bool { return sys.Quota.Room("default", 5, 1<<20) == 4 })
}

// TestANewQuotaLetsAllNodesIn: who comes to a node that has not been lent any of it is not told that it is used up, nor to come again.
func TestANewQuotaLetsAllNodesIn(t *testing.T) {
	w := newWorld(t, 4, "a", "b", "c")
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, w.start(name, nil, echo(1)))
	}
	w.spread("a", "b", "c")
	require.NoError(t, quota.New(nodes[0].Router).Set(t.Context(), quota.Terms{Tenant: "acme", Hard: quota.Limits{Bytes: 2000, Queued: 50}}))
	for _, n := range nodes {
		until(t, "it knows of the quota", func() bool { _, ok := n.Quota.Terms("acme"); return ok })
	}
	until(t, "it is lent", func() bool { return nodes[0].Quota.Admit(t.Context(), "acme", 5, 1, 2) == nil })
	for i, n := range nodes {
		require.NoError(t, n.Quota.Admit(t.Context(), "acme", 5, 1, 2), "%d", i)
	}
}
