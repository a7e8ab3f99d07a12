package actors_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// Each test here was a way to lose a task, a credit or a try.

// TestTheDataServersTroubleIsNotTheEngines: a data_url that answers 503 or 429 says
// nothing about the engine.
func TestTheDataServersTroubleIsNotTheEngines(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Unavailable, fault.Overloaded} {
		t.Run(kind.String(), func(t *testing.T) {
			e := &moody{Echo: infer.NewEcho(infer.EchoOptions{Latency: time.Millisecond})}
			e.well.Store(true)
			sys := startWith(t, persisttest.NewStore(1), func(o *actors.Options) {
				o.Runner.Fetch = func(context.Context, string) (source.Data, error) {
					return source.Data{}, fault.New(kind, "source.fetch", "", "trouble")
				}
			}, actors.Engine{Engine: e, Concurrency: 8, Prefetch: 8})
			for i := range 40 {
				submit(t, sys, &task.Spec{ID: fmt.Sprint("bad", i), Prompt: "p", DataURL: "http://dead/x"})
				submit(t, sys, &task.Spec{ID: fmt.Sprint("good", i), Prompt: "p"})
			}
			for i := range 40 {
				require.Equal(t, task.Failed, await(t, sys, fmt.Sprint("bad", i)).State)
				good := await(t, sys, fmt.Sprint("good", i))
				require.Equal(t, task.Completed, good.State)
				require.EqualValues(t, 1, good.Attempt, "never handed back")
			}
			require.Equal(t, 8, sys.Engines()[0].Limit)
			require.EqualValues(t, 40, e.asked.Load())
		})
	}
}

// poison answers 500 to one prompt and is well otherwise.
type poison struct{ *infer.Echo }

func (p poison) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	if r.Messages[0].Content == "poison" {
		return nil, fault.New(fault.Unavailable, "infer.http", "", "the engine answered 500")
	}
	return p.Echo.Do(ctx, r)
}

// TestOneBadAnswerDoesNotStopTheEngine: a 500 makes the engine suspect, a probe clears
// it, and nobody else's task is handed back.
func TestOneBadAnswerDoesNotStopTheEngine(t *testing.T) {
	sys := start(t, persisttest.NewStore(2), actors.Engine{Engine: poison{infer.NewEcho(infer.EchoOptions{})}, Concurrency: 8, Prefetch: 8})
	for i := range 500 {
		p := "p"
		if i%50 == 0 {
			p = "poison"
		}
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: p})
	}
	for i := range 500 {
		r := await(t, sys, fmt.Sprint("t", i))
		if i%50 == 0 {
			require.Equal(t, task.Failed, r.State)
			require.EqualValues(t, 4, r.Attempt)
			continue
		}
		require.Equal(t, task.Completed, r.State)
		require.EqualValues(t, 1, r.Attempt)
	}
}

// crashy makes its inference actor panic once, and counts how many ask it at once.
type crashy struct {
	*infer.Echo
	crash    atomic.Bool
	now, top atomic.Int64
	gate     chan struct{}
}

func (m *crashy) Name() string {
	if m.crash.Load() {
		b := make([]byte, 1<<14)
		if strings.Contains(string(b[:runtime.Stack(b, false)]), "Worker).pump") && m.crash.CompareAndSwap(true, false) {
			panic("boom")
		}
	}
	return m.Echo.Name()
}

func (m *crashy) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	n := m.now.Add(1)
	defer m.now.Add(-1)
	for o := m.top.Load(); n > o && !m.top.CompareAndSwap(o, n); o = m.top.Load() {
	}
	select {
	case <-m.gate:
		return m.Echo.Do(ctx, r)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestARestartedWorkerKeepsItsLimit: what a life before had under way is not counted
// in the next, and no task is lost over it.
func TestARestartedWorkerKeepsItsLimit(t *testing.T) {
	e := &crashy{Echo: infer.NewEcho(infer.EchoOptions{}), gate: make(chan struct{})}
	sys := startWith(t, persisttest.NewStore(1), func(o *actors.Options) { o.Policy.Timeout, o.Policy.LeaseMargin = 2*time.Second, time.Second },
		actors.Engine{Engine: e, Concurrency: 4, Prefetch: 4})
	for i := range 100 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p"})
	}
	require.Eventually(t, func() bool { return e.now.Load() == 4 }, 10*time.Second, time.Millisecond)
	e.crash.Store(true)
	require.Eventually(t, func() bool { return !e.crash.Load() }, 20*time.Second, time.Millisecond)
	close(e.gate)
	for i := range 100 {
		require.Equal(t, task.Completed, await(t, sys, fmt.Sprint("t", i)).State)
	}
	require.LessOrEqual(t, e.top.Load(), int64(4))
	require.Eventually(t, func() bool { return sys.Busy() == 0 }, 5*time.Second, time.Millisecond)
}

// TestOwnersThatFlapLoseNothing: the lead of two shards is won again sixty times under
// load. No credit leaks, so every task ends.
func TestOwnersThatFlapLoseNothing(t *testing.T) {
	store := persisttest.NewStore(2)
	sys := start(t, store, actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Latency: time.Millisecond}), Concurrency: 32, Prefetch: 32})
	n := 0
	for round := range 60 {
		for range 20 {
			spec := &task.Spec{ID: fmt.Sprint("t", n), Prompt: "p"}
			msg := &task.Submit{Spec: spec, Model: "m"}
			_, w, err := sys.Tasks.First(spec.ID, msg, time.Now)
			require.NoError(t, err)
			if sys.Router.Create(t.Context(), []persistence.Write{w})[0] != nil {
				_, err := sys.Router.Ask(t.Context(), task.Key(spec.ID), msg)
				require.NoError(t, err)
			}
			n++
		}
		store.Lead(persistence.Lead{Shard: round % 2, Leading: true})
	}
	require.Eventually(t, func() bool {
		for i := range n {
			from := cluster.Reader{Context: t.Context(), Router: sys.Router}
			if r, _, err := sys.Tasks.Load(from, fmt.Sprint("t", i)); err != nil || !r.State.Final() {
				return false
			}
		}
		return true
	}, 60*time.Second, 50*time.Millisecond)
}

// TestAWriteOfUnknownOutcomeIsFoundAgain: a task that became durable after its appender
// had given up is in no queue's memory; the exact counters tell.
func TestAWriteOfUnknownOutcomeIsFoundAgain(t *testing.T) {
	store := persisttest.NewStore(1)
	var skew atomic.Int64
	var lose atomic.Bool
	store.Memory(0).LoseAppend = func(int) error {
		if lose.Load() {
			skew.Add(int64(5 * time.Second)) // each try of the real one waits so long
			return fault.New(fault.Timeout, "t", "", "no answer")
		}
		return nil
	}
	sys := startWith(t, store, func(o *actors.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	},
		actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{}), Concurrency: 4, Prefetch: 4})
	submit(t, sys, &task.Spec{ID: "warm", Prompt: "p"})
	await(t, sys, "warm")
	lose.Store(true)
	_, w, err := sys.Tasks.First("x", &task.Submit{Spec: &task.Spec{ID: "x", Prompt: "p"}, Model: "m"}, time.Now)
	require.NoError(t, err)
	impatient, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.Error(t, sys.Router.Create(impatient, []persistence.Write{w})[0])
	lose.Store(false)
	require.Equal(t, task.Completed, await(t, sys, "x").State)
}

// TestAPauseCostsNoTries: what was claimed ahead of an engine that asked for a pause is
// handed back, and runs once the pause is over.
func TestAPauseCostsNoTries(t *testing.T) {
	sys := startWith(t, persisttest.NewStore(1), func(o *actors.Options) { o.Policy.Timeout, o.Policy.LeaseMargin = time.Second, 200*time.Millisecond },
		actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Directives: true}), Concurrency: 1, Prefetch: 8})
	submit(t, sys, &task.Spec{ID: "busy", Prompt: "#echo latency=200ms fail=1 kind=overloaded retry_after=2s\nhello"})
	for i := range 20 {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: "p", Retry: &task.Retry{Attempts: 1}})
	}
	for i := range 20 {
		require.Equal(t, task.Completed, await(t, sys, fmt.Sprint("t", i)).State)
	}
	require.Equal(t, task.Completed, await(t, sys, "busy").State)
}

type large struct{ *infer.Echo }

func (large) Do(context.Context, *infer.Request) (*infer.Response, error) {
	return &infer.Response{Text: strings.Repeat("<", 9<<20), FinishReason: "stop"}, nil
}

// TestAnAnswerTooLargeToKeepFailsAtOnce with the reason, rather than by its lease.
func TestAnAnswerTooLargeToKeepFailsAtOnce(t *testing.T) {
	sys := start(t, persisttest.NewStore(1), actors.Engine{Engine: large{infer.NewEcho(infer.EchoOptions{})}, Concurrency: 4, Prefetch: 4})
	submit(t, sys, &task.Spec{ID: "big", Prompt: "p"})
	r := await(t, sys, "big")
	require.Equal(t, task.Failed, r.State)
	require.EqualValues(t, 1, r.Attempt)
	require.Contains(t, r.Error.Message, "cannot be recorded")
}
