package sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// feed is results in memory, of two shards: like a node's, what it gives from one cursor on depends on when it is asked, because the shards
// settle one after the other, and what lies between two cursors does not.
type feed struct {
	mu   sync.Mutex
	rows [2][]ended
	down int // reads that fail
}

type ended struct {
	id  string
	at  time.Time
	rec *task.Record
}

// end adds a result to a shard.
func (f *feed) end(shard int, id string, at time.Time, metadata map[string]string) {
	f.add(shard, id, at, &task.Record{State: task.Completed, Spec: &task.Spec{Prompt: "p" + id, Metadata: metadata}, CreatedAt: at, EndedAt: at, Attempt: 1,
		Answers: []task.Answer{{Text: "answer " + id}}})
}

func (f *feed) add(shard int, id string, at time.Time, rec *task.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows[shard] = append(f.rows[shard], ended{id, at, rec})
}

type position [2]int

func parsePosition(s string) (p position, err error) {
	if s == "" {
		return p, nil
	}
	if _, err = fmt.Sscanf(s, "%d,%d", &p[0], &p[1]); err != nil {
		err = fault.New(fault.Invalid, "test", "cursor", "%q", s)
	}
	return p, err
}

func (p position) String() string {
	if p == (position{}) {
		return ""
	}
	return fmt.Sprintf("%d,%d", p[0], p[1])
}

// Results merges the shards by time.
func (f *feed) Results(_ context.Context, _, after, upTo string, each func(string, *task.Record) bool) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down > 0 {
		f.down--
		return after, fault.New(fault.Unavailable, "test", "", "no owner")
	}
	to := position{len(f.rows[0]), len(f.rows[1])}
	if after == sink.FromEnd {
		return to.String(), nil
	}
	p, err := parsePosition(after)
	if err == nil && upTo != "" {
		to, err = parsePosition(upTo)
	}
	if err != nil {
		return after, err
	}
	for {
		best := -1
		for s := range p {
			if p[s] < to[s] && (best < 0 || f.rows[s][p[s]].at.Before(f.rows[best][p[best]].at)) {
				best = s
			}
		}
		if best < 0 {
			return p.String(), nil
		}
		row := f.rows[best][p[best]]
		p[best]++
		if !each(row.id, row.rec) {
			return p.String(), nil
		}
	}
}

// shelf is a destination that keeps objects, as a reader sees them. It can fail before and after it has kept one.
type shelf struct {
	t       *testing.T
	mu      sync.Mutex
	objects map[string]string
	writes  int
	opens   int
	fail    func(write int) (before, after error)
	wrote   chan struct{} // after each success; holds many
}

func newShelf(t *testing.T) *shelf {
	return &shelf{t: t, objects: map[string]string{}, wrote: make(chan struct{}, 1<<16), fail: func(int) (error, error) { return nil, nil }}
}

func (s *shelf) Open(context.Context, *sink.Definition, string) (sink.Destination, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens++
	return s, nil
}

func (s *shelf) Write(_ context.Context, object string, batch []sink.Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	before, after := s.fail(s.writes)
	if before != nil {
		return before
	}
	text := ""
	for _, it := range batch {
		text += string(it.JSON) + "\n"
	}
	if was, there := s.objects[object]; there && was != text {
		s.t.Errorf("object %s was %q and became %q", object, was, text)
	}
	s.objects[object] = text
	if after == nil {
		s.wrote <- struct{}{}
	}
	return after
}

func (s *shelf) Close() error { return nil }

// ids returns what a reader of all objects sees, and how often.
func (s *shelf) ids() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]int{}
	for _, text := range s.objects {
		for _, line := range splitLines(text) {
			seen[line]++
		}
	}
	return seen
}

func splitLines(text string) (lines []string) {
	for len(text) > 0 {
		for i := range text {
			if text[i] == '\n' {
				lines, text = append(lines, text[:i]), text[i+1:]
				break
			}
		}
	}
	return lines
}

// yard is a node with nothing but sinks, on shards in memory.
type yard struct {
	t       *testing.T
	store   *persisttest.Store
	router  *cluster.Router
	sinks   *sink.Sinks
	feed    *feed
	shelf   *shelf
	appends atomic.Int64
	now     func() time.Time
}

const (
	shardCount = 2
	haste      = 20 // seconds of the yard's in one of ours
)

func newYard(t *testing.T) *yard {
	y := &yard{shelf: newShelf(t)}
	line := func(id string, _ *task.Record, _ bool) ([]byte, error) { return []byte(id), nil }
	y.begin(t, sink.Options{Check: func(*sink.Definition) error { return nil }, Open: y.shelf.Open, Line: line})
	return y
}

// begin starts it with a destination of one's own.
func (y *yard) begin(t *testing.T, o sink.Options) {
	began := time.Now()
	y.t, y.store, y.feed, y.now = t, persisttest.NewStore(shardCount), &feed{}, func() time.Time { return began.Add(haste * time.Since(began)) }
	log := slog.New(slog.DiscardHandler)
	y.sinks = sink.New(y.now, log)
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return log }))
	shards, err := cluster.NewShards(cluster.Options{Store: y.store, System: sys, Kinds: []cluster.Kind{y.sinks.Kind()}, Tick: 5 * time.Millisecond, Now: y.now, Log: log})
	require.NoError(t, err)
	y.router = shards.Router()
	t.Cleanup(func() {
		y.sinks.Stop()
		shards.Stop()
		require.NoError(t, y.store.Close())
		shards.Wait()
		sys.Shutdown()
	})
	<-shards.Ready()
	o.Router, o.Results, o.Jitter = y.router, y.feed.Results, func() float64 { return 0 }
	y.sinks.Attach(o)
}

func (y *yard) create(change func(*sink.Definition)) string {
	y.t.Helper()
	d := sink.Definition{Name: "s", URL: "file:///out", Rows: 3, Every: task.Duration(time.Millisecond)}
	change(&d)
	again(y.t, func(ctx context.Context) (sink.State, error) { return y.sinks.Create(ctx, d) })
	return d.Name
}

// again repeats what failed for a while, as clients do.
func again[T any](t *testing.T, f func(ctx context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	for {
		v, err := f(ctx)
		if err == nil {
			return v
		}
		require.True(t, fault.KindOf(err).Retryable(), "%v", err)
		require.NoError(t, ctx.Err(), "%v", err)
	}
}

// until waits for a state.
func (y *yard) until(name string, ok func(sink.State) bool) sink.State {
	y.t.Helper()
	changed, stop := y.router.Watch(sink.Key(name))
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for {
		s := again(y.t, func(ctx context.Context) (sink.State, error) { return y.sinks.Get(ctx, name) })
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			b, _ := json.Marshal(s)
			require.Fail(y.t, "the sink does not come so far", "%s", b)
		}
	}
}

func (y *yard) delivered(name string, n int) sink.State {
	y.t.Helper()
	return y.until(name, func(s sink.State) bool { return s.Count >= uint64(n) && s.Next == nil })
}

// check holds what readers see against what ended: each result once.
func (y *yard) check(n int) {
	y.t.Helper()
	seen := y.shelf.ids()
	require.Len(y.t, seen, n)
	for i := range n {
		require.Equal(y.t, 1, seen[strconv.Itoa(i)], "result %d", i)
	}
}

// fill ends n results, in turns on the shards, beginning with number from.
func (y *yard) fill(from, n int) {
	for i := from; i < from+n; i++ {
		y.feed.end(i%2, strconv.Itoa(i), time.Unix(int64(1_700_000_000+i), 0), nil)
	}
}

func TestDelivery(t *testing.T) {
	y := newYard(t)
	y.fill(0, 10)
	name := y.create(func(*sink.Definition) {})
	s := y.delivered(name, 10)
	require.EqualValues(t, 4, s.Seq, "3, 3, 3 and 1")
	y.check(10)
	require.True(t, s.Newest.Equal(time.Unix(1_700_000_009, 0)))
	oldest, err := y.sinks.Waiting(t.Context(), &s)
	require.NoError(t, err)
	require.Zero(t, oldest)
	y.fill(10, 5)
	oldest, err = y.sinks.Waiting(t.Context(), &s)
	require.NoError(t, err)
	require.True(t, oldest.Equal(time.Unix(1_700_000_010, 0)))
	y.delivered(name, 15)
	y.check(15)
}

// TestAResultWaitsForOthersAWhile: a batch is not written before it is full or old.
func TestAResultWaitsForOthersAWhile(t *testing.T) {
	y := newYard(t)
	name := y.create(func(d *sink.Definition) { d.Every = task.Duration(30 * time.Second) }) // 1.5 s of ours
	now := y.now()
	y.feed.end(0, "0", now, nil)
	s := y.delivered(name, 1)
	require.GreaterOrEqual(t, y.now().Sub(now), 30*time.Second)
	require.EqualValues(t, 1, s.Seq)
	for i := 1; i < 4; i++ {
		y.feed.end(i%2, strconv.Itoa(i), y.now(), nil)
	}
	y.delivered(name, 4)
	y.check(4)
}

func TestFiltersAndWhereItStarts(t *testing.T) {
	y := newYard(t)
	y.fill(0, 5)
	name := y.create(func(d *sink.Definition) {
		d.From, d.Metadata = sink.FromEnd, map[string]string{"job": "x"}
	})
	for i := 5; i < 12_000; i++ { // more than skipMax that it does not want
		y.feed.end(i%2, strconv.Itoa(i), time.Unix(int64(1_700_000_000+i), 0), nil)
	}
	s := y.until(name, func(s sink.State) bool { return s.Cursor != "3,2" }) // which was the end
	require.Zero(t, s.Count)
	y.feed.end(0, "mine", y.now().Add(1000*time.Hour), map[string]string{"job": "x"})
	y.delivered(name, 1) // although the clock of its shard is ahead
	require.Equal(t, map[string]int{"mine": 1}, y.shelf.ids())

	_, err := y.sinks.Create(t.Context(), sink.Definition{Name: "other", URL: "file:///x", From: "nonsense"})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

// TestADestinationThatIsDown holds nobody up, says why, and gets everything when it is back.
func TestADestinationThatIsDown(t *testing.T) {
	y := newYard(t)
	y.fill(0, 10)
	var down atomic.Bool
	down.Store(true)
	y.shelf.fail = func(int) (error, error) {
		if down.Load() {
			return errors.New("connection refused"), nil
		}
		return nil, nil
	}
	name := y.create(func(*sink.Definition) {})
	s := y.until(name, func(s sink.State) bool { return s.Tries >= 2 })
	require.Equal(t, sink.Running, s.Phase)
	require.Equal(t, "connection refused", s.Error.Message)
	require.False(t, s.Since.IsZero())
	require.Zero(t, s.Count)
	down.Store(false)
	s = y.delivered(name, 10)
	require.Nil(t, s.Error)
	require.Zero(t, s.Tries)
	y.check(10)
	require.GreaterOrEqual(t, y.shelf.opens, 3, "it was opened anew for each try")
}

func TestPauseAndResume(t *testing.T) {
	y := newYard(t)
	name := y.create(func(*sink.Definition) {})
	for range 2 { // twice is harmless
		s, err := y.sinks.Say(t.Context(), name, sink.Pause{})
		require.NoError(t, err)
		require.Equal(t, sink.Paused, s.Phase)
	}
	y.fill(0, 4)
	other := y.create(func(d *sink.Definition) { d.Name = "other" }) // when it has them all, the paused one had the time, too
	y.delivered(other, 4)
	s, err := y.sinks.Get(t.Context(), name)
	require.NoError(t, err)
	require.Zero(t, s.Count)
	_, err = y.sinks.Say(t.Context(), name, sink.Resume{})
	require.NoError(t, err)
	y.delivered(name, 4)

	all, err := y.sinks.List(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "other", all[0].Def.Name)
}

// TestANameThatIsTakenAgain: what was written stays, and the new one writes other objects.
func TestANameThatIsTakenAgain(t *testing.T) {
	y := newYard(t)
	y.fill(0, 4)
	name := y.create(func(*sink.Definition) {})
	first := y.delivered(name, 4)
	_, err := y.sinks.Create(t.Context(), *first.Def)
	require.NoError(t, err, "the same again")
	_, err = y.sinks.Create(t.Context(), sink.Definition{Name: name, URL: "file:///elsewhere"})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	_, err = y.sinks.Say(t.Context(), name, sink.Delete{})
	require.NoError(t, err)
	for _, msg := range []any{sink.Delete{}, sink.Pause{}, sink.Get{}} {
		_, err = y.sinks.Say(t.Context(), name, msg)
		require.Equal(t, fault.NotFound, fault.KindOf(err))
	}
	_, err = y.sinks.Get(t.Context(), name)
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	all, err := y.sinks.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)

	y.create(func(d *sink.Definition) { d.Rows = 2 })
	second := y.delivered(name, 4)
	require.NotEqual(t, first.Life, second.Life)
	y.shelf.mu.Lock()
	defer y.shelf.mu.Unlock()
	require.Len(t, y.shelf.objects, 4, "2 of the first, 2 of the second")
}

func TestNoMoreSinksThanThereMayBe(t *testing.T) {
	y := newYard(t)
	for i := range sink.SinksMax {
		y.create(func(d *sink.Definition) { d.Name = fmt.Sprint("s", i) })
	}
	_, err := y.sinks.Create(t.Context(), sink.Definition{Name: "toomany", URL: "file:///x"})
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
	_, err = y.sinks.Create(t.Context(), sink.Definition{Name: "s0", URL: "file:///out", Rows: 3, Every: task.Duration(time.Millisecond)})
	require.NoError(t, err, "one that is there")
}

// every makes f the hook of all shards, with the number of the append over all of them.
func (y *yard) every(lose bool, f func(n int64) error) {
	for i := range shardCount {
		hook := func(int) error { return f(y.appends.Add(1)) }
		if m := y.store.Memory(i); lose {
			m.LoseAppend = hook
		} else {
			m.FailAppend = hook
		}
	}
}

// moved makes every shard lose its owner and get it back: drivers end in the middle of what they do, and others begin.
func (y *yard) moved() {
	for i := range shardCount {
		y.store.Lead(persistence.Lead{Shard: i})
		y.store.Lead(persistence.Lead{Shard: i, Leading: true})
	}
}

// TestACrashAtEveryAppend fails, or loses the answer of, each append in turn; then every shard gets a new owner.
func TestACrashAtEveryAppend(t *testing.T) {
	const rows = 7 // 3, 3 and 1
	for _, lose := range []bool{false, true} {
		for n := int64(1); ; n++ {
			met := false
			t.Run(fmt.Sprintf("lose=%v append=%d", lose, n), func(t *testing.T) {
				t.Parallel()
				y := newYard(t)
				y.fill(0, rows)
				var once sync.Once
				y.every(lose, func(at int64) (err error) {
					if at >= n {
						once.Do(func() {
							err = fault.New(fault.Unavailable, "test", "", "append %d", at)
							go y.moved()
						})
					}
					return err
				})
				y.delivered(y.create(func(*sink.Definition) {}), rows)
				y.check(rows)
			})
			if met = n >= 8; met { // created, planned, three times delivered, the last one alone: each is met
				break
			}
		}
	}
}

// TestOwnersThatComeAndGo: new owners at random moments, writes that fail before and after they have happened, results that turn up
// meanwhile on one shard or the other. No result is missing, none is there twice, no object changes.
func TestOwnersThatComeAndGo(t *testing.T) {
	y := newYard(t)
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	y.shelf.fail = func(int) (before, after error) {
		switch r.IntN(8) { // under the shelf's lock
		case 0:
			return errors.New("refused"), nil
		case 1:
			return nil, errors.New("connection reset") // after it was written
		}
		return nil, nil
	}
	y.fill(0, 60)
	name := y.create(func(*sink.Definition) {})
	const rounds = 8
	for round := range rounds {
		for range 2 + round%3 {
			<-y.shelf.wrote
		}
		y.moved()
		y.fill(60+round*10, 10)
	}
	y.delivered(name, 60+rounds*10)
	y.check(60 + rounds*10)
}

// TestABatchIsWrittenAsItWasPlanned: after its first write, of which nobody hears, results turn up that belong before, between and behind its
// own, and another driver writes it again. The shelf compares.
func TestABatchIsWrittenAsItWasPlanned(t *testing.T) {
	y := newYard(t)
	at := func(n int) time.Time { return time.Unix(int64(1_700_000_000+n), 0) }
	y.feed.end(0, "1", at(10), nil)
	y.feed.end(0, "2", at(20), nil)
	var tried atomic.Int64
	y.shelf.fail = func(n int) (before, after error) {
		if n == 1 {
			y.feed.end(1, "0", at(5), nil)
			y.feed.end(1, "3", at(15), nil)
			y.feed.end(0, "4", at(30), nil)
			go y.moved()
			return nil, errors.New("connection reset") // after it was written
		}
		tried.Add(1)
		return nil, nil
	}
	s := y.delivered(y.create(func(d *sink.Definition) { d.Rows = 10 }), 5)
	require.EqualValues(t, 2, s.Seq)
	require.GreaterOrEqual(t, tried.Load(), int64(2), "the first batch again, and the second")
	y.check(5)
	y.shelf.mu.Lock()
	defer y.shelf.mu.Unlock()
	require.Equal(t, "1\n2\n", y.shelf.objects[s.Object(1)])
	require.Equal(t, "0\n3\n4\n", y.shelf.objects[s.Object(2)])
}

// TestAReadThatFails is tried again, and is no trouble of the destination.
func TestAReadThatFails(t *testing.T) {
	y := newYard(t)
	y.fill(0, 5)
	y.feed.down = 2
	s := y.delivered(y.create(func(*sink.Definition) {}), 5)
	require.Nil(t, s.Error)
	y.check(5)
}
