package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/open-autoglm/autoglm/actors/task"
)

// known is what a sequence of ops tells about one task. A task moves by itself too, so between two ops any step of
// its life may happen: known holds bounds, not the state.
type known struct {
	body    int        // 0: it is not there
	version uint64     // the newest that was seen
	state   task.State // at that version; None: not seen
	text    string     // of its answer; "": not seen
	asked   bool       // somebody may have cancelled it
	ended   bool       // otherwise than cancelled: a cancel was refused
}

// step tells whether an op may follow what is known, and what is known after it.
func step(s known, o *Op) (bool, known) {
	switch o.Verb {
	case Submit:
		return submitStep(s, o)
	case Get:
		switch o.Outcome {
		case Unknown:
			return true, s
		case Missing:
			return s.body == 0, s
		case Done:
			return see(s, o)
		}
	case Cancel:
		switch o.Outcome {
		case Unknown:
			s.asked = s.asked || s.body != 0
			return true, s
		case Missing:
			return s.body == 0, s
		case Done:
			s.asked = true
			ok, s := see(s, o)
			return ok && o.State == task.Cancelled, s
		case Conflict:
			if s.body == 0 || s.state == task.Cancelled {
				return false, s
			}
			s.ended = true
			return true, s
		}
	}
	return false, s
}

func submitStep(s known, o *Op) (bool, known) {
	switch o.Outcome {
	case Unknown:
		if s.body == 0 {
			return true, known{body: o.Body, version: 1, state: task.Pending}
		}
		return true, s
	case Done:
		if s.body != 0 {
			return false, s
		}
		return see(known{body: o.Body, version: 1, state: task.Pending}, o)
	case Existed:
		if s.body == 0 { // the node's own second try met its first: not told apart from somebody else's
			s = known{body: o.Body, version: 1, state: task.Pending}
		}
		if s.body != o.Body {
			return false, s
		}
		return see(s, o)
	case Conflict:
		return s.body != 0 && s.body != o.Body, s
	}
	return false, s
}

// see takes in a state and version that a client was shown.
func see(s known, o *Op) (bool, known) {
	switch {
	case s.body == 0, o.Version < s.version, o.State == task.None:
		return false, s
	case o.Version == s.version && s.state != task.None && o.State != s.state: // a version is one state
		return false, s
	case s.state.Final() && o.State != s.state: // the end is the end
		return false, s
	case s.ended && (!o.State.Final() || o.State == task.Cancelled):
		return false, s
	case o.State == task.Cancelled && !s.asked: // by nobody
		return false, s
	case o.Text != "" && o.Text != TextOf(o.ID, s.body): // another body's answer
		return false, s
	}
	s.version, s.state = o.Version, o.State
	if o.Text != "" {
		s.text = o.Text
	}
	return true, s
}

// taskModel is one task for porcupine: its history is partitioned by id before.
func taskModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return known{} },
		Step: func(s, in, _ any) (bool, any) { return step(s.(known), in.(*Op)) },
		DescribeOperation: func(in, _ any) string {
			o := in.(*Op)
			return strings.TrimSpace(o.String())
		},
		DescribeState: func(s any) string { return fmt.Sprintf("%+v", s) },
	}
}

// Violation is a broken promise.
type Violation struct {
	ID     string // the task; "" for all together
	What   string
	Detail string // for a person: the task's ops, its events
}

// String writes a violation with its detail below it.
func (v Violation) String() string {
	s := v.What
	if v.ID != "" {
		s = v.ID + ": " + s
	}
	if v.Detail != "" {
		s += "\n" + v.Detail
	}
	return s
}

// CheckHistory judges the ops of all tasks: each task must have had one life that explains every answer in an order
// that agrees with the clocks. A task that takes longer than patience to judge is a violation too: nothing is known of it.
func CheckHistory(ops []Op, patience time.Duration) (bad []Violation) {
	byID := map[string][]*Op{}
	for i := range ops {
		o := &ops[i]
		if o.Verb == List || o.Verb == Get && o.Outcome == Unknown {
			continue // the one promises no order, the other says nothing
		}
		byID[o.ID] = append(byID[o.ID], o)
	}
	model := taskModel()
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		mine := byID[id]
		history := make([]porcupine.Operation, len(mine))
		for i, o := range mine {
			end := int64(o.Return)
			if o.Outcome == Unknown {
				end = math.MaxInt64 // it may happen at any time from its call on
			}
			history[i] = porcupine.Operation{ClientId: i, Input: o, Call: int64(o.Call), Return: end}
		}
		switch porcupine.CheckOperationsTimeout(model, history, patience) {
		case porcupine.Illegal:
			bad = append(bad, Violation{id, "no one life of this task explains what clients were told", describe(mine)})
		case porcupine.Unknown:
			bad = append(bad, Violation{id, fmt.Sprintf("its history of %d ops was not judged in %v", len(mine), patience), describe(mine)})
		}
	}
	return bad
}

// describeMax bounds the ops of one violation.
const describeMax = 60

func describe(ops []*Op) string {
	ops = slices.SortedFunc(slices.Values(ops), func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	var b strings.Builder
	for i, o := range ops {
		if i == describeMax {
			fmt.Fprintf(&b, "    and %d more\n", len(ops)-describeMax)
			break
		}
		fmt.Fprintf(&b, "    %v\n", o)
	}
	return b.String()
}
