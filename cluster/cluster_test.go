package cluster

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// echoKind answers each message with itself and notes who is awake.
type echoKind struct {
	mu    sync.Mutex
	awake map[string]int
}

func (k *echoKind) Name() string { return "echo" }

func (k *echoKind) Types() *Types { return nil }

func (k *echoKind) Props(o *Owner, id string) *actor.Props {
	var seen uint64
	return actor.PropsFromFunc(func(c actor.Context) {
		switch m := c.Message().(type) {
		case *actor.Started:
			k.note(id, 1)
		case *actor.Stopped:
			k.note(id, -1)
		case *Envelope:
			seen++
			m.Answer(m.Msg, nil)
		case Idle:
			c.Request(c.Parent(), &Passivate{Key: persistence.Key{Kind: "echo", ID: id}, Seen: seen})
		}
	})
}

func (k *echoKind) note(id string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.awake[id] += n
}

func quiet() (*actor.ActorSystem, *slog.Logger) {
	log := slog.New(slog.DiscardHandler)
	return actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return log })), log
}

func TestLeadershipOpensAndClosesShards(t *testing.T) {
	store := persisttest.NewStore(2)
	sys, log := quiet()
	k := &echoKind{awake: map[string]int{}}
	opened, closed := make(chan *Owner, 16), make(chan *Owner, 16)
	s, err := NewShards(Options{Store: store, System: sys, Kinds: []Kind{k}, Log: log,
		Opened: func(o *Owner) { opened <- o }, Closed: func(o *Owner) { closed <- o }})
	require.NoError(t, err)
	<-s.Ready()
	first := map[int]*Owner{}
	for range 2 {
		o := <-opened
		first[o.Shard()] = o
	}
	key := persistence.Key{Kind: "echo", ID: "x"}
	n := s.Router().ShardOf(key)
	v, err := s.Router().Ask(t.Context(), key, "hello")
	require.NoError(t, err)
	require.Equal(t, "hello", v)

	store.Lead(persistence.Lead{Shard: n})
	require.Same(t, first[n], <-closed)
	require.Zero(t, k.awake["x"], "its actors stopped with it")
	_, err = s.Router().Owner(n)
	require.Equal(t, fault.Fenced, fault.KindOf(err))
	refused := make(chan error, 1)
	first[n].Append(persistence.Write{Key: key, Data: []byte("x")}, func(_ persistence.Outcome, err error) { refused <- err })
	require.Equal(t, fault.Fenced, fault.KindOf(<-refused))

	store.Lead(persistence.Lead{Shard: n, Leading: true})
	again := <-opened
	require.Greater(t, again.Epoch(), first[n].Epoch(), "a lead won again is a new epoch")
	_, err = s.Router().Ask(t.Context(), key, "again")
	require.NoError(t, err)

	s.Stop()
	require.NoError(t, store.Close())
	s.Wait()
}

// TestAskWaitsForAnOwner: a request made while a shard has no owner is answered once
// there is one.
func TestAskWaitsForAnOwner(t *testing.T) {
	store := persisttest.NewStore(1)
	sys, log := quiet()
	k := &echoKind{awake: map[string]int{}}
	closed := make(chan *Owner, 1)
	s, err := NewShards(Options{Store: store, System: sys, Kinds: []Kind{k}, Log: log, Closed: func(o *Owner) { closed <- o }})
	require.NoError(t, err)
	<-s.Ready()
	store.Lead(persistence.Lead{Shard: 0})
	<-closed
	answer := make(chan error, 1)
	go func() {
		_, err := s.Router().Ask(t.Context(), persistence.Key{Kind: "echo", ID: "x"}, 1)
		answer <- err
	}()
	store.Lead(persistence.Lead{Shard: 0, Leading: true})
	require.NoError(t, <-answer)
	s.Stop()
	require.NoError(t, store.Close())
}

// blocking is a journal whose appends end when the test says so.
type blocking struct {
	persistence.Journal
	mu    sync.Mutex
	calls [][]persistence.Write
	done  []func([]persistence.Outcome, error)
}

func (b *blocking) Append(_ uint64, ws []persistence.Write, _ time.Duration, done func([]persistence.Outcome, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls, b.done = append(b.calls, ws), append(b.done, done)
}

func (b *blocking) end(i int, err error) {
	b.mu.Lock()
	ws, done := b.calls[i], b.done[i]
	b.mu.Unlock()
	done(make([]persistence.Outcome, len(ws)), err)
}

func (b *blocking) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.calls)
}

func TestAppendsGatherWhileTheDiskIsBusy(t *testing.T) {
	b := &blocking{}
	a := &appender{journal: b, epoch: 1, now: time.Now}
	ended := 0
	add := func() {
		a.add(persistence.Write{Key: persistence.Key{Kind: "k", ID: "i"}, Data: []byte("d")}, func(_ persistence.Outcome, err error) {
			require.NoError(t, err)
			ended++
		})
	}
	const n = appendInFlightMax + 100
	for range n {
		add()
	}
	require.Equal(t, appendInFlightMax, b.count())
	b.end(0, nil)
	require.Equal(t, appendInFlightMax+1, b.count())
	require.Len(t, b.calls[appendInFlightMax], 100, "all that waited is one proposal")
	for i := 1; i <= appendInFlightMax; i++ {
		b.end(i, nil)
	}
	require.Equal(t, n, ended)
}

func TestAppenderLimits(t *testing.T) {
	b := &blocking{}
	a := &appender{journal: b, epoch: 1, now: time.Now}
	errs := map[fault.Kind]int{}
	done := func(_ persistence.Outcome, err error) { errs[fault.KindOf(err)]++ }
	for range appendInFlightMax + appendQueueMax + 3 {
		a.add(persistence.Write{Key: persistence.Key{Kind: "k", ID: "i"}, Data: []byte("d")}, done)
	}
	require.Equal(t, map[fault.Kind]int{fault.Overloaded: 3}, errs)
	b.end(0, fault.New(fault.Fenced, "t", "", "another owner"))
	require.Equal(t, appendQueueMax+1, errs[fault.Fenced], "what waited cannot be appended any more")
	a.add(persistence.Write{}, done)
	require.Equal(t, appendQueueMax+2, errs[fault.Fenced])
	require.Equal(t, appendInFlightMax, b.count())
}

func TestTimerRows(t *testing.T) {
	at := time.UnixMicro(123456)
	k := persistence.Key{Kind: "task", ID: "a\x00b"}
	row := TimerRow(k, at, false)
	gotAt, got, ok := parseTimer(row.Key)
	require.True(t, ok)
	require.True(t, at.Equal(gotAt))
	require.Equal(t, k, got)
	_, _, ok = parseTimer([]byte("short"))
	require.False(t, ok)
}
