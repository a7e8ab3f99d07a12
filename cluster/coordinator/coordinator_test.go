package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// until lets the bubble's time pass until ok, for at most limit.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond) // fake
		synctest.Wait()
	}
	return time.Since(began)
}

func (w *world) even(nodes ...*fakeNode) func() bool {
	return func() bool {
		all, leads := w.load()
		rf := min(3, len(nodes))
		most, least := 0, 1<<30
		leadMost, leadLeast := 0, 1<<30
		sum := 0
		for i, n := range w.nodes {
			if !slices.Contains(nodes, n) {
				if all[i] > 0 {
					return false
				}
				continue
			}
			sum += all[i]
			most, least = max(most, all[i]), min(least, all[i])
			leadMost, leadLeast = max(leadMost, leads[i]), min(leadLeast, leads[i])
		}
		return sum == rf*len(w.groups) && most-least <= 1 && leadMost-leadLeast <= 1
	}
}

func TestClusterGrowsHealsAndShrinks(t *testing.T) {
	for _, harm := range []float64{0, 0.15} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint("harm ", harm, " seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 16, seed)
					w.harm = harm
					n1 := w.add()
					w.found(n1)
					mem := persisttest.NewMemory()
					c := w.coordinate(newOwner(t, mem))
					defer func() { c.Stop() }()
					n2, n3 := w.add(), w.add()
					t.Log("1 to 3:", until(t, 5*time.Minute, "three nodes", w.even(n1, n2, n3)))
					n4, n5 := w.add(), w.add()
					t.Log("3 to 5:", until(t, 5*time.Minute, "five nodes", w.even(n1, n2, n3, n4, n5)))

					before, _ := w.load()
					w.kill(n5)
					time.Sleep(8 * time.Second)
					after, _ := w.load()
					require.Equal(t, before[4], after[4], "within the grace time it keeps its replicas")
					t.Log("a dead node:", until(t, 5*time.Minute, "without the dead", w.even(n1, n2, n3, n4)))
					w.back(n5)
					until(t, 5*time.Minute, "it is back", w.even(n1, n2, n3, n4, n5))
					w.wipe(n4)
					t.Log("a wiped node:", until(t, 5*time.Minute, "wiped", w.even(n1, n2, n3, n4, n5)))

					// Another coordinator takes over in the middle of it.
					w.leave(n4)
					w.leave(n5)
					time.Sleep(100 * time.Millisecond)
					old := c // it goes on until it writes
					defer old.Stop()
					c = w.coordinate(newOwner(t, mem))
					t.Log("5 to 3:", until(t, 5*time.Minute, "drained", w.even(n1, n2, n3)))
					until(t, time.Minute, "nothing is left on them", func() bool {
						return len(n4.Groups()) == 0 && len(n5.Groups()) == 0
					})
					require.Contains(t, []fault.Kind{fault.Unknown, fault.Fenced}, fault.KindOf(old.Err()))
					c.Stop()

					l, err := mem.Read(Key, 0)
					require.NoError(t, err)
					require.Less(t, len(l.Rows), rowsSnapshot)
					events, err := DecodeEvents(l)
					require.NoError(t, err)
					var text strings.Builder
					for _, e := range events {
						require.False(t, e.At.IsZero())
						require.NotZero(t, e.Epoch)
						fmt.Fprintln(&text, e.Kind, e.Text, e.Outcome)
					}
					for _, want := range []string{"n1 coordinates, epoch 2", "transfer", "remove", "drop", "done"} {
						require.Contains(t, text.String(), want)
					}
				})
			})
		}
	}
}

// A coordinator that was deposed decides nothing more, and what it asked for before is refused.
func TestDeposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 1)
		n1 := w.add()
		w.found(n1)
		mem := persisttest.NewMemory()
		o := newOwner(t, mem)
		c := w.coordinate(o)
		defer c.Stop()
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, c.Err())
		_, err := mem.Acquire(t.Context()) // shard 0 has another owner; this one does not know
		require.NoError(t, err)
		was := w.count(replicas.OpChange, replicas.OpJoin, replicas.OpDrop, replicas.OpTransfer)
		w.add()
		<-c.Done()
		require.Equal(t, fault.Fenced, fault.KindOf(c.Err()))
		require.Equal(t, was, w.count(replicas.OpChange, replicas.OpJoin, replicas.OpDrop, replicas.OpTransfer))
		c.Stop()
	})
}

// The same where two believe in one epoch, which must not be: the sequence tells them apart.
func TestTwoWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 1)
		w.found(w.add())
		mem := persisttest.NewMemory()
		o := newOwner(t, mem)
		a, b := w.coordinate(o), w.coordinate(o)
		w.add()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, fault.Conflict, max(fault.KindOf(a.Err()), fault.KindOf(b.Err())))
		require.Equal(t, fault.Unknown, min(fault.KindOf(a.Err()), fault.KindOf(b.Err())), "one of them goes on")
		a.Stop()
		b.Stop()
	})
}

// An append whose outcome is not known is made again, and is there once; one that is refused holds all decisions up.
func TestAppendTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 1)
		n1 := w.add()
		w.found(n1)
		mem := persisttest.NewMemory()
		mem.LoseAppend = func(n int) error {
			if n%2 == 1 {
				return fault.New(fault.Timeout, "journal.append", "", "lost")
			}
			return nil
		}
		full := true
		mem.FailAppend = func(int) error {
			if full {
				return fault.New(fault.NoSpace, "journal.append", "", "the disk is full")
			}
			return nil
		}
		o := newOwner(t, mem)
		n2 := w.add()
		c := w.coordinate(o)
		defer c.Stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Zero(t, w.count(replicas.OpChange))
		require.NoError(t, c.Err())
		full = false
		until(t, time.Minute, "two nodes", w.even(n1, n2))
		time.Sleep(time.Second)
		c.Stop()
		require.NoError(t, c.Err())
		l, err := mem.Read(Key, 0)
		require.NoError(t, err)
		events, err := DecodeEvents(l)
		require.NoError(t, err)
		seen := map[string]bool{}
		for _, e := range events {
			if e.Kind == EventDecision && e.Action.Kind == placement.AddLearner {
				require.False(t, seen[e.Text], "twice: %s", e.Text)
				seen[e.Text] = true
			}
		}
		require.Len(t, seen, 4)
	})
}

// Two clusters under one id: whatever they share is left alone, and said.
func TestTwoClustersUnderOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, 1)
		n1 := w.add()
		w.found(n1)
		other := newWorld(t, 2, 2)
		x := other.add()
		x.member.Node = "id-other"
		other.found(x)
		n2 := w.add()
		w.mu.Lock()
		n2.member.Node = "id-other"
		n2.serve[replicas.OpReport] = x.serve[replicas.OpReport]
		w.mu.Unlock()
		c := w.coordinate(newOwner(t, persisttest.NewMemory()))
		defer c.Stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, w.count(replicas.OpChange, replicas.OpJoin, replicas.OpDrop, replicas.OpTransfer))
		require.Len(t, slices.DeleteFunc(slices.Clone(c.chronicleEvents(t)), func(e Event) bool { return e.Kind != EventTrouble }), 2)
	})
}

func TestTroubleIsSaid(t *testing.T) {
	m := newMemory(func(string) string { return "" })
	now := time.Unix(0, 0)
	lead := persistence.Group{Shard: 0, Self: 1, Leader: 1, Replicas: []persistence.Replica{{ID: 1, Node: "a", Voter: true}, {ID: 2, Node: "b", Voter: true}}}
	also := lead
	also.Self, also.Leader = 2, 2
	look := func(after time.Duration, groups map[string]persistence.Group) (string, *persistence.Group) {
		now = now.Add(after)
		reports := map[string]replicas.Report{}
		for id, g := range groups {
			reports[id] = replicas.Report{Node: id, Groups: []persistence.Group{g}}
		}
		v, news := m.view(now, 1, reports, placement.Defaults)
		return strings.Join(news, "; "), v.Groups[0]
	}
	for _, c := range []struct {
		after  time.Duration
		groups map[string]persistence.Group
		news   string
		known  bool
	}{
		{0, nil, "", false},
		{troubleAfter / 2, map[string]persistence.Group{"a": lead, "b": also}, "", false},
		{troubleAfter / 2, map[string]persistence.Group{"a": lead, "b": also}, "shard 0 is left alone: more than one node says that it leads it", false},
		{time.Second, map[string]persistence.Group{"a": lead, "b": also}, "", false},
		{time.Second, nil, "shard 0 is left alone: no node says that it leads it", false},
		{time.Second, map[string]persistence.Group{"a": lead}, "shard 0 is well again after 13s", true},
		{time.Second, nil, "", false},
		{time.Second, map[string]persistence.Group{"a": lead}, "", true},
	} {
		news, g := look(c.after, c.groups)
		require.Equal(t, c.news, news)
		require.Equal(t, c.known, g != nil)
	}
}

func (c *Coordinator) chronicleEvents(t *testing.T) []Event {
	l, err := c.opt.Shard0.Read(Key, 0)
	require.NoError(t, err)
	events, err := DecodeEvents(l)
	require.NoError(t, err)
	return events
}

func TestEventsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		n1 := w.add()
		w.found(n1)
		mem := persisttest.NewMemory()
		c := w.coordinate(newOwner(t, mem))
		n2 := w.add()
		for range 700 {
			w.kill(n2)
			time.Sleep(time.Second)
			w.back(n2)
			time.Sleep(time.Second)
		}
		c.Stop()
		l, err := mem.Read(Key, 0)
		require.NoError(t, err)
		require.Greater(t, l.Last, uint64(1200))
		require.Less(t, len(l.Rows), rowsSnapshot)
		events, err := DecodeEvents(l)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(events), eventsKept)
		require.Less(t, len(events), eventsKept+rowsSnapshot*4)
		require.True(t, slices.IsSortedFunc(events, func(a, b Event) int { return a.At.Compare(b.At) }))

		// The next coordinator goes on where this one ended.
		c = w.coordinate(newOwner(t, mem))
		time.Sleep(time.Second)
		c.Stop()
		require.NoError(t, c.Err())
		again, err := mem.Read(Key, 0)
		require.NoError(t, err)
		require.Greater(t, again.Last, l.Last)
	})
	_, err := DecodeEvents(persistence.Log{Rows: []persistence.Row{{Seq: 1, Data: []byte("{")}}})
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
	_, err = DecodeEvents(persistence.Log{Snap: []byte("{")})
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
}

func TestStopAndRefuse(t *testing.T) {
	_, err := New(Options{})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		w.found(w.add())
		dead := w.add()
		w.mu.Lock()
		dead.serve = nil // in gossip, but it answers nothing
		w.mu.Unlock()
		c := w.coordinate(newOwner(t, persisttest.NewMemory()))
		c.Start()
		time.Sleep(100 * time.Millisecond)
		c.Stop() // while it waits for that node
		c.Stop()
		require.NoError(t, c.Err())
		<-c.Done()
		require.Equal(t, uint64(1), c.Last().Epoch)

		c, err := New(c.opt)
		require.NoError(t, err)
		c.Stop() // never started
		c.Start()
	})
}

// A coordinator that is new in office knows a wiped node's old directory by the name that gossip remembers: its replicas are
// given up at once, not after the grace time of a dead node.
func TestAWipedNodeIsKnownToANewCoordinator(t *testing.T) {
	m := newMemory(func(node string) string { return map[string]string{"old": "n2"}[node] })
	now := time.Unix(1000, 0)
	m.look(now, []members.Member{{Name: "n1", Node: "1"}, {Name: "n2", Node: "new"}, {Name: "n3", Node: "3"}})
	g := persistence.Group{Self: 1, Leader: 1, Term: 2, Version: 3, Last: 3, Applied: 9, Replicas: []persistence.Replica{
		{ID: 1, Node: "1", Voter: true}, {ID: 2, Node: "old", Voter: true}, {ID: 3, Node: "3", Voter: true}}}
	other := g
	other.Self = 3
	v, _ := m.view(now, 1, map[string]replicas.Report{"1": {Node: "1", Groups: []persistence.Group{g}}, "new": {Node: "new"},
		"3": {Node: "3", Groups: []persistence.Group{other}}}, placement.Settings{})
	plan := placement.Plan(v)
	require.Len(t, plan, 1)
	require.Equal(t, placement.AddLearner, plan[0].Kind)
	require.Equal(t, "new", plan[0].Node)
}

// TestBeforeIsWhatTheLeaderHad: a plan is told what a leader had applied in the round before, unless that is long ago.
func TestBeforeIsWhatTheLeaderHad(t *testing.T) {
	m := newMemory(func(string) string { return "" })
	now := time.Unix(0, 0)
	before := func(after time.Duration, applied uint64) uint64 {
		now = now.Add(after)
		reports := map[string]replicas.Report{}
		if applied > 0 {
			g := persistence.Group{Shard: 1, Self: 1, Leader: 1, Applied: applied, Replicas: []persistence.Replica{{ID: 1, Node: "a", Voter: true}}}
			reports["a"] = replicas.Report{Node: "a", Groups: []persistence.Group{g}}
		}
		v, _ := m.view(now, 2, reports, placement.Defaults)
		require.Zero(t, v.Before[0])
		return v.Before[1]
	}
	require.EqualValues(t, 0, before(0, 10))
	require.EqualValues(t, 10, before(every, 20))
	require.EqualValues(t, 0, before(every, 0), "it did not answer, so nothing is planned")
	require.EqualValues(t, 20, before(every, 30))
	require.EqualValues(t, 0, before(beforeMax+1, 40))
	require.EqualValues(t, 40, before(beforeMax, 50))
}
