package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func planOf(t testing.TB, change func(*Plan)) *Plan {
	t.Helper()
	p := &Plan{Name: "nightly", Cron: "0 * * * *", Task: &task.Spec{Prompt: "p"}}
	if change != nil {
		change(p)
	}
	require.NoError(t, p.Validate())
	return p
}

func TestDecide(t *testing.T) {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	at := func(clock string) time.Time {
		if clock == "" {
			return time.Time{}
		}
		c, err := time.Parse("15:04:05", clock)
		require.NoError(t, err)
		return day.Add(time.Duration(c.Hour())*time.Hour + time.Duration(c.Minute())*time.Minute + time.Duration(c.Second())*time.Second)
	}
	for _, c := range []struct {
		name    string
		plan    func(*Plan)
		phase   string
		next    string
		waiting string
		now     string
		busy    bool
		want    string // fire | waiting | skipped | missed | next; "" nothing
	}{
		{name: "not yet", next: "03:00:00", now: "02:59:59"},
		{name: "due", next: "03:00:00", now: "03:00:00", want: "03||0|0|04"},
		{name: "there is no time any more", next: "", now: "03:00:00"},
		{name: "the last one", plan: func(p *Plan) { e := at("03:30:00"); p.End = &e }, next: "03:00:00", now: "03:00:00", want: "03||0|0|"},
		{name: "a minute late is not late", next: "03:00:00", now: "03:01:00", want: "03||0|0|04"},
		{name: "late: once", next: "03:00:00", now: "03:01:01", want: "03||0|0|04"},
		{name: "late: once for several", next: "03:00:00", now: "07:30:00", want: "07||0|4|08"},
		{name: "late: once, and one is due", next: "03:00:00", now: "07:00:30", want: "07||0|4|08"},
		{name: "late: skip", plan: func(p *Plan) { p.CatchUp = CatchUpSkip }, next: "03:00:00", now: "07:30:00", want: "||0|5|08"},
		{name: "late: skip, and one is due", plan: func(p *Plan) { p.CatchUp = CatchUpSkip }, next: "03:00:00", now: "07:00:30", want: "07||0|4|08"},
		{name: "late: all", plan: func(p *Plan) { p.CatchUp, p.Overlap = CatchUpAll, OverlapAllow }, next: "03:00:00", now: "07:30:00", want: "03 04 05 06 07||0|0|08"},
		{name: "late: all up to two", plan: func(p *Plan) { p.CatchUp, p.Overlap, p.CatchUpMax = CatchUpAll, OverlapAllow, 2 }, next: "03:00:00", now: "07:30:00", want: "06 07||0|3|08"},
		{name: "late: all up to two, and one is due", plan: func(p *Plan) { p.CatchUp, p.Overlap, p.CatchUpMax = CatchUpAll, OverlapAllow, 2 }, next: "03:00:00", now: "07:00:30", want: "05 06 07||0|2|08"},
		{name: "overlap: skip", next: "03:00:00", now: "03:00:00", busy: true, want: "||1|0|04"},
		{name: "overlap: allow", plan: func(p *Plan) { p.Overlap = OverlapAllow }, next: "03:00:00", now: "03:00:00", busy: true, want: "03||0|0|04"},
		{name: "overlap: queue one", plan: func(p *Plan) { p.Overlap = OverlapQueue }, next: "03:00:00", now: "03:00:00", busy: true, want: "|03|0|0|04"},
		{name: "overlap: one waits already", plan: func(p *Plan) { p.Overlap = OverlapQueue }, next: "04:00:00", waiting: "03:00:00", now: "04:00:00", busy: true, want: "|03|1|0|05"},
		{name: "overlap: it goes on waiting", plan: func(p *Plan) { p.Overlap = OverlapQueue }, next: "04:00:00", waiting: "03:00:00", now: "03:30:00", busy: true},
		{name: "overlap: its turn", plan: func(p *Plan) { p.Overlap = OverlapQueue }, next: "04:00:00", waiting: "03:00:00", now: "03:30:00", want: "03||0|0|04"},
		{name: "overlap: its turn, and the next one waits", plan: func(p *Plan) { p.Overlap = OverlapQueue }, next: "04:00:00", waiting: "03:00:00", now: "04:00:00", want: "03|04|0|0|05"},
		{name: "overlap: two are due at once", plan: func(p *Plan) { p.Cron = "* * * * *" }, next: "03:00:00", now: "03:01:00", want: "0300||1|0|0302"},
		{name: "overlap: two are due at once, queued", plan: func(p *Plan) { p.Cron, p.Overlap = "* * * * *", OverlapQueue }, next: "03:00:00", now: "03:01:00", want: "0300|0301|0|0|0302"},
		{name: "paused", phase: Paused, next: "03:00:00", now: "03:00:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := State{Plan: planOf(t, c.plan), Life: "l", Phase: Active, Next: at(c.next), Waiting: at(c.waiting)}
			if c.phase != "" {
				s.Phase = c.phase
			}
			d := s.decide(at(c.now), c.busy)
			if c.want == "" {
				require.Nil(t, d)
				return
			}
			require.NotNil(t, d)
			form := "15"
			if strings.Contains(s.Plan.Cron, "* * *") && s.Plan.Cron[0] == '*' {
				form = "1504"
			}
			show := func(ts ...time.Time) string {
				var out []string
				for _, x := range ts {
					if !x.IsZero() {
						out = append(out, x.Format(form))
					}
				}
				return strings.Join(out, " ")
			}
			got := strings.Join([]string{show(d.Fire...), show(d.Waiting), itoa(d.Skipped), itoa(d.Missed), show(d.Next)}, "|")
			require.Equal(t, c.want, got)
			after, err := s.Apply(Fact{Event: decided, Decision: d})
			require.NoError(t, err)
			require.Len(t, after.Pending, len(d.Fire))
			after.Pending = nil
			require.Nil(t, after.decide(at(c.now), true), "what was decided is decided")
		})
	}
}

func itoa(n int) string { return string(rune('0' + n)) }

// TestEveryTimeIsAccountedFor: whatever the policy and however late it is looked at, each planned time fires, waits, is skipped or missed: once.
func TestEveryTimeIsAccountedFor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := planOf(t, func(p *Plan) {
			p.Cron = rapid.SampledFrom([]string{"* * * * *", "*/5 * * * *", "30 2 * * *", "@hourly"}).Draw(rt, "cron")
			p.Zone = rapid.SampledFrom([]string{"UTC", "Europe/Berlin"}).Draw(rt, "zone")
			p.Overlap = rapid.SampledFrom([]string{OverlapSkip, OverlapAllow, OverlapQueue}).Draw(rt, "overlap")
			p.CatchUp = rapid.SampledFrom([]string{CatchUpOnce, CatchUpSkip, CatchUpAll}).Draw(rt, "catch up")
			if p.CatchUp == CatchUpAll {
				p.Overlap = OverlapAllow
			}
			p.Jitter = task.Duration(rapid.SampledFrom([]time.Duration{0, time.Second, 40 * time.Minute}).Draw(rt, "jitter"))
		})
		now := time.Date(2026, 3, 28, 22, 0, 0, 0, time.UTC)
		s, err := State{}.Apply(Fact{Event: created, At: now, Plan: p, Life: "l", Next: p.next(now)})
		require.NoError(rt, err)
		fired := map[time.Time]int{}
		first := s.Next
		for range rapid.IntRange(1, 12).Draw(rt, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(rt, "seconds")) * time.Second)
			d := s.decide(now, rapid.Bool().Draw(rt, "busy"))
			if d == nil {
				continue
			}
			if s, err = s.Apply(Fact{Event: decided, At: now, Decision: d}); err != nil {
				rt.Fatal(err)
			}
			for _, at := range d.Fire {
				require.False(rt, s.due(at).After(now), "not before its time")
				fired[at]++
			}
		}
		planned := uint64(0)
		for at := first; !at.IsZero() && at.Before(s.Next); at = p.next(at) {
			planned++
		}
		waiting := uint64(0)
		if !s.Waiting.IsZero() {
			waiting = 1
		}
		require.Equal(rt, planned, s.Fired+s.Skipped+s.Missed+waiting)
		for at, n := range fired {
			require.Equal(rt, 1, n, "%v", at)
		}
		require.LessOrEqual(rt, len(s.Recent), recentMax)
	})
}

func TestPlans(t *testing.T) {
	soon, later := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	for _, c := range []struct {
		key    string
		change func(*Plan)
	}{
		{"name", func(p *Plan) { p.Name = "A" }},
		{"cron", func(p *Plan) { p.Cron = "0 0 31 2 *" }},
		{"cron", func(p *Plan) { p.Cron = "" }},
		{"zone", func(p *Plan) { p.Zone = "Moon" }},
		{"overlap", func(p *Plan) { p.Overlap = "x" }},
		{"catch_up", func(p *Plan) { p.CatchUp = "x" }},
		{"catch_up", func(p *Plan) { p.CatchUp = CatchUpAll }},
		{"catch_up_max", func(p *Plan) { p.CatchUpMax = 3 }},
		{"catch_up_max", func(p *Plan) { p.CatchUp, p.Overlap, p.CatchUpMax = CatchUpAll, OverlapAllow, CatchUpMax+1 }},
		{"jitter", func(p *Plan) { p.Jitter = task.Duration(2 * time.Hour) }},
		{"end", func(p *Plan) { p.Start, p.End = &later, &soon }},
		{"task", func(p *Plan) { p.Task = nil }},
		{"task.task_id", func(p *Plan) { p.Task.ID = "x" }},
		{"task.deadline", func(p *Plan) { p.Task.NotBefore = &soon }},
		{"prompt", func(p *Plan) { p.Task.Prompt = "" }},
	} {
		p := Plan{Name: "n", Cron: "@daily", Task: &task.Spec{Prompt: "p"}}
		c.change(&p)
		err := p.Validate()
		require.Equal(t, fault.Invalid, fault.KindOf(err), c.key)
		require.Contains(t, err.Error(), c.key)
	}
	p := planOf(t, func(p *Plan) { p.Start, p.End = &soon, &later; p.Cron = "* * * * *" })
	times := p.Upcoming(time.Now(), 1000)
	require.Len(t, times, 60)
	require.False(t, times[0].Before(soon.Truncate(time.Minute)))
	require.True(t, p.same(planOf(t, func(p *Plan) { p.Start, p.End = &soon, &later; p.Cron = "* * * * *" })))
	require.False(t, p.same(planOf(t, nil)))
	exact := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	require.Equal(t, exact, planOf(t, func(p *Plan) { p.Start = &exact }).next(time.Now()), "a start that is a planned time is one")
}

// TestJitterIsTheSameForTheSameTime, within its bound, and spreads.
func TestJitterIsTheSameForTheSameTime(t *testing.T) {
	p := planOf(t, func(p *Plan) { p.Jitter = task.Duration(time.Minute) })
	seen := map[time.Duration]bool{}
	at := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	early := 0
	for range 400 {
		at = p.next(at)
		d := p.delay("l", at)
		require.Equal(t, d, p.delay("l", at))
		require.True(t, d >= 0 && d < time.Minute)
		if seen[d] = true; d < 30*time.Second {
			early++
		}
	}
	require.Greater(t, len(seen), 390)
	require.InDelta(t, 200, early, 60)
}
