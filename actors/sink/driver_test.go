package sink_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

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

	all, err := y.sinks.List(t.Context(), "")
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
	all, err := y.sinks.List(t.Context(), "")
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
