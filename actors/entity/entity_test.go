package entity_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// ledger is a kind for tests: numbers are added, "boom" crashes, and so on.
type ledger struct {
	Sum   int
	Order []int
	Until time.Time
}

type entry struct {
	N     int       `json:"n,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

type (
	add  struct{ n int }
	boom struct{}
	get  struct{}
	nap  struct{ until time.Time }

	erase struct{}
)

func apply(l ledger, e entry) (ledger, error) {
	if e.N < 0 {
		return l, fault.New(fault.Invalid, "ledger", "", "negative")
	}
	if !e.Until.IsZero() {
		l.Until = e.Until
		return l, nil
	}
	l.Sum += e.N
	l.Order = append(l.Order[:len(l.Order):len(l.Order)], e.N)
	return l, nil
}

func behave(ledger) entity.Behavior[ledger, entry] {
	return func(c *entity.Context[ledger, entry]) {
		switch m := c.Message().(type) {
		case add:
			c.Commit(entry{N: m.n})
			c.ReplyWith(func(l ledger) any { return l.Sum })
		case nap:
			c.Commit(entry{Until: m.until})
		case get:
			c.Reply(c.State())
		case erase:
			c.Erase()
			c.Reply("gone")
		case boom:
			panic("boom")
		case entity.Wake:
			c.Commit(entry{N: 1000, Until: time.Time{}})
		}
	}
}

func kind() *entity.Kind[ledger, entry] {
	return &entity.Kind[ledger, entry]{Name: "ledger", Apply: apply, Behave: behave}
}

// world is one shard in memory with a kind on it.
type world struct {
	t      *testing.T
	mem    *persisttest.Memory
	router *cluster.Router
	shards *cluster.Shards
}

func newWorld(t *testing.T, k *entity.Kind[ledger, entry], now func() time.Time) *world {
	return newWorldWith(t, k, cluster.Options{Now: now})
}

func newWorldWith(t *testing.T, k *entity.Kind[ledger, entry], o cluster.Options) *world {
	store := persisttest.NewStore(1)
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	o.Store, o.System, o.Kinds, o.Log = store, sys, []cluster.Kind{k.Register()}, slog.New(slog.DiscardHandler)
	s, err := cluster.NewShards(o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Stop(); require.NoError(t, store.Close()); s.Wait(); sys.Shutdown() })
	<-s.Ready()
	return &world{t, store.Memory(0), s.Router(), s}
}

func (w *world) ask(id string, msg any) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return w.router.Ask(ctx, persistence.Key{Kind: "ledger", ID: id}, msg)
}

func (w *world) must(id string, msg any) any {
	w.t.Helper()
	v, err := w.ask(id, msg)
	require.NoError(w.t, err)
	return v
}

func TestCommitThenReply(t *testing.T) {
	w := newWorld(t, kind(), nil)
	require.Equal(t, 3, w.must("a", add{3}))
	require.Equal(t, 7, w.must("a", add{4}))
	require.Equal(t, 1, w.must("b", add{1}))
	l, err := w.mem.Read(persistence.Key{Kind: "ledger", ID: "a"}, 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, l.Last, "a reply means that it is in the journal")
}

// TestSleepLosesNothing: with Nap the entity goes to sleep after each message, while
// others are on their way to it.
func TestSleepLosesNothing(t *testing.T) {
	k := kind()
	k.Nap = true
	w := newWorld(t, k, nil)
	var wg sync.WaitGroup
	const clients, each = 16, 200
	for range clients {
		wg.Go(func() {
			for range each {
				if _, err := w.ask("a", add{1}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, clients*each, w.must("a", get{}).(ledger).Sum)
}

// TestMessagesKeepTheirOrder: what arrives during a commit is handled after it, in
// the order of arrival.
func TestMessagesKeepTheirOrder(t *testing.T) {
	k := kind()
	w := newWorld(t, k, nil)
	hold := make(chan struct{})
	w.mem.FailAppend = func(n int) error {
		if n == 2 { // the first is the epoch's or the first add: hold one in the middle
			<-hold
		}
		return nil
	}
	o, err := w.router.Owner(0)
	require.NoError(t, err)
	const n = 50
	var wg sync.WaitGroup
	wg.Add(n)
	for i := range n {
		o.Tell(&cluster.Envelope{Key: persistence.Key{Kind: "ledger", ID: "a"}, Msg: add{i}, Reply: func(any, error) { wg.Done() }})
	}
	close(hold)
	wg.Wait()
	got := w.must("a", get{}).(ledger)
	for i, v := range got.Order {
		require.Equal(t, i, v)
	}
	require.Len(t, got.Order, n)
}

// TestMemoryNeverRunsAhead makes append number n fail, for every n: the sender hears of
// it, and state and journal agree afterwards.
func TestMemoryNeverRunsAhead(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("append %d, applied %v", n, lost), func(t *testing.T) {
				k := kind()
				w := newWorld(t, k, nil)
				hook := func(i int) error {
					if i == n {
						return fault.New(fault.NoSpace, "test", "", "write %d fails", i)
					}
					return nil
				}
				if lost {
					w.mem.LoseAppend = hook
				} else {
					w.mem.FailAppend = hook
				}
				sum, failed := 0, 0
				for i := 1; i <= 6; i++ {
					v, err := w.ask("a", add{i})
					if err != nil {
						require.Equal(t, fault.NoSpace, fault.KindOf(err))
						failed++
						if lost {
							sum += i // it is in the journal all the same
						}
						continue
					}
					sum += i
					require.Equal(t, sum, v)
				}
				require.Equal(t, 1, failed)
				require.Equal(t, sum, w.must("a", get{}).(ledger).Sum)
				state, _, err := k.Load(w.mem, "a")
				require.NoError(t, err)
				require.Equal(t, sum, state.Sum)
			})
		}
	}
}

// TestUnknownOutcomeIsAppendedAgain: a time-out hides whether a write was applied. The
// very same write again counts once.
func TestUnknownOutcomeIsAppendedAgain(t *testing.T) {
	w := newWorld(t, kind(), nil)
	var once sync.Once
	w.mem.LoseAppend = func(int) (err error) {
		once.Do(func() { err = fault.New(fault.Timeout, "test", "", "no word") })
		return err
	}
	require.Equal(t, 5, w.must("a", add{5}))
	require.Equal(t, 6, w.must("a", add{1}))
}

func TestAnotherWriterIsNoticed(t *testing.T) {
	k := kind()
	w := newWorld(t, k, nil)
	w.must("a", add{1})
	o, err := w.router.Owner(0)
	require.NoError(t, err)
	done := make(chan error, 1)
	w.mem.Append(o.Epoch(), []persistence.Write{{Key: persistence.Key{Kind: "ledger", ID: "a"}, After: 1, Data: []byte(`[{"n":10}]`)}}, time.Second,
		func(_ []persistence.Outcome, err error) { done <- err })
	require.NoError(t, <-done)
	require.Equal(t, 12, w.must("a", add{1}), "replayed, and the add was tried again on top")
}

func TestARefusedEventWritesNothing(t *testing.T) {
	w := newWorld(t, kind(), nil)
	_, err := w.ask("a", add{-1})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	l, err := w.mem.Read(persistence.Key{Kind: "ledger", ID: "a"}, 0)
	require.NoError(t, err)
	require.Zero(t, l.Last)
}

func TestACrashAnswersItsSenderAndSparesTheState(t *testing.T) {
	w := newWorld(t, kind(), nil)
	w.must("a", add{2})
	_, err := w.ask("a", boom{})
	require.ErrorContains(t, err, "boom")
	require.Equal(t, 5, w.must("a", add{3}))
}

func TestBadBytesAreReported(t *testing.T) {
	w := newWorld(t, kind(), nil)
	o, err := w.router.Owner(0)
	require.NoError(t, err)
	done := make(chan error, 1)
	w.mem.Append(o.Epoch(), []persistence.Write{{Key: persistence.Key{Kind: "ledger", ID: "bad"}, Data: []byte(`{{{`)}}, time.Second,
		func(_ []persistence.Outcome, err error) { done <- err })
	require.NoError(t, <-done)
	_, err = w.ask("bad", add{1})
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
	require.Equal(t, 1, w.must("good", add{1}), "its neighbors do not notice")
}

func TestSnapshots(t *testing.T) {
	for _, truncate := range []bool{false, true} {
		k := kind()
		k.SnapshotEvery, k.Truncate, k.Nap = 4, truncate, true // each message wakes it anew
		w := newWorld(t, k, nil)
		for range 10 {
			w.must("a", add{1})
		}
		l, err := w.mem.Read(persistence.Key{Kind: "ledger", ID: "a"}, 0)
		require.NoError(t, err)
		require.EqualValues(t, 8, l.SnapSeq)
		require.Len(t, l.Rows, 2, "what the snapshot stands for is not read")
		require.Equal(t, 10, w.must("a", get{}).(ledger).Sum)
	}
}

func TestTimerWakesASleeper(t *testing.T) {
	k := kind()
	k.Timer = func(l ledger) time.Time { return l.Until }
	woken := make(chan struct{}, 1)
	k.Enter = func(c *entity.Context[ledger, entry]) {
		if c.State().Sum >= 1000 {
			select {
			case woken <- struct{}{}:
			default:
			}
		}
	}
	w := newWorld(t, k, nil)
	w.must("a", nap{time.Now().Add(-time.Second)})
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not woken")
	}
}

// TestANewEpochFencesTheOldOwner: the old owner's entity cannot commit, and its
// sender is answered by the new one.
func TestANewEpochFencesTheOldOwner(t *testing.T) {
	w := newWorld(t, kind(), nil)
	w.must("a", add{1})
	old, err := w.router.Owner(0)
	require.NoError(t, err)
	_, err = w.mem.Acquire(t.Context()) // another node took over
	require.NoError(t, err)
	reply := make(chan error, 1)
	old.Tell(&cluster.Envelope{Key: persistence.Key{Kind: "ledger", ID: "a"}, Msg: add{100}, Reply: func(_ any, err error) { reply <- err }})
	require.Equal(t, fault.Fenced, fault.KindOf(<-reply))
	state, _, err := kind().Load(w.mem, "a")
	require.NoError(t, err)
	require.Equal(t, 1, state.Sum)
}

func TestFirstDecidesWithoutAnActor(t *testing.T) {
	k := kind()
	w := newWorld(t, k, nil)
	after, write, err := k.First("a", add{4}, time.Now)
	require.NoError(t, err)
	require.Equal(t, 4, after.Sum)
	errs := w.router.Create(t.Context(), []persistence.Write{write})
	require.NoError(t, errs[0])
	errs = w.router.Create(t.Context(), []persistence.Write{write})
	require.True(t, errs[0] == nil || fault.KindOf(errs[0]) == fault.Conflict)
	other, write2, err := k.First("a", add{5}, time.Now)
	require.NoError(t, err)
	require.Equal(t, 5, other.Sum)
	errs = w.router.Create(t.Context(), []persistence.Write{write2})
	require.Equal(t, fault.Conflict, fault.KindOf(errs[0]))
	require.Equal(t, 4, w.must("a", get{}).(ledger).Sum)
}

func TestUnknownKind(t *testing.T) {
	w := newWorld(t, kind(), nil)
	_, err := w.router.Ask(t.Context(), persistence.Key{Kind: "nobody", ID: "x"}, get{})
	var fe *fault.Error
	require.True(t, errors.As(err, &fe))
	require.Equal(t, fault.NotFound, fe.Kind)
}
