package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Final is a task after everything was healed and had time to end.
type Final struct {
	Found   bool
	State   task.State
	Version uint64
	Text    string
	Events  []Fact // its whole history
}

// Fact is one event of a task's history and the version that it made.
type Fact struct {
	Version uint64
	Event   task.Event
}

// CheckFinals compares how tasks ended with what clients were told on the way. finals has every id that a client ever
// named.
func CheckFinals(ops []Op, finals map[string]Final) (bad []Violation) {
	byID := map[string][]*Op{}
	for i := range ops {
		byID[ops[i].ID] = append(byID[ops[i].ID], &ops[i])
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		f, read := finals[id]
		if !read {
			bad = append(bad, Violation{id, "was not read at the end", ""})
			continue
		}
		for _, what := range judge(id, byID[id], f) {
			bad = append(bad, Violation{id, what, describe(byID[id]) + describeFacts(f.Events)})
		}
	}
	return bad
}

func describeFacts(facts []Fact) string {
	var b strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&b, "    version %d: %v\n", f.Version, f.Event)
	}
	return b.String()
}

// judge returns what is wrong with one task.
func judge(id string, ops []*Op, f Final) (bad []string) {
	wrong := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	var seen *Op // the newest word that it exists
	bodies, asked := map[int]bool{}, false
	for _, o := range ops {
		if o.Outcome == Done || o.Outcome == Existed || o.Verb == Cancel && o.Outcome == Conflict {
			seen = o
		}
		if o.Verb == Submit && o.Outcome != Conflict {
			bodies[o.Body] = true
		}
		asked = asked || o.Verb == Cancel && o.Outcome != Missing
	}
	if !f.Found {
		if seen != nil {
			wrong("lost: a client was told of it (%s %s), and it is gone", seen.Verb, seen.Outcome)
		}
		return bad
	}
	if len(bodies) == 0 {
		wrong("invented: nobody submitted it")
	}
	if !f.State.Final() {
		wrong("stuck: it is %v still", f.State)
	}
	if f.State == task.Cancelled && !asked {
		wrong("it is cancelled, and nobody asked for that")
	}
	if f.State == task.Completed {
		right := false
		for body := range bodies {
			right = right || f.Text == TextOf(id, body)
		}
		if !right {
			wrong("its answer is %q, which is right for none of its bodies", f.Text)
		}
	}
	return append(bad, replay(ops, f)...)
}

// replay walks the events through the lifecycle: one submission, one end, one result, no gap; and each version has the
// state that clients were shown for it.
func replay(ops []*Op, f Final) (bad []string) {
	wrong := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	states := map[uint64]task.State{}
	state, ends, results := task.None, 0, 0
	for i, e := range f.Events {
		if e.Version != uint64(i+1) {
			wrong("its history has version %d where %d is due", e.Version, i+1)
			return bad
		}
		if e.Event == task.Answered {
			results++
		}
		next, ok := task.Next(state, e.Event)
		if !ok {
			wrong("its history has %v at version %d, which cannot happen to a task that is %v", e.Event, e.Version, state)
			next = state
		}
		ends += ended(e.Event)
		state = next
		states[e.Version] = state
	}
	if f.State.Final() && ends != 1 {
		wrong("it ended %d times", ends)
	}
	if results > 1 {
		wrong("it has %d results", results)
	}
	if state != f.State || uint64(len(f.Events)) != f.Version {
		wrong("it is %v at version %d, and its history leads to %v at %d", f.State, f.Version, state, len(f.Events))
	}
	for _, o := range ops {
		if (o.Outcome == Done || o.Outcome == Existed) && states[o.Version] != o.State {
			wrong("%s was shown %v at version %d, which its history calls %v", o.Node, o.State, o.Version, states[o.Version])
		}
	}
	return bad
}

func ended(e task.Event) int {
	switch e {
	case task.Answered, task.Refused, task.CancelAsked, task.Expired:
		return 1
	}
	return 0
}

// CheckCounts compares a node's counters with the tasks that there are.
func CheckCounts(node string, counts map[string]int64, finals map[string]Final) (bad []Violation) {
	want := map[string]int64{}
	for _, f := range finals {
		if f.Found {
			want[f.State.String()]++
		}
	}
	for s := task.Pending; s <= task.Cancelled; s++ {
		if counts[s.String()] != want[s.String()] {
			bad = append(bad, Violation{"", fmt.Sprintf("%s counts %d tasks %v, and there are %d", node, counts[s.String()], s, want[s.String()]), ""})
		}
	}
	return bad
}

// CheckList compares a full list with the tasks that there are: each once, no other.
func CheckList(node string, listed []string, finals map[string]Final) (bad []Violation) {
	times := map[string]int{}
	for _, id := range listed {
		times[id]++
	}
	for id, n := range times {
		if n > 1 {
			bad = append(bad, Violation{id, fmt.Sprintf("%s lists it %d times", node, n), ""})
		}
		if !finals[id].Found {
			bad = append(bad, Violation{id, node + " lists it, and it cannot be read or was never submitted", ""})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(finals)) {
		if finals[id].Found && times[id] == 0 {
			bad = append(bad, Violation{id, "is missing in the list of " + node, ""})
		}
	}
	return bad
}
