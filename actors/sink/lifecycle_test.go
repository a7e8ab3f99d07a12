package sink

import (
	"os"
	"regexp"
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
			if ok {
				n++
				require.Equal(t, want, next.String(), "%v %v", p, e)
			}
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

var start = time.Unix(1_800_000_000, 0).UTC()

func at(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }

// TestApply walks the facts of a life, and those that cannot be.
func TestApply(t *testing.T) {
	def := &Definition{Name: "x"}
	s, err := State{}.after([]Fact{{Event: Created, At: at(0), Def: def, Life: "l1", Cursor: "c0"}})
	require.NoError(t, err)
	running := State{Phase: Running, Def: def, Life: "l1", CreatedAt: at(0), Cursor: "c0"}
	require.Equal(t, running, s)
	plan := &Plan{Seq: 1, UpTo: "c1", Rows: 3, Newest: at(1)}
	planned := running
	planned.Next = plan
	failure := &task.Failure{Kind: "unavailable", Message: "down"}
	failing := planned
	failing.Error, failing.Since, failing.Tries = failure, at(2), 1
	delivered := State{Phase: Running, Def: def, Life: "l1", CreatedAt: at(0), Cursor: "c1", Seq: 1, Count: 3, Newest: at(1), DeliveredAt: at(9)}
	paused := planned
	paused.Phase = Paused
	deliveredPaused := delivered
	deliveredPaused.Phase = Paused
	skipped := running
	skipped.Cursor = "c5"
	deleted := planned
	deleted.Phase = Deleted
	still := failing
	still.Tries = 2

	for name, c := range map[string]struct {
		from State
		fact Fact
		to   State
	}{
		"planned":          {running, Fact{Event: Planned, Plan: plan}, planned},
		"failed":           {planned, Fact{Event: FailedTry, At: at(2), Error: failure, Tries: 1}, failing},
		"failed again":     {failing, Fact{Event: FailedTry, At: at(5), Error: failure, Tries: 2}, still},
		"delivered":        {planned, Fact{Event: Delivered, At: at(9), Seq: 1}, delivered},
		"recovered":        {failing, Fact{Event: Delivered, At: at(9), Seq: 1}, delivered},
		"skipped":          {running, Fact{Event: SkippedOver, Cursor: "c5"}, skipped},
		"paused":           {failing, Fact{Event: PauseAsked}, paused},
		"late but good":    {paused, Fact{Event: Delivered, At: at(9), Seq: 1}, deliveredPaused},
		"resumed":          {paused, Fact{Event: ResumeAsked}, planned},
		"deleted":          {planned, Fact{Event: DeleteAsked}, deleted},
		"the name again":   {deleted, Fact{Event: Created, At: at(0), Def: def, Life: "l1", Cursor: "c0"}, running},
		"resumed with all": {deliveredPaused, Fact{Event: ResumeAsked}, delivered},
	} {
		got, err := c.from.Apply(c.fact)
		require.NoError(t, err, name)
		require.Equal(t, c.to, got, name)
	}
	for name, c := range map[string]struct {
		from State
		fact Fact
	}{
		"two plans":                {planned, Fact{Event: Planned, Plan: &Plan{Seq: 2, UpTo: "c2", Rows: 1}}},
		"a hole":                   {running, Fact{Event: Planned, Plan: &Plan{Seq: 2, UpTo: "c2", Rows: 1}}},
		"an empty plan":            {running, Fact{Event: Planned, Plan: &Plan{Seq: 1, UpTo: "c2"}}},
		"a plan that goes nowhere": {running, Fact{Event: Planned, Plan: &Plan{Seq: 1, UpTo: "c0", Rows: 1}}},
		"no plan":                  {running, Fact{Event: Planned}},
		"unplanned":                {running, Fact{Event: Delivered, Seq: 1}},
		"another batch":            {planned, Fact{Event: Delivered, Seq: 2}},
		"skipping a batch":         {planned, Fact{Event: SkippedOver, Cursor: "c9"}},
		"failed for no reason":     {planned, Fact{Event: FailedTry}},
		"without a definition":     {State{}, Fact{Event: Created, Life: "x"}},
		"without a life":           {State{}, Fact{Event: Created, Def: def}},
	} {
		got, err := c.from.Apply(c.fact)
		require.Equal(t, fault.Corrupt, fault.KindOf(err), name)
		require.Equal(t, c.from, got, name)
	}
	_, err = paused.Apply(Fact{Event: Planned, Plan: plan})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
}

// TestAReportThatComesTwice changes nothing, and one that does not follow is refused.
func TestAReportThatComesTwice(t *testing.T) {
	s := State{Phase: Running, Def: &Definition{}, Life: "l", Cursor: "c0"}
	one := []Fact{{Event: Planned, Plan: &Plan{Seq: 1, UpTo: "c1", Rows: 2}}}
	two := []Fact{{Event: Delivered, Seq: 1}, {Event: Planned, Plan: &Plan{Seq: 2, UpTo: "c2", Rows: 2}}}
	for _, fs := range [][]Fact{one, two} {
		news, err := s.news(fs)
		require.NoError(t, err)
		require.Equal(t, fs, news)
		s, err = s.after(news)
		require.NoError(t, err)
		for _, old := range [][]Fact{one, fs} {
			news, err = s.news(old)
			require.NoError(t, err)
			require.Empty(t, news)
		}
	}
	require.EqualValues(t, 2, s.Count)
	_, err := s.news([]Fact{{Event: Planned, Plan: &Plan{Seq: 2, UpTo: "elsewhere", Rows: 2}}})
	require.Error(t, err, "another driver planned otherwise")

	s.Phase = Paused
	news, err := s.news([]Fact{{Event: Delivered, Seq: 2}, {Event: Planned, Plan: &Plan{Seq: 3, UpTo: "c3", Rows: 1}}})
	require.NoError(t, err)
	require.Equal(t, []Fact{{Event: Delivered, Seq: 2}}, news, "what was written while it was being paused is written")
}
