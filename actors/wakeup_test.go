package actors_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// shardOnly is a shard in memory with clocks of its own and nobody else.
type shardOnly struct {
	s    *cluster.Shards
	sys  *actor.ActorSystem
	kind *entity.Kind[task.Record, task.Fact]
	q    *task.Queue
	real func() time.Duration
	skew atomic.Int64              // of both clocks
	out  atomic.Pointer[actor.PID] // the batcher, once there is one
}

func (b *shardOnly) now() time.Time { return time.Now().Add(time.Duration(b.skew.Load())) }

func (b *shardOnly) mono() time.Duration { return b.real() + time.Duration(b.skew.Load()) }

func newShardOnly(t *testing.T, store persistence.Store, tick time.Duration) *shardOnly {
	log := slog.New(slog.DiscardHandler)
	b := &shardOnly{sys: actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return log })),
		kind: task.NewKind(task.DefaultPolicy(rand.Float64), nil, nil), real: cluster.Monotonic()}
	var err error
	b.s, err = cluster.NewShards(cluster.Options{Store: store, System: b.sys, Kinds: []cluster.Kind{b.kind.Register()}, Now: b.now, Mono: b.mono, Log: log, Tick: tick,
		Observers: func(o *cluster.Owner) map[string][]cluster.Observer {
			b.q = task.NewQueue(o, func(q *task.Queue, name task.QueueName, at time.Time) {
				if pid := b.out.Load(); pid != nil {
					b.sys.Root.Send(pid, &batch.Ready{Queue: q, Name: name, At: at})
				}
			})
			return map[string][]cluster.Observer{task.IndexReady: {b.q.Observe}}
		}})
	require.NoError(t, err)
	<-b.s.Ready()
	t.Cleanup(func() { b.s.Stop(); require.NoError(t, store.Close()) })
	return b
}

// TestAWindowOfRefusalsHidesNothing: when all rows in memory are refused, because their
// deadline passed, the batcher goes on with those on disk.
func TestAWindowOfRefusalsHidesNothing(t *testing.T) {
	b := newShardOnly(t, persisttest.NewStore(1), time.Hour)
	var ws []persistence.Write
	add := func(id string, deadline *time.Time) {
		_, w, err := b.kind.First(id, &task.Submit{Spec: &task.Spec{ID: id, Prompt: "p", Deadline: deadline}, Model: "m"}, b.now)
		require.NoError(t, err)
		ws = append(ws, w)
	}
	deadline := b.now().Add(time.Minute)
	for i := range 512 {
		add(fmt.Sprintf("a%04d", i), &deadline)
	}
	b.skew.Add(int64(time.Second))
	for i := range 100 {
		add(fmt.Sprintf("b%04d", i), nil)
	}
	for _, err := range b.s.Router().Create(t.Context(), ws) {
		require.NoError(t, err)
	}
	b.skew.Add(int64(2 * time.Minute))
	props, err := batch.New(batch.Options{Window: batch.DefaultWindow(), Estimate: func(*task.Work) (int, int) { return 1, 1 }, Resync: func() {}, Arrived: func(*task.Work) {},
		Claim: func(engine string) *task.Claim { return &task.Claim{Node: "n", Engine: engine} }, Now: b.now, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	b.out.Store(b.sys.Root.Spawn(props))
	var got atomic.Int64
	engine := b.sys.Root.Spawn(actor.PropsFromFunc(func(c actor.Context) {
		if m, ok := c.Message().(*batch.Batch); ok {
			got.Add(int64(len(m.Works)))
		}
	}))
	b.sys.Root.Send(b.out.Load(), &batch.Credit{Engine: engine, Name: "e", Models: []string{"m"}, Granted: 1 << 20})
	b.q.Announce()
	require.Eventually(t, func() bool { return got.Load() == 100 }, 10*time.Second, time.Millisecond)
}

// TestALeaseThatEndsOnAFullDiskIsLookedAtAgain: the alarm is spent, its commit failed;
// the task must not run for ever.
func TestALeaseThatEndsOnAFullDiskIsLookedAtAgain(t *testing.T) {
	store := persisttest.NewStore(1)
	var full atomic.Bool
	var refused atomic.Int64
	store.Memory(0).FailAppend = func(int) error {
		if full.Load() {
			refused.Add(1)
			return fault.New(fault.NoSpace, "t", "", "full")
		}
		return nil
	}
	b := newShardOnly(t, store, 5*time.Millisecond)
	for _, m := range []any{&task.Submit{Spec: &task.Spec{ID: "t", Prompt: "p"}, Model: "m"}, &task.Claim{Node: "n", Engine: "gone"}} {
		_, err := b.s.Router().Ask(t.Context(), task.Key("t"), m)
		require.NoError(t, err)
	}
	full.Store(true)
	b.skew.Add(int64(100 * time.Second))
	require.Eventually(t, func() bool { return refused.Load() > 0 }, 10*time.Second, time.Millisecond)
	full.Store(false)
	require.Eventually(t, func() bool {
		b.skew.Add(int64(time.Second))
		r, _, err := b.kind.Load(store.Journal(0), "t")
		require.NoError(t, err)
		return r.State == task.Pending
	}, 10*time.Second, 5*time.Millisecond)
}
