package hedge

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
)

func TestLate(t *testing.T) {
	now := time.Unix(1000, 0)
	rule := Rule{Factor: 4, After: 5 * time.Second, Percent: 10}
	run := func(age, usual, left time.Duration) Run { return Run{"e", now.Add(-age), usual, left} }
	const s = time.Second
	for _, tc := range []struct {
		name string
		rule Rule
		runs []Run
		want []int
	}{
		{"nothing runs", rule, nil, nil},
		{"as old as that", rule, []Run{run(8*s, 2*s, 60*s)}, []int{0}},
		{"not yet", rule, []Run{run(8*s-1, 2*s, 60*s)}, nil},
		{"short ones wait for the least age", rule, []Run{run(5*s-1, s/10, 60*s), run(5*s, s/10, 60*s)}, []int{1}},
		{"nobody knows how long it takes", rule, []Run{run(1000*s, 0, 60*s)}, nil},
		{"no time is left for another", rule, []Run{run(50*s, 10*s, 10*s), run(50*s, 10*s, 11*s)}, []int{1}},
		{"the latest first", rule, []Run{run(9*s, 2*s, 60*s), run(30*s, 2*s, 60*s), run(41*s, 10*s, 60*s)}, []int{1, 0, 2}},
		{"off", Rule{}, []Run{run(9*s, 2*s, 60*s)}, nil},
	} {
		require.Equal(t, tc.want, tc.rule.Late(now, tc.runs), tc.name)
	}
	require.Len(t, rule.Late(now, slices.Repeat([]Run{run(8*s, 2*s, 60*s)}, 2*lateMax)), lateMax)
}

func TestUsual(t *testing.T) {
	var x times
	for i := range timesMin - 1 {
		x.add(time.Duration(i + 1))
	}
	require.Zero(t, x.usual, "too few to tell")
	x.add(timesMin)
	require.EqualValues(t, 15, x.usual, "three of four of twenty")

	x = times{}
	for i := range 10 * timesKept { // one of five stalls
		d := time.Second
		if i%5 == 0 {
			d = time.Hour
		}
		x.add(d)
	}
	require.Equal(t, time.Second, x.usual)
	require.Len(t, x.newest, timesKept)
	for range timesKept { // all are slow now: that is how it is
		x.add(time.Minute)
	}
	require.Equal(t, time.Minute, x.usual)
}

func TestUsualOfASizeThatIsNotKnown(t *testing.T) {
	x := table{}
	for range timesMin {
		x.add(Alike{"m", "chat", 5}, time.Second)
		x.add(Alike{"m", "chat", 9}, time.Minute)
	}
	x.add(Alike{"m", "chat", 7}, time.Hour) // too few
	for size, want := range map[int]time.Duration{0: time.Second, 4: time.Second, 5: time.Second, 6: time.Minute, 7: time.Minute, 9: time.Minute, 10: 2 * time.Minute,
		12: 8 * time.Minute, sizeMax: 1024 * time.Minute} {
		require.Equal(t, want, x.usual(Alike{"m", "chat", size}), "%d", size)
	}
	require.Zero(t, x.usual(Alike{"m", "completions", 5}))
	require.Zero(t, x.usual(Alike{"n", "chat", 5}))
	for i := range 2 * alikeMax {
		x.add(Alike{"o", "chat", i}, time.Second)
	}
	require.Len(t, x, alikeMax)
}

func lateOf(b *Board) []Late {
	late, _ := b.Late()
	return late
}

func TestBoard(t *testing.T) {
	none, err := NewBoard(Rule{}, time.Now)
	require.NoError(t, err)
	require.Nil(t, none)
	none.Began(&task.Work{}, "e") // nobody asks
	none.Ended(&task.Work{}, true)
	for _, bad := range []Rule{{Factor: 1, Percent: 10}, {Factor: 4}, {Factor: 4, Percent: 101}, {Factor: 4, Percent: 1, After: -1}, {Percent: 1}} {
		_, err := NewBoard(bad, time.Now)
		require.Error(t, err, "%+v", bad)
	}

	now := time.Unix(1000, 0)
	b, err := NewBoard(Rule{Factor: 4, Percent: 10}, func() time.Time { return now })
	require.NoError(t, err)
	held := task.NewHeld(func() time.Duration { return 0 })
	n := uint32(0)
	work := func(cost int) *task.Work {
		n++
		w := &task.Work{ID: "t", Attempt: n, Left: time.Hour, Cost: cost, Record: task.Record{Model: "m", Spec: &task.Spec{}}}
		w.Arrive(nil, held)
		return w
	}
	for range 100 {
		w := work(100)
		b.Began(w, "fast")
		now = now.Add(time.Second)
		b.Ended(w, true)
	}
	for range 100 {
		w := work(100)
		b.Began(w, "fast")
		b.Ended(w, false) // an error says nothing
	}
	slow, long := work(127), work(10_000)
	b.Began(slow, "slow")
	b.Began(long, "slow")
	now = now.Add(4*time.Second - 1)
	require.Empty(t, lateOf(b))
	now = now.Add(1)
	require.Equal(t, []Late{{slow, "slow"}}, lateOf(b), "the long one may take longer")
	b.Ended(long, false)
	second := slow.Second()
	require.Empty(t, lateOf(b), "it has a second run")
	b.Began(second, "fast")
	now = now.Add(time.Hour)
	require.Empty(t, lateOf(b), "which has none itself")
	b.Ended(second, true)
	b.Ended(slow, false)

	for range 2 * budgetMax {
		w := work(100)
		b.Began(w, "slow")
	}
	now = now.Add(time.Hour)
	all, budget := b.Late()
	require.Len(t, all, 2*budgetMax, "which of them find a place is not known")
	require.Equal(t, budgetMax, budget, "as many as were earned")
	var seconds []*task.Work
	for _, l := range all[:budget] {
		seconds = append(seconds, l.Work.Second())
		b.Began(seconds[len(seconds)-1], "fast")
	}
	require.Empty(t, lateOf(b), "that was all")

	refuse := func(s *task.Work) {
		b.Refused(s)
		s.GiveBack("no room")
	}
	refuse(seconds[0])
	again, budget := b.Late()
	require.Equal(t, 1, budget)
	require.Len(t, again, budgetMax, "those without a second run, but for the one that nobody had room for: others have their turn")
	one := all[0].Work
	at := func() bool { return slices.ContainsFunc(lateOf(b), func(l Late) bool { return l.Work == one }) }
	for _, wait := range []time.Duration{refusedMin, 2 * refusedMin, 4 * refusedMin, 8 * refusedMin, 16 * refusedMin, refusedMax, refusedMax} {
		now = now.Add(wait - 1)
		require.False(t, at(), "%v", wait)
		now = now.Add(1)
		require.True(t, at(), "%v", wait)
		s := one.Second()
		b.Began(s, "fast")
		refuse(s)
	}
}

// A tool is called once: a second call might do what the first one did again.
func TestToolsAreNotHedged(t *testing.T) {
	b, err := NewBoard(Rule{Factor: 2, Percent: 10}, time.Now)
	require.NoError(t, err)
	steps := []task.TaskStep{{HTTP: &task.HTTPTool{URL: "https://example.org/x"}}}
	b.Began(&task.Work{ID: "a", Record: task.Record{Spec: &task.Spec{ID: "a", Steps: steps}}}, "tools-http")
	require.Empty(t, b.runs)
	b.Began(&task.Work{ID: "b", Record: task.Record{Spec: &task.Spec{ID: "b", Prompt: "p"}}}, "e")
	require.Len(t, b.runs, 1)
}
