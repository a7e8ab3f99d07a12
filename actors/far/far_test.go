package far

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestAnswersAreGivenAgain(t *testing.T) {
	s := answers{by: map[string]*answer{}}
	a, fresh := s.begin("1", t0)
	require.True(t, fresh)
	again, fresh := s.begin("1", t0)
	require.False(t, fresh)
	require.Same(t, a, again)
	s.ended(a, []byte("works"), 1, nil)
	<-a.done
	again, fresh = s.begin("1", t0.Add(answersKeep-1))
	require.False(t, fresh)
	require.Equal(t, "works", string(again.works))

	s.forget([]string{"1", "unknown"})
	require.Zero(t, s.bytes)
	again, fresh = s.begin("1", t0)
	require.False(t, fresh, "a copy of the claim that comes late takes nothing")
	works, _, _ := s.get(again)
	require.Empty(t, works, "its asker said that it has them")
}

func TestAnswersAreBounded(t *testing.T) {
	s := answers{by: map[string]*answer{}}
	for i := range answersMax + 10 {
		s.begin(fmt.Sprint(i), t0)
	}
	require.Len(t, s.by, answersMax)
	require.NotContains(t, s.by, "9")
	late, _ := s.begin("late", t0.Add(answersKeep))
	require.Len(t, s.by, 1, "the others are too old")

	s.ended(late, bytes.Repeat([]byte("x"), answersBytes), 1, nil)
	big, _ := s.begin("big", t0.Add(answersKeep))
	s.ended(big, []byte("x"), 1, nil)
	require.NotContains(t, s.by, "late")
	require.Equal(t, 1, s.bytes)
	s.forget([]string{"big", "big"})
	require.Zero(t, s.bytes)
	s.begin("later", t0.Add(3*answersKeep))
	require.Zero(t, s.bytes)
}

func TestTheCrowdHearsOnce(t *testing.T) {
	c := crowd{nodes: map[string]*listener{}}
	var woken []string
	ready := func(shard int, queue string, in time.Duration, now time.Time) {
		c.ready(shard, task.QueueName{Model: queue, Priority: 5}, now.Add(in), now, func(node string) { woken = append(woken, node) })
	}
	ready(1, "m", 0, t0)
	require.Empty(t, woken, "nobody listens")

	c.asked("b", []string{"m"}, t0)
	ready(1, "other", 0, t0)
	require.Empty(t, woken, "b does not serve it")
	ready(1, "m", 0, t0)
	ready(1, "m", 0, t0)
	ready(2, "m", time.Second, t0)
	ready(1, task.AnyModel, 0, t0)
	require.Equal(t, []string{"b"}, woken, "one tells, the rest joins")
	told := c.take("b", t0)
	require.ElementsMatch(t, []waiting{{1, "m", 6, 0}, {2, "m", 6, time.Second}, {1, task.AnyModel, 6, 0}}, told)
	require.Empty(t, c.take("b", t0), "nothing more: the telling ends")

	ready(1, "m", 0, t0)
	require.Len(t, woken, 1, "b knows")
	ready(2, "m", 0, t0)
	require.Len(t, woken, 2, "that was to be later")
	c.take("b", t0)
	c.take("b", t0)

	c.short("b", 1, task.QueueName{Model: "m", Priority: 5}, t0)
	ready(1, "m", 0, t0)
	require.Len(t, woken, 3, "b found it empty since")
	c.take("b", t0)
	c.take("b", t0)

	c.asked("b", []string{"m"}, t0)
	ready(2, "m", 0, t0)
	require.Len(t, woken, 4, "it may have lost what it was told")
	ready(1, "m", 0, t0.Add(listenFor+1))
	require.Len(t, woken, 4, "it asks no more")
}

func TestTheCrowdIsBounded(t *testing.T) {
	c := crowd{nodes: map[string]*listener{}}
	for i := range crowdMax + 5 {
		c.asked(fmt.Sprint(i), []string{"*"}, t0)
	}
	require.Len(t, c.nodes, crowdMax)
	c.asked("late", []string{"*"}, t0.Add(listenFor+1))
	require.Len(t, c.nodes, 1)
	for i := range pendingMax + 5 {
		c.ready(i, task.QueueName{Model: "m", Priority: 5}, t0, t0, func(string) {})
	}
	require.Len(t, c.take("late", t0), pendingMax)
	for i := range modelsMax + 5 {
		c.short("x", 1, task.QueueName{Model: fmt.Sprint(i)}, t0)
	}
	require.Len(t, c.nodes["x"].models, modelsMax)
	c.stop()
	c.asked("y", nil, t0)
	require.Empty(t, c.nodes)
}

func TestAPriorityTravelsAsOneMore(t *testing.T) {
	for _, p := range []int{task.AnyPriority, 0, task.PriorityDefault, task.PriorityMax} {
		n := task.QueueName{Model: "m", Priority: p}
		require.Equal(t, n, rankOf(n).of("m"))
	}
	require.Zero(t, rankOf(task.QueueName{Priority: task.AnyPriority}), "as older nodes, which have no such field, ask")
	for _, r := range []rank{-1, task.PriorityMax + 2} {
		require.Equal(t, task.AnyPriority, r.of("m").Priority)
	}
}

func TestRoll(t *testing.T) {
	row := func(id string, attempt uint32) task.UnderWay {
		return task.UnderWay{ID: id, Boot: "b", Attempt: attempt}
	}
	var r Roll
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	require.Empty(t, r.Suspects([]task.UnderWay{row("x", 1), row("y", 1), {ID: "old program"}}, at(0), 2*time.Second))
	require.Empty(t, r.Suspects([]task.UnderWay{row("x", 1), row("y", 1)}, at(1), 2*time.Second), "too young")
	require.Equal(t, []task.UnderWay{row("x", 1)}, r.Suspects([]task.UnderWay{row("x", 1), row("y", 2), {ID: "old program"}}, at(2), 2*time.Second), "y is at another attempt")
	require.Empty(t, r.Suspects(nil, at(3), 2*time.Second))
	require.Empty(t, r.Suspects([]task.UnderWay{row("x", 1)}, at(9), 2*time.Second), "it was gone in between")
	require.Len(t, r.seen, 1)
}

func TestWhoMayBeAskedForSecondRuns(t *testing.T) {
	require.Equal(t, map[string]string{"y": "2"}, able([]cluster.Peer{
		{Name: "x", Boot: "1", Engines: 1, Seconds: true}, // this one
		{Name: "y", Boot: "2", Engines: 1, Seconds: true},
		{Name: "old", Boot: "3", Engines: 1},
		{Name: "none", Boot: "4", Seconds: true},
	}, "x"))
}

// TestANodeWithoutRoom is not asked for more of that queue for a moment, and is for another one.
func TestANodeWithoutRoom(t *testing.T) {
	s := seconds{full: map[place]time.Time{}}
	require.Equal(t, "y", s.pick([]string{"y"}, "m", t0))
	require.Empty(t, s.pick([]string{"y"}, "m", t0.Add(secondPause-1)))
	require.Equal(t, "z", s.pick([]string{"y", "z"}, "m", t0))
	require.Equal(t, "y", s.pick([]string{"y"}, "n", t0), "what is stuck in one model is not in the way of another")
	s.again(place{"y", "m"})
	require.Equal(t, "y", s.pick([]string{"y"}, "m", t0), "it had room")
	for i := range fullMax {
		s.pick([]string{"y"}, fmt.Sprint(i), t0)
	}
	require.Len(t, s.full, fullMax)
	require.Empty(t, s.pick([]string{"y"}, "one more", t0))
	require.Equal(t, "y", s.pick([]string{"y"}, "one more", t0.Add(secondPause)))
	require.Len(t, s.full, 1)
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"id":"1","n":3}`))
	f.Add([]byte(`[{"s":1,"m":"x","in":-5}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{&claimAsk{}, &claimAnswer{}, &[]waiting{}, &waitingAsk{}, &heldAsk{}, &heldAnswer{}} {
			if decode("op", b, v) == nil {
				_, err := encode(v)
				require.NoError(t, err)
			}
		}
	})
}
