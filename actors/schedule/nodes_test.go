package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/schedule"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/clustertest"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// book is the tasks of a cluster: who submits one again finds it.
type book struct {
	t  *testing.T
	mu sync.Mutex

	tasks  map[string]string // id → hash of its spec
	order  []string
	ended  map[string]bool
	again  int
	refuse func(id string) (before, after error) // may be nil
}

func (b *book) Submit(_ context.Context, id string, spec *task.Spec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var before, after error
	if b.refuse != nil {
		before, after = b.refuse(id)
	}
	if before != nil {
		return before
	}
	if err := spec.Validate(); err != nil {
		b.t.Error(err)
	}
	hash, there := b.tasks[id]
	switch {
	case !there:
		b.tasks[id] = spec.Hash()
		b.order = append(b.order, id)
	case hash != spec.Hash():
		b.t.Errorf("task %s was submitted with another body", id)
	default:
		b.again++
	}
	return after
}

func (b *book) Ended(_ context.Context, id string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.tasks[id]; !ok {
		return false, fault.New(fault.NotFound, "test", id, "no such task")
	}
	return b.ended[id], nil
}

func (b *book) end(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended[id] = true
}

func (b *book) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.order...)
}

// yard is nodes with nothing but schedules, and a clock that the test sets.
type yard struct {
	t     *testing.T
	nodes *clustertest.Nodes
	all   []*schedule.Schedules
	book  *book
	micro atomic.Int64
}

const shardCount = 2

func newYard(t *testing.T, n int) *yard {
	y := &yard{t: t, book: &book{t: t, tasks: map[string]string{}, ended: map[string]bool{}}}
	y.set(time.Date(2026, 3, 4, 0, 30, 0, 0, time.UTC))
	quiet := slog.New(slog.DiscardHandler)
	y.nodes = clustertest.New(t, n, shardCount, func() []cluster.Kind {
		s := schedule.New(y.now, quiet)
		y.all = append(y.all, s)
		return []cluster.Kind{s.Kind()}
	}, func(o *cluster.Options) { o.Now, o.Tick = y.now, 2*time.Millisecond })
	for i, s := range y.all {
		s.Attach(schedule.Options{Router: y.nodes.Router(i), Submit: y.book.Submit, Ended: y.book.Ended, Check: func(context.Context, *task.Spec) error { return nil }})
		t.Cleanup(s.Stop)
	}
	return y
}

func (y *yard) now() time.Time          { return time.UnixMicro(y.micro.Load()).UTC() }
func (y *yard) set(t time.Time)         { y.micro.Store(t.UnixMicro()) }
func (y *yard) advance(d time.Duration) { y.micro.Add(d.Microseconds()) }

// again repeats what failed on the way for a while, as clients do.
func (y *yard) again(f func(ctx context.Context) (schedule.State, error)) schedule.State {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	for {
		s, err := f(ctx)
		if err == nil {
			return s
		}
		require.True(y.t, fault.KindOf(err).Retryable(), "%v", err)
		require.NoError(y.t, ctx.Err(), "%v", err)
	}
}

func (y *yard) create(change func(*schedule.Plan)) schedule.State {
	y.t.Helper()
	p := schedule.Plan{Name: "s", Cron: "0 * * * *", Task: &task.Spec{Prompt: "p", Metadata: map[string]string{"k": "v"}}}
	if change != nil {
		change(&p)
	}
	return y.again(func(ctx context.Context) (schedule.State, error) { return y.all[0].Create(ctx, p) })
}

func (y *yard) say(msg any) schedule.State {
	y.t.Helper()
	return y.again(func(ctx context.Context) (schedule.State, error) { return y.all[0].Say(ctx, "s", msg) })
}

// until waits for a state.
func (y *yard) until(ok func(schedule.State) bool) schedule.State {
	y.t.Helper()
	changed, stop := y.nodes.Router(0).Watch(schedule.Key("s"))
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for {
		s := y.again(func(ctx context.Context) (schedule.State, error) { return y.all[0].Get(ctx, "s") })
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(y.t, "the schedule does not come so far", "%+v", s)
		}
	}
}

// settled waits until all that is due is done.
func (y *yard) settled() schedule.State {
	y.t.Helper()
	return y.until(func(s schedule.State) bool {
		return len(s.Pending) == 0 && (s.Next.IsZero() || s.Next.After(y.now()))
	})
}

func TestASchedulesLife(t *testing.T) {
	y := newYard(t, 1)
	s := y.create(nil)
	require.Equal(t, []any{schedule.Active, time.Date(2026, 3, 4, 1, 0, 0, 0, time.UTC)}, []any{s.Phase, s.Next})
	require.Equal(t, s, y.create(nil), "the same plan again is harmless")
	_, err := y.all[0].Create(t.Context(), schedule.Plan{Name: "s", Cron: "1 * * * *", Task: &task.Spec{Prompt: "p"}})
	require.Equal(t, fault.Conflict, fault.KindOf(err))

	y.advance(31 * time.Minute)
	s = y.settled()
	first := "s-" + s.Life + "-20260304T010000Z"
	require.Equal(t, []string{first}, y.book.all())
	require.Equal(t, []any{uint64(1), first}, []any{s.Fired, s.Last().Task})

	// The task runs on: the next time is skipped. By hand it runs all the same, once for each request.
	y.advance(time.Hour)
	require.Equal(t, uint64(1), y.until(func(s schedule.State) bool { return s.Skipped > 0 }).Skipped)
	y.say(schedule.Fire{Request: "r"})
	y.say(schedule.Fire{Request: "r"})
	s = y.settled()
	hand := "s-" + s.Life + "-run-r"
	require.Equal(t, []string{first, hand}, y.book.all())
	require.Equal(t, uint64(2), s.Fired)
	require.True(t, s.Last().ByHand)
	y.book.end(first)
	y.book.end(hand)

	// While it is paused nothing fires; resumed, what passed stays passed.
	require.Equal(t, schedule.Paused, y.say(schedule.Pause{}).Phase)
	y.advance(3 * time.Hour)
	s = y.say(schedule.Resume{})
	require.Equal(t, time.Date(2026, 3, 4, 6, 0, 0, 0, time.UTC), s.Next)
	require.Len(t, y.book.all(), 2)

	// Deleted, its name is free; the next one's tasks are others.
	y.say(schedule.Delete{})
	_, err = y.all[0].Get(t.Context(), "s")
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	all, err := y.all[0].List(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)
	require.NotEqual(t, s.Life, y.create(nil).Life)
	all, err = y.all[0].List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
}

func TestOneTimeWaitsForTheTaskBefore(t *testing.T) {
	y := newYard(t, 1)
	y.create(func(p *schedule.Plan) { p.Overlap = schedule.OverlapQueue })
	y.advance(31 * time.Minute)
	first := y.settled().Last().Task
	y.advance(time.Hour)
	s := y.until(func(s schedule.State) bool { return !s.Waiting.IsZero() })
	require.Equal(t, time.Date(2026, 3, 4, 2, 0, 0, 0, time.UTC), s.Waiting)
	y.advance(time.Hour)
	y.until(func(s schedule.State) bool { return s.Skipped == 1 })
	require.Len(t, y.book.all(), 1)
	y.book.end(first)
	y.advance(5 * time.Second) // the timer looks again
	s = y.until(func(s schedule.State) bool { return s.Waiting.IsZero() && len(s.Pending) == 0 })
	require.Equal(t, time.Date(2026, 3, 4, 2, 0, 0, 0, time.UTC), s.Last().Planned)
	require.Len(t, y.book.all(), 2)
}

func TestATaskThatIsRefused(t *testing.T) {
	y := newYard(t, 1)
	trouble := error(fault.New(fault.Unavailable, "test", "", "no owner"))
	y.book.refuse = func(string) (error, error) { return trouble, nil }
	y.create(nil)
	y.advance(31 * time.Minute)
	y.until(func(s schedule.State) bool { return len(s.Pending) == 1 })
	y.book.mu.Lock()
	trouble = fault.New(fault.Refused, "test", "", "not here")
	y.book.mu.Unlock()
	y.advance(5 * time.Second)
	s := y.settled()
	require.Equal(t, []any{uint64(1), "refused"}, []any{s.Failed, s.Last().Error.Kind})
	y.book.mu.Lock()
	trouble = nil
	y.book.mu.Unlock()
	y.advance(time.Hour)
	s = y.settled()
	require.Equal(t, []any{uint64(2), uint64(0)}, []any{s.Fired, s.Skipped}, "a task that never was is not waited for")
}

func TestTenantsHaveSchedulesOfTheirOwn(t *testing.T) {
	y := newYard(t, 1)
	acme := tenant.With(t.Context(), "acme")
	y.create(nil)
	_, err := y.all[0].Create(acme, schedule.Plan{Name: "s", Cron: "0 * * * *", Task: &task.Spec{Prompt: "other"}})
	require.NoError(t, err)
	for _, ctx := range []context.Context{t.Context(), acme} {
		all, err := y.all[0].List(ctx)
		require.NoError(t, err)
		require.Len(t, all, 1)
	}
	theirs, err := y.all[0].Get(acme, "s")
	require.NoError(t, err)
	y.advance(31 * time.Minute)
	y.settled()
	require.Eventually(t, func() bool { return len(y.book.all()) == 2 }, 20*time.Second, time.Millisecond)
	require.Contains(t, y.book.all(), "/acme/s-"+theirs.Life+"-20260304T010000Z")
	_, err = y.all[0].Get(tenant.With(t.Context(), "other"), "s")
	require.Equal(t, fault.NotFound, fault.KindOf(err))
}

// TestACrashAtEveryAppend fails, or loses the answer of, each append in turn, and gives the shards another owner: each planned time has its task, once.
func TestACrashAtEveryAppend(t *testing.T) {
	for _, lose := range []bool{false, true} {
		for n := int64(1); n <= 8; n++ { // created, and decided and submitted for each of three times: each is met
			t.Run(fmt.Sprintf("lose=%v append=%d", lose, n), func(t *testing.T) {
				t.Parallel()
				y := newYard(t, 2)
				var appends atomic.Int64
				var once sync.Once
				hook := func(int) (err error) {
					if at := appends.Add(1); at >= n {
						once.Do(func() {
							err = fault.New(fault.Unavailable, "test", "", "append %d", at)
							go y.nodes.Move(1)
						})
					}
					return err
				}
				for i := range shardCount {
					if m := y.nodes.Store.Memory(i); lose {
						m.LoseAppend = hook
					} else {
						m.FailAppend = hook
					}
				}
				s := y.create(func(p *schedule.Plan) { p.Overlap = schedule.OverlapAllow })
				y.advance(31 * time.Minute)
				for range 3 {
					y.settled()
					y.advance(time.Hour)
				}
				y.settled()
				s = y.until(func(s schedule.State) bool { return s.Fired >= 4 && len(s.Pending) == 0 })
				require.Equal(t, uint64(0), s.Missed+s.Failed+s.Skipped)
				var want []string
				for h := 1; h <= 4; h++ {
					want = append(want, fmt.Sprintf("s-%s-20260304T%02d0000Z", s.Life, h))
				}
				require.Equal(t, want, y.book.all())
			})
		}
	}
}

// TestOwnersThatComeAndGo: three nodes take each other's shards at any moment, submits fail before and after they have happened, appends
// fail. Every minute of an hour has its task, and none has two.
func TestOwnersThatComeAndGo(t *testing.T) {
	y := newYard(t, 3)
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	y.book.refuse = func(string) (before, after error) { // under the book's lock
		switch r.IntN(6) {
		case 0:
			return fault.New(fault.Unavailable, "test", "", "no owner"), nil
		case 1:
			return nil, errors.New("the answer is lost")
		}
		return nil, nil
	}
	y.create(func(p *schedule.Plan) {
		p.Cron, p.Overlap, p.CatchUp, p.CatchUpMax = "* * * * *", schedule.OverlapAllow, schedule.CatchUpAll, 1000
	})
	moves := rand.New(rand.NewPCG(seed, 1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // what failed waits for its timer, by this clock
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				y.advance(3 * time.Second)
			}
		}
	})
	began := y.now()
	for fired := uint64(0); fired < 60; {
		fired += uint64(moves.IntN(4)) // sometimes the next one is to come before the last one has begun
		y.until(func(s schedule.State) bool { return s.Fired >= fired })
		y.nodes.Move(moves.IntN(3))
	}
	y.say(schedule.Pause{})
	s := y.until(func(s schedule.State) bool { return len(s.Pending) == 0 })
	close(stop)
	wg.Wait()
	require.Equal(t, uint64(0), s.Failed+s.Skipped+s.Missed)
	got := map[string]bool{}
	for _, id := range y.book.all() {
		require.False(t, got[id], id)
		got[id] = true
	}
	require.Len(t, got, int(s.Fired))
	for at := began.Add(time.Minute); !at.After(s.Last().Planned); at = at.Add(time.Minute) {
		require.True(t, got[s.TaskID(at)], "%v", at)
	}
	t.Log("fired", s.Fired, "submitted again", y.book.again)
}
