package task

import (
	"encoding/binary"
	"fmt"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestDiagramIsTheTable(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)
	var drawn []string
	for line := range strings.Lines(f.Doc.Text()) {
		if strings.Contains(line, "->") {
			drawn = append(drawn, strings.Join(strings.Fields(line), " "))
		}
	}
	var table []string
	for s := None; s < numStates; s++ {
		for e := Submitted; e < numEvents; e++ {
			if next, ok := Next(s, e); ok {
				table = append(table, fmt.Sprintf("%v %v -> %v", s, e, next))
			}
		}
	}
	require.Equal(t, table, drawn)
}

// at is a fact that carries what its event needs.
func at(e Event, now time.Time) Fact {
	f := Fact{Event: e, At: now}
	switch e {
	case Submitted:
		f.Spec, f.Model = &Spec{Prompt: "p", CallbackURL: "http://localhost/cb"}, "m"
	case Claimed:
		f.Attempt, f.Epoch, f.Until = 1, 7, now.Add(time.Minute)
	case StepDone, Answered:
		f.Attempt, f.Answer = 1, &Answer{Text: "a"}
	case AttemptFailed, LeaseLost, CallbackLost:
		f.Attempt, f.Error, f.Until = 1, &Failure{Kind: "timeout"}, now.Add(time.Second)
	case Refused, Expired, CallbackGaveUp:
		f.Attempt, f.Error = 1, &Failure{Kind: "invalid"}
	case CallbackSent:
		f.Attempt = 1
	case Retried:
		f.As, f.Skip = "x.retry-1", true
	}
	return f
}

// into walks a fresh record into a state by allowed events.
func into(t *testing.T, s State, now time.Time) Record {
	var r Record
	var err error
	for _, e := range map[State][]Event{
		None: nil, Pending: {Submitted}, Running: {Submitted, Claimed}, Completed: {Submitted, Claimed, Answered},
		Failed: {Submitted, Claimed, Refused}, Cancelled: {Submitted, CancelAsked},
	}[s] {
		r, err = r.Apply(at(e, now))
		require.NoError(t, err)
	}
	require.Equal(t, s, r.State)
	return r
}

// TestEveryCell applies every event in every state: a cell of the table is taken,
// a blank one refused without a trace, and what must hold for every task holds.
func TestEveryCell(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := now.Add(time.Minute)
	for s := None; s < numStates; s++ {
		for e := Submitted; e < numEvents; e++ {
			before := into(t, s, now)
			after, err := before.Apply(at(e, later))
			next, ok := Next(s, e)
			if !ok {
				require.Equal(t, fault.Conflict, fault.KindOf(err), "%v in %v", e, s)
				require.Equal(t, before, after)
				continue
			}
			require.NoError(t, err, "%v in %v", e, s)
			require.Equal(t, next, after.State)
			require.Equal(t, before.Version+1, after.Version, "I5: versions grow by one")
			require.Equal(t, after.State == Running, !after.Lease.IsZero(), "a lease belongs to running")
			require.Equal(t, after.State.Final(), !after.EndedAt.IsZero())
			if s.Final() {
				require.Equal(t, s, after.State, "I3: a final state is for ever")
				require.Equal(t, before.Answers, after.Answers)
				require.Equal(t, before.EndedAt, after.EndedAt)
			}
			if after.State.Final() && !s.Final() {
				require.Equal(t, CallbackWaiting, after.Callback, "I11: a callback waits for the final state")
			}
			if !after.State.Final() {
				require.Equal(t, CallbackNone, after.Callback)
			}
			if s == Running && e != CallbackSent {
				require.Equal(t, e.String(), after.Attempts[len(after.Attempts)-1].Outcome)
			}
			// The index and the counters follow: replayed rows of before are what after deletes.
			checkIndex(t, before, after)
		}
	}
}

// checkIndex applies the rows of the whole way to a model index and compares it
// with what the record should have.
func checkIndex(t *testing.T, before, after Record) {
	t.Helper()
	have := map[string]bool{}
	for _, step := range [][2]Record{{{}, before}, {before, after}} {
		for _, r := range index("id", step[0], step[1]) {
			k := r.Name + "/" + string(r.Key)
			if r.Delete {
				require.True(t, have[k] || step[0].State == None, "deletes a row that is not there: %q", k)
				delete(have, k)
			} else {
				have[k] = true
			}
		}
	}
	names := map[string]int{}
	for k := range have {
		name, _, _ := strings.Cut(k, "/")
		names[name]++
	}
	want := map[string]int{}
	if after.State != None {
		want[IndexAll] = 1
	}
	switch {
	case after.State == Pending:
		want[IndexReady] = 1
	case after.State == Running:
		want[IndexRunning] = 1
	case after.State.Final():
		want[IndexEnded] = 1
		if after.State != Completed {
			want[IndexTrouble] = 1
		}
	}
	if before.State == None { // the walk above jumped into before without its own steps
		require.Equal(t, want, names)
	}
	sum := map[string]int64{}
	for _, step := range [][2]Record{{{}, before}, {before, after}} {
		for _, c := range count("t", step[0], step[1]) {
			sum[c.Name] += c.Delta
		}
	}
	var total int64
	for name, n := range sum {
		if strings.HasPrefix(name, countTasks) {
			total += n
		}
	}
	require.EqualValues(t, 1, total, "I9: a task is counted in exactly one state")
}

func TestStepsGrowTheConversation(t *testing.T) {
	now := time.Now()
	var r Record
	for i, f := range []Fact{
		{Event: Submitted, At: now, Spec: &Spec{System: "s", Prompt: "p1", Steps: Texts("p2")}},
		{Event: Claimed, At: now, Attempt: 1}, {Event: StepDone, At: now, Attempt: 1, Answer: &Answer{Text: "a1"}},
		{Event: Claimed, At: now, Attempt: 2}, {Event: Answered, At: now, Attempt: 2, Answer: &Answer{Text: "a2"}},
	} {
		var err error
		r, err = r.Apply(f)
		require.NoError(t, err)
		if i == 2 {
			require.Equal(t, []Message{{"system", "s"}, {"user", "p1"}, {"assistant", "a1"}, {"user", "p2"}}, r.Conversation())
			require.True(t, r.Ends(&Answer{}))
			require.Equal(t, "step 2 of 2", r.Where())
			require.Zero(t, r.Tries, "each step has its own tries")
		}
	}
	require.Equal(t, Completed, r.State)
	require.Equal(t, "a2", r.Text())
}

// TestRecordsShareNothing: an older record stays as it was when a newer one grows.
func TestRecordsShareNothing(t *testing.T) {
	now := time.Now()
	r := into(t, Running, now)
	a, err := r.Apply(Fact{Event: AttemptFailed, At: now, Attempt: 1, Error: &Failure{Kind: "a"}})
	require.NoError(t, err)
	b, err := r.Apply(Fact{Event: AttemptFailed, At: now, Attempt: 1, Error: &Failure{Kind: "b"}})
	require.NoError(t, err)
	require.Empty(t, r.Attempts[0].Outcome)
	require.Equal(t, "a", a.Attempts[0].Error.Kind)
	require.Equal(t, "b", b.Attempts[0].Error.Kind)
}

func TestAttemptsKeptAreBounded(t *testing.T) {
	now := time.Now()
	r := into(t, Pending, now)
	var err error
	for i := range 3 * attemptsKept {
		r, err = r.Apply(Fact{Event: Claimed, At: now, Attempt: uint32(i + 1)})
		require.NoError(t, err)
		r, err = r.Apply(Fact{Event: LeaseLost, At: now, Attempt: uint32(i + 1), Error: &Failure{}})
		require.NoError(t, err)
	}
	require.Len(t, r.Attempts, attemptsKept)
	require.EqualValues(t, 3*attemptsKept, r.Attempts[attemptsKept-1].Number)
}

func FuzzFacts(f *testing.F) {
	good, _ := EncodeFacts([]Fact{at(Submitted, time.Unix(1, 0)), at(Claimed, time.Unix(2, 0))})
	f.Add(good)
	f.Add([]byte{factsVersion})
	f.Add([]byte("\x02[]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs, err := DecodeFacts(b)
		if err != nil {
			require.Equal(t, fault.Corrupt, fault.KindOf(err))
			return
		}
		var r Record
		for _, x := range fs { // any journal folds or is refused, it never panics
			if r, err = r.Apply(x); err != nil {
				return
			}
		}
	})
}

// TestWhatIsDueAtOnce: what asked for no wait is, whatever its row's time; the key of its row is as it was in older programs.
func TestWhatIsDueAtOnce(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	second := now.Add(time.Second)
	submitted := func(notBefore *time.Time) []Fact {
		return []Fact{{Event: Submitted, At: now, Spec: &Spec{Prompt: "p", NotBefore: notBefore}, Model: "m"}}
	}
	then := func(e Event) []Fact { return append(submitted(nil), at(Claimed, now), at(e, now)) }
	past := now.Add(-time.Second)
	for _, c := range []struct {
		name  string
		facts []Fact
		due   bool
		place time.Time
	}{
		{"submitted", submitted(nil), true, now},
		{"submitted for later", submitted(&second), false, second},
		{"submitted for what its node took for past", submitted(&past), false, now},
		{"a step is done", then(StepDone), true, now},
		{"its owner moved", then(OwnerMoved), true, now},
		{"it came back", then(Returned), true, now},
		{"it failed", then(AttemptFailed), false, second},
		{"its lease ended", then(LeaseLost), false, second},
		{"a step is done after a failure", append(append(then(AttemptFailed), at(Claimed, now)), at(StepDone, now)), true, now},
		{"it failed after a step", append(append(then(StepDone), at(Claimed, now)), at(AttemptFailed, now)), false, second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, r Record
			for _, f := range c.facts {
				var err error
				before = r
				r, err = r.Apply(f)
				require.NoError(t, err)
			}
			require.Equal(t, c.due, r.AtOnce)
			rows := index("id", before, r)
			i := slices.IndexFunc(rows, func(x persistence.Index) bool { return x.Name == IndexReady })
			k, ok := parseReady(rows[i].Key, rows[i].Value)
			require.True(t, ok)
			require.Equal(t, c.due, k.AtOnce)
			require.Equal(t, append(binary.BigEndian.AppendUint64([]byte("m\x00\x05"), uint64(c.place.UnixMicro())), "id"...), rows[i].Key)
		})
	}
}
