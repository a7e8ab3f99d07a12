package bank_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// town is a bank on a few shards in memory, where time runs fast.
type town struct {
	t      *testing.T
	store  *persisttest.Store
	router *cluster.Router
	n      atomic.Int64 // appends so far, of all shards
}

const (
	shards = 3
	haste  = 20 // seconds of the bank's in one of ours
)

func newTown(t *testing.T) *town {
	w := &town{t: t, store: persisttest.NewStore(shards)}
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	began := time.Now()
	s, err := cluster.NewShards(cluster.Options{Store: w.store, System: sys, Kinds: bank.Kinds(), Log: slog.New(slog.DiscardHandler),
		Tick: 5 * time.Millisecond, Now: func() time.Time { return began.Add(haste * time.Since(began)) }})
	require.NoError(t, err)
	t.Cleanup(func() { s.Stop(); require.NoError(t, w.store.Close()); s.Wait(); sys.Shutdown() })
	<-s.Ready()
	w.router = s.Router()
	return w
}

// every makes f the hook of all shards, with the number of the append over all of them.
func (w *town) every(lose bool, f func(n int64) error) {
	for i := range shards {
		hook := func(int) error { return f(w.n.Add(1)) }
		if m := w.store.Memory(i); lose {
			m.LoseAppend = hook
		} else {
			m.FailAppend = hook
		}
	}
}

// moved makes every shard lose its owner and get it back.
func (w *town) moved() {
	for i := range shards {
		w.store.Lead(persistence.Lead{Shard: i})
		w.store.Lead(persistence.Lead{Shard: i, Leading: true})
	}
}

// ask is a client: it sends again under the same id while that may help.
func (w *town) ask(kind, id, request, typ string, msg any) (v json.RawMessage, err error) {
	w.t.Helper()
	body, err := json.Marshal(msg)
	require.NoError(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 20 {
		res, err := w.router.Command(ctx, persistence.Key{Kind: kind, ID: id}, cluster.Command{ID: request, Type: typ, Body: body})
		if err == nil {
			return res.Body, nil
		}
		if !fault.KindOf(err).Retryable() {
			return nil, err
		}
	}
	return nil, fault.New(fault.Unavailable, "test", "", "it fails for ever")
}

func (w *town) must(kind, id, request, typ string, msg any) {
	w.t.Helper()
	_, err := w.ask(kind, id, request, typ, msg)
	require.NoError(w.t, err)
}

// until waits for a state.
func until[S any](w *town, key persistence.Key, load func(string, persistence.Log) (S, uint64, error), ok func(S) bool) S {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	changed, stop := w.router.Watch(key)
	defer stop()
	for {
		l, err := w.router.Read(ctx, key, 0)
		require.NoError(w.t, err, "%v", key)
		s, _, err := load(key.ID, l)
		require.NoError(w.t, err)
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(w.t, "it does not come to rest", "%v: %+v", key, s)
		}
	}
}

func (w *town) ended(id string) bank.Transfer {
	w.t.Helper()
	return until(w, persistence.Key{Kind: bank.TransferKind, ID: id}, bank.Transfers().Fold, func(t bank.Transfer) bool { return t.Phase.Final() })
}

// settled waits until nothing is reserved on an account.
func (w *town) settled(id string) bank.Account {
	w.t.Helper()
	return until(w, persistence.Key{Kind: bank.AccountKind, ID: id}, bank.Accounts().Fold, func(a bank.Account) bool { return len(a.Holds) == 0 })
}

func TestAccount(t *testing.T) {
	w := newTown(t)
	for _, c := range []struct {
		typ  string
		msg  any
		want fault.Kind
		free int64
	}{
		{"Get", bank.Get{}, fault.NotFound, 0},
		{"Deposit", bank.Deposit{Cents: 1}, fault.NotFound, 0},
		{"Open", bank.Open{}, 0, 0},
		{"Open", bank.Open{}, 0, 0},
		{"Deposit", bank.Deposit{Cents: 500}, 0, 500},
		{"Deposit", bank.Deposit{Cents: 0}, fault.Invalid, 500},
		{"Deposit", bank.Deposit{Cents: -5}, fault.Invalid, 500},
		{"Deposit", bank.Deposit{Cents: 1 << 53}, fault.Conflict, 500},
		{"Withdraw", bank.Withdraw{Cents: 501}, fault.Conflict, 500},
		{"Withdraw", bank.Withdraw{Cents: 200}, 0, 300},
	} {
		v, err := w.ask(bank.AccountKind, "a", "", c.typ, c.msg)
		require.Equal(t, c.want, fault.KindOf(err), "%s %v: %v", c.typ, c.msg, err)
		if err == nil {
			var b bank.Balance
			require.NoError(t, json.Unmarshal(v, &b))
			require.Equal(t, bank.Balance{Open: true, Cents: c.free, Free: c.free}, b)
		}
	}
}

func TestARequestCountsOnce(t *testing.T) {
	w := newTown(t)
	w.must(bank.AccountKind, "a", "", "Open", bank.Open{})
	for range 3 {
		w.must(bank.AccountKind, "a", "r1", "Deposit", bank.Deposit{Cents: 5})
		w.moved()
	}
	require.EqualValues(t, 5, w.settled("a").Cents)
	_, err := w.ask(bank.AccountKind, "a", "r1", "Deposit", bank.Deposit{Cents: 6})
	require.Equal(t, fault.Conflict, fault.KindOf(err), "another message under the same id")
}

func TestTransfers(t *testing.T) {
	w := newTown(t)
	for _, id := range []string{"a", "b"} {
		w.must(bank.AccountKind, id, "", "Open", bank.Open{})
	}
	w.must(bank.AccountKind, "a", "", "Deposit", bank.Deposit{Cents: 1000})
	for _, c := range []struct {
		id    string
		start bank.Start
		phase bank.Phase
		why   string
		a, b  int64
	}{
		{"1", bank.Start{From: "a", To: "b", Cents: 300}, bank.Done, "", 700, 300},
		{"1", bank.Start{From: "a", To: "b", Cents: 300}, bank.Done, "", 700, 300},
		{"2", bank.Start{From: "b", To: "a", Cents: 301}, bank.Failed, "from: 300 cents are free, not 301", 700, 300},
		{"3", bank.Start{From: "a", To: "nobody", Cents: 1}, bank.Failed, "to: the account is not open", 700, 300},
		{"4", bank.Start{From: "b", To: "a", Cents: 300}, bank.Done, "", 1000, 0},
	} {
		w.must(bank.TransferKind, c.id, "", "Start", c.start)
		got := w.ended(c.id)
		require.Equal(t, c.phase, got.Phase)
		require.Equal(t, c.why, got.Why)
		require.Equal(t, c.a, w.settled("a").Cents)
		require.Equal(t, c.b, w.settled("b").Cents)
	}
	for _, c := range []struct {
		id    string
		start bank.Start
		want  fault.Kind
	}{
		{"1", bank.Start{From: "a", To: "b", Cents: 299}, fault.Conflict},
		{"5", bank.Start{From: "a", To: "a", Cents: 1}, fault.Invalid},
		{"5", bank.Start{From: "a", To: "b", Cents: 0}, fault.Invalid},
	} {
		_, err := w.ask(bank.TransferKind, c.id, "", "Start", c.start)
		require.Equal(t, c.want, fault.KindOf(err), "%v", c)
	}
}

// TestACrashAtEveryWrite makes append number n fail, or lose all owners before or after it is applied, for every n, and looks
// for the money.
func TestACrashAtEveryWrite(t *testing.T) {
	story := func(t *testing.T, w *town) {
		for _, id := range []string{"a", "b"} {
			w.must(bank.AccountKind, id, "open", "Open", bank.Open{})
		}
		w.must(bank.AccountKind, "a", "pay", "Deposit", bank.Deposit{Cents: 1000})
		starts := map[string]bank.Start{"1": {From: "a", To: "b", Cents: 300}, "2": {From: "a", To: "b", Cents: 5000}, "3": {From: "a", To: "nobody", Cents: 10}}
		for id, s := range starts {
			w.must(bank.TransferKind, id, "", "Start", s)
		}
		require.Equal(t, bank.Done, w.ended("1").Phase)
		require.Equal(t, bank.Failed, w.ended("2").Phase)
		require.Equal(t, bank.Failed, w.ended("3").Phase)
		require.EqualValues(t, 700, w.settled("a").Cents)
		require.EqualValues(t, 300, w.settled("b").Cents)
		require.Zero(t, w.settled("nobody").Cents)
	}
	dry := newTown(t)
	dry.every(false, func(int64) error { return nil })
	story(t, dry)
	total := dry.n.Load()
	t.Logf("%d appends", total)
	for _, how := range []string{"refused", "applied", "moved"} {
		t.Run(how, func(t *testing.T) {
			for n := int64(1); n <= total; n++ {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					w := newTown(t)
					w.every(how == "applied", func(i int64) error {
						switch {
						case i != n:
							return nil
						case how == "refused":
							return fault.New(fault.NoSpace, "test", "", "append %d", i)
						}
						w.moved()
						if how == "applied" { // and nobody is told: the owner that asked is no more
							return fault.New(fault.Timeout, "test", "", "append %d", i)
						}
						return nil
					})
					story(t, w)
				})
			}
		})
	}
}

// TestMoneyUnderStorm lets transfers of all directions meet owners that come and go, and writes that fail.
func TestMoneyUnderStorm(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newTown(t)
	const accounts, each, transfers = 4, 1000, 60
	name := func(i int) string { return fmt.Sprint("acc", i) }
	for i := range accounts {
		w.must(bank.AccountKind, name(i), "open", "Open", bank.Open{})
		w.must(bank.AccountKind, name(i), "pay", "Deposit", bank.Deposit{Cents: each})
	}
	var mu sync.Mutex
	w.every(true, func(n int64) error { // applied, and sometimes not said
		mu.Lock()
		defer mu.Unlock()
		switch r := rng.IntN(40); {
		case r == 0:
			w.moved()
			return fault.New(fault.Timeout, "test", "", "append %d", n)
		case r < 5:
			return fault.New(fault.Timeout, "test", "", "append %d", n)
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range transfers {
		mu.Lock()
		from, by, cents := rng.IntN(accounts), 1+rng.IntN(accounts-1), 1+rng.Int64N(700)
		mu.Unlock()
		wg.Go(func() {
			_, err := w.ask(bank.TransferKind, fmt.Sprint(i), "", "Start", bank.Start{From: name(from), To: name((from + by) % accounts), Cents: cents})
			if err != nil {
				t.Errorf("transfer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	done := 0
	for i := range transfers {
		if w.ended(fmt.Sprint(i)).Phase == bank.Done {
			done++
		}
	}
	sum := int64(0)
	for i := range accounts {
		a := w.settled(name(i))
		require.GreaterOrEqual(t, a.Cents, int64(0))
		sum += a.Cents
	}
	require.EqualValues(t, accounts*each, sum, "the total is constant")
	require.Positive(t, done)
	t.Logf("%d of %d transfers done", done, transfers)
}
