package sink_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
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
