package bulk

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestLifecycle walks every pair of phase and event, and compares the table with what doc.go draws.
func TestLifecycle(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	drawn := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(\w+) +(\w+) +-> (\w+)$`).FindAllStringSubmatch(string(doc), -1) {
		drawn[m[1]+" "+m[2]] = m[3]
	}
	n := 0
	for p := range numPhases {
		for e := range numEvents {
			next, ok := Next(p, e)
			want, there := drawn[p.String()+" "+e.String()]
			require.Equal(t, there, ok, "%v %v", p, e)
			if !ok {
				continue
			}
			n++
			require.Equal(t, want, next.String(), "%v %v", p, e)
			require.True(t, !p.Final() || next == p, "a final phase is for ever: %v %v", p, e)
			require.True(t, p == None || next != None && next >= p || p == next, "no phase comes back: %v %v", p, e)
		}
	}
	require.Len(t, drawn, n)
	_, ok := Next(numPhases, Created)
	require.False(t, ok)
}

func TestNamesAreForEver(t *testing.T) {
	for p := range numPhases {
		b, err := p.MarshalText()
		require.NoError(t, err)
		var back Phase
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, p, back)
		require.False(t, strings.Contains(p.Status(), "expiring"), "no client knows that status")
	}
	for e := Created; e < numEvents; e++ {
		b, err := e.MarshalText()
		require.NoError(t, err)
		var back Event
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, e, back)
	}
	require.Error(t, new(Event).UnmarshalText(nil))
	require.Error(t, new(Phase).UnmarshalText([]byte("x")))
}

var start = time.Unix(1_800_000_000, 0)

// TestApply walks every phase and event with a fact that is otherwise good, and looks at the result.
func TestApply(t *testing.T) {
	head := &Header{Within: time.Hour}
	fact := func(e Event) Fact {
		f := Fact{Event: e, At: start.Add(time.Minute)}
		switch e {
		case Created:
			f.Header = head
		case Accepted:
			f.Total = 10
		case Progressed:
			f.Progress = &Progress{Line: 6, Offset: 60, Reach: 10, Tally: Tally{Completed: 3, Failed: 2}}
		case Rejected, Finished:
			f.URLs = []string{"https://a/", "https://b/"}
		}
		return f
	}
	states := map[Phase]State{}
	base := State{Header: head, CreatedAt: start, ExpiresAt: start.Add(time.Hour)}
	for p := None; p < numPhases; p++ {
		s := base
		s.Phase = p
		switch p {
		case None:
			s = State{}
		case InProgress, Expiring, Cancelling:
			s.Total = 10
		case Finalizing:
			s.Total, s.Progress = 10, Progress{Line: 10, Reach: 10, Tally: Tally{Completed: 9, Failed: 1}}
		case Completed, Failed, Expired, Cancelled:
			s.Hooks = []Hook{{URL: "https://a/", Next: start}}
		}
		states[p] = s
	}
	for p, s := range states {
		for e := Created; e < numEvents; e++ {
			f := fact(e)
			if e == Finished && p != Finalizing {
				f.Rest.Lines = s.Total
			}
			if e == Drained {
				s.Progress = Progress{Line: s.Total, Reach: s.Total, Tally: Tally{Completed: s.Total}}
			} else {
				s = states[p]
			}
			want, ok := Next(p, e)
			got, err := s.Apply(f)
			require.Equal(t, ok, err == nil, "%v %v: %v", p, e, err)
			if err != nil {
				require.Equal(t, fault.Conflict, fault.KindOf(err))
				require.Equal(t, s, got)
				continue
			}
			require.Equal(t, want, got.Phase)
			require.Equal(t, got.Phase.Final(), !got.EndedAt.IsZero() || p.Final(), "%v %v", p, e)
			if got.Phase.Final() {
				total, completed, failed := got.Counts()
				require.Equal(t, total, completed+failed, "%v %v", p, e)
			} else {
				require.Equal(t, got.CreatedAt, got.wake(), "what is not final is woken")
			}
		}
	}
}

func TestApplyRefusesWhatCannotBe(t *testing.T) {
	s := State{Phase: InProgress, Total: 10, Progress: Progress{Line: 6, Offset: 60, Reach: 8, Tally: Tally{Completed: 3, Failed: 2}}}
	p := func(change func(*Progress)) *Progress {
		n := s.Progress
		change(&n)
		return &n
	}
	for name, f := range map[string]Fact{
		"no progress":         {Event: Progressed},
		"the line goes back":  {Event: Progressed, Progress: p(func(n *Progress) { n.Line = 5 })},
		"the offset, too":     {Event: Progressed, Progress: p(func(n *Progress) { n.Offset = 59 })},
		"the reach below":     {Event: Progressed, Progress: p(func(n *Progress) { n.Reach = 5 })},
		"fewer completed":     {Event: Progressed, Progress: p(func(n *Progress) { n.Completed, n.Failed = 2, 4 })},
		"beyond the reach":    {Event: Progressed, Progress: p(func(n *Progress) { n.Line = 9 })},
		"beyond the end":      {Event: Progressed, Progress: p(func(n *Progress) { n.Reach = 11 })},
		"more than exist":     {Event: Progressed, Progress: p(func(n *Progress) { n.Completed = 7 })},
		"more than not lost":  {Event: Progressed, Progress: p(func(n *Progress) { n.Missing = 4 })},
		"not drained":         {Event: Drained},
		"created headless":    {Event: Created},
		"finished too early":  {Event: Finished, Rest: Rest{Lines: 5}},
		"a webhook of nobody": {Event: HookSent, Hook: 0},
	} {
		before := s
		switch f.Event {
		case Created:
			before = State{}
		case Finished:
			before.Phase = Cancelling
		case HookSent:
			before.Phase = Completed
		}
		got, err := before.Apply(f)
		require.Equal(t, fault.Corrupt, fault.KindOf(err), name)
		require.Equal(t, before, got, name)
	}
	got, err := s.Apply(Fact{Event: Progressed, Progress: p(func(n *Progress) { n.Line, n.Reach, n.Completed = 8, 10, 6 })})
	require.NoError(t, err)
	require.EqualValues(t, 8, got.Ended())
}

func TestReach(t *testing.T) {
	for _, c := range []struct {
		line, ended, total uint64
		window             int
		want               uint64
	}{
		{0, 0, 10, 100, 10}, {0, 0, 1000, 100, 100}, {50, 30, 1000, 100, 130}, {0, 0, 1 << 30, 1 << 20, ahead},
		{200, 30, 1000, 100, 200}, // the window was larger once
		{10, 10, 10, 100, 10},
		{5, 9, 10, 2, 10}, // a driver died before it said what it had created
	} {
		require.Equal(t, c.want, reach(c.line, c.ended, c.total, c.window), "%+v", c)
	}
}

func TestWakeAndBusy(t *testing.T) {
	s := State{Phase: Completed, CreatedAt: start, Hooks: []Hook{
		{Done: true, Next: start}, {Next: start.Add(9 * time.Second)}, {Next: start.Add(5 * time.Second)}}}
	require.Equal(t, start.Add(5*time.Second), s.wake())
	require.False(t, s.busy())
	s.Hooks = s.Hooks[:1]
	require.Zero(t, s.wake())
	require.Zero(t, State{}.wake())
	for _, c := range []struct {
		s    State
		busy bool
	}{
		{State{}, false}, {State{Phase: Validating}, true}, {State{Phase: Validating, Paused: true}, true},
		{State{Phase: InProgress, Total: 9}, true},
		{State{Phase: InProgress, Total: 9, Paused: true}, false},
		{State{Phase: InProgress, Total: 9, Paused: true, Progress: Progress{Line: 3, Reach: 5, Tally: Tally{Completed: 2}}}, true},
		{State{Phase: InProgress, Total: 9, Paused: true, Progress: Progress{Line: 3, Reach: 5, Tally: Tally{Completed: 3}}}, false},
		{State{Phase: InProgress, Total: 3, Paused: true, Progress: Progress{Line: 3, Reach: 3, Tally: Tally{Completed: 3}}}, true},
		{State{Phase: Cancelling, Total: 9, Paused: true}, true}, {State{Phase: Cancelled}, false},
	} {
		require.Equal(t, c.busy, c.s.busy(), "%+v", c.s)
	}
}

func TestHeaderEqual(t *testing.T) {
	one, two := task.Priority(1), task.Priority(2)
	h := func(change func(*Header)) *Header {
		x := Header{InputFile: "f", Endpoint: "e", Window: "24h", Within: time.Hour, Metadata: map[string]string{"a": "b"}, Priority: &one}
		change(&x)
		return &x
	}
	alike := one
	require.True(t, h(func(*Header) {}).equal(h(func(x *Header) { x.Priority = &alike })))
	for i, change := range []func(*Header){
		func(x *Header) { x.InputFile = "g" }, func(x *Header) { x.Endpoint = "" }, func(x *Header) { x.Window = "" }, func(x *Header) { x.Within = 1 },
		func(x *Header) { x.Metadata = nil }, func(x *Header) { x.OutputExpires = 1 }, func(x *Header) { x.MixedModels = true },
		func(x *Header) { x.CallbackURL = "u" }, func(x *Header) { x.Priority = &two }, func(x *Header) { x.Priority = nil }, func(x *Header) { x.RetryOf = "r" },
	} {
		require.False(t, h(func(*Header) {}).equal(h(change)), i)
		require.False(t, h(change).equal(h(func(*Header) {})), i)
	}
}

func TestIsLine(t *testing.T) {
	id := NewID()
	require.True(t, IsLine(LineID(id, 0)))
	require.True(t, IsLine(LineID(IDOf("key"), 1<<40)))
	for _, s := range []string{"", id, id + "-", "batch_1-2", "batch_-1", id + "-x", id + "0-1", "x" + id + "-1"} {
		require.False(t, IsLine(s), s)
	}
}
