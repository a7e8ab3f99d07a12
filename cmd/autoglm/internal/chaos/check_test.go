package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/actors/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// at places an op on the clock.
func at(from, to int, o Op) Op {
	o.ID, o.Node = "t", "node-1"
	if o.Body == 0 {
		o.Body = 1
	}
	o.Call, o.Return = time.Duration(from)*time.Millisecond, time.Duration(to)*time.Millisecond
	return o
}

func got(s task.State, version uint64) Op {
	return Op{Verb: Get, Outcome: Done, State: s, Version: version}
}

var (
	created   = Op{Verb: Submit, Outcome: Done, State: task.Pending, Version: 1}
	submitted = Op{Verb: Submit} // without an answer
	missing   = Op{Verb: Get, Outcome: Missing}
	refused   = Op{Verb: Submit, Outcome: Conflict}
	cancelled = Op{Verb: Cancel, Outcome: Done, State: task.Cancelled, Version: 2}
	cancels   = Op{Verb: Cancel} // without an answer
	tooLate   = Op{Verb: Cancel, Outcome: Conflict}
)

func existed(s task.State, version uint64) Op {
	return Op{Verb: Submit, Outcome: Existed, State: s, Version: version}
}

func body(n int, o Op) Op { o.Body = n; return o }

func text(s string, o Op) Op { o.Text = s; return o }

// TestHistories: the judge passes what a correct cluster may answer and finds what it must not.
func TestHistories(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Op
		ok   bool
	}{
		{"a life", []Op{at(0, 1, missing), at(2, 3, created), at(4, 5, got(task.Running, 2)), at(6, 7, text("t body 1", got(task.Completed, 3)))}, true},
		{"a lost task", []Op{at(0, 1, created), at(2, 3, got(task.Running, 2)), at(4, 5, missing)}, false},
		{"a lost task that is made again", []Op{at(0, 1, created), at(2, 3, created)}, false},
		{"a double result", []Op{at(0, 1, created), at(2, 3, text("t body 1", got(task.Completed, 3))), at(4, 5, text("t body 2", got(task.Completed, 3)))}, false},
		{"two ends", []Op{at(0, 1, created), at(2, 3, got(task.Completed, 3)), at(4, 5, got(task.Failed, 4))}, false},
		{"back from the end", []Op{at(0, 1, created), at(2, 3, got(task.Completed, 3)), at(4, 5, got(task.Running, 4))}, false},
		{"a stale read", []Op{at(0, 1, created), at(2, 3, got(task.Running, 2)), at(4, 5, got(task.Pending, 1))}, false},
		{"an older read that was under way", []Op{at(0, 1, created), at(2, 6, got(task.Running, 2)), at(4, 5, got(task.Pending, 1))}, true},
		{"two states of one version", []Op{at(0, 1, created), at(2, 9, got(task.Running, 2)), at(3, 8, got(task.Cancelled, 2)), at(2, 9, cancels)}, false},
		{"read before it was submitted", []Op{at(0, 1, got(task.Pending, 1)), at(2, 3, created)}, false},
		{"no answer, and it happened", []Op{at(0, 1, submitted), at(2, 3, got(task.Running, 2))}, true},
		{"no answer, and it did not happen", []Op{at(0, 1, submitted), at(2, 3, missing)}, true},
		{"no answer, and it happened late", []Op{at(0, 1, submitted), at(2, 3, missing), at(4, 5, existed(task.Pending, 1))}, true},
		{"no answer, it happened, and is lost", []Op{at(0, 1, submitted), at(2, 3, got(task.Pending, 1)), at(4, 5, missing)}, false},
		{"another body", []Op{at(0, 1, created), at(2, 3, body(2, refused)), at(4, 5, text("t body 1", got(task.Completed, 3)))}, true},
		{"refused for nothing", []Op{at(0, 1, created), at(2, 3, refused)}, false},
		{"refused before it was there", []Op{at(0, 1, body(2, refused)), at(2, 3, created)}, false},
		{"two bodies accepted", []Op{at(0, 9, created), at(0, 9, body(2, created))}, false},
		{"the other body's answer", []Op{at(0, 1, created), at(2, 3, body(2, refused)), at(4, 5, text("t body 2", got(task.Completed, 3)))}, false},
		{"cancelled", []Op{at(0, 1, created), at(2, 3, cancelled), at(4, 5, got(task.Cancelled, 2))}, true},
		{"cancelled, and done all the same", []Op{at(0, 1, created), at(2, 3, cancelled), at(4, 5, got(task.Completed, 3))}, false},
		{"cancelled by nobody", []Op{at(0, 1, created), at(2, 3, got(task.Cancelled, 2))}, false},
		{"cancelled before anybody asked", []Op{at(0, 1, created), at(2, 3, got(task.Cancelled, 2)), at(4, 5, cancels)}, false},
		{"a cancel without an answer that came true", []Op{at(0, 1, created), at(2, 3, cancels), at(4, 5, got(task.Running, 2)), at(6, 7, got(task.Cancelled, 3))}, true},
		{"a cancel that was too late", []Op{at(0, 1, created), at(2, 3, tooLate), at(4, 5, got(task.Completed, 3))}, true},
		{"a cancel that was too late, of a running task", []Op{at(0, 1, created), at(2, 3, tooLate), at(4, 5, got(task.Running, 2))}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := CheckHistory(c.ops, 10*time.Second)
			require.Equal(t, c.ok, len(bad) == 0, "%v", bad)
			if !c.ok {
				require.Equal(t, "t", bad[0].ID)
				require.Contains(t, bad[0].Detail, "client 0 node-1", "it shows what clients were told")
			}
		})
	}
}

func facts(events ...task.Event) (fs []Fact) {
	for i, e := range events {
		fs = append(fs, Fact{uint64(i + 1), e})
	}
	return fs
}

func TestFinals(t *testing.T) {
	good := Final{Found: true, State: task.Completed, Version: 3, Text: "t body 1", Events: facts(task.Submitted, task.Claimed, task.Answered)}
	with := func(change func(*Final)) Final { f := good; change(&f); return f }
	ops := []Op{at(0, 1, created), at(2, 3, got(task.Running, 2))}
	for _, c := range []struct {
		name string
		ops  []Op
		f    Final
		want string // part of what is wrong; "" for nothing
	}{
		{"good", ops, good, ""},
		{"lost", ops, Final{}, "lost"},
		{"never accepted, not there", []Op{at(0, 1, submitted)}, Final{}, ""},
		{"never accepted, there", []Op{at(0, 1, submitted)}, good, ""},
		{"refused only, there", []Op{at(0, 1, missing)}, good, "invented"},
		{"stuck", ops, with(func(f *Final) { f.State, f.Version, f.Events = task.Running, 2, f.Events[:2] }), "stuck"},
		{"a double result", ops, with(func(f *Final) {
			f.Version, f.Events = 4, facts(task.Submitted, task.Claimed, task.Answered, task.Answered)
		}), "2 results"},
		{"two ends", ops, with(func(f *Final) {
			f.Version, f.Events = 4, facts(task.Submitted, task.Claimed, task.Answered, task.CancelAsked)
		}), "ended 2 times"},
		{"a gap", ops, with(func(f *Final) { f.Events = []Fact{{1, task.Submitted}, {3, task.Answered}} }), "version 3 where 2 is due"},
		{"a history of other length", ops, with(func(f *Final) { f.Version = 4 }), "leads to completed at 3"},
		{"another state was shown", []Op{at(0, 1, created), at(2, 3, got(task.Cancelled, 2)), at(2, 3, cancels)}, good, "shown cancelled at version 2"},
		{"a version was shown that is gone", []Op{at(0, 1, created), at(2, 3, got(task.Pending, 7))}, good, "shown pending at version 7"},
		{"a wrong answer", ops, with(func(f *Final) { f.Text = "u body 1" }), "right for none"},
		{"cancelled by nobody", ops, with(func(f *Final) {
			f.State, f.Events = task.Cancelled, facts(task.Submitted, task.Claimed, task.CancelAsked)
		}), "nobody asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := CheckFinals(c.ops, map[string]Final{"t": c.f})
			if c.want == "" {
				require.Empty(t, bad)
				return
			}
			all := []string{}
			for _, v := range bad {
				all = append(all, v.What)
			}
			require.Contains(t, strings.Join(all, "; "), c.want)
		})
	}
	require.NotEmpty(t, CheckFinals(ops, nil), "a task that was not read is not judged well")

	finals := map[string]Final{"t": good, "u": {}}
	require.Empty(t, CheckCounts("node-1", map[string]int64{"completed": 1}, finals))
	require.Len(t, CheckCounts("node-1", map[string]int64{"completed": 2, "pending": 1}, finals), 2)
	require.Empty(t, CheckList("node-1", []string{"t"}, finals))
	for _, list := range [][]string{nil, {"t", "t"}, {"t", "u"}, {"t", "v"}} {
		require.Len(t, CheckList("node-1", list, finals), 1, "%v", list)
	}
}

// TestEveryLifeIsExplained: whatever a correct task did, and whenever clients looked, the judge has nothing to say.
func TestEveryLifeIsExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, version := task.None, uint64(0)
		var ops []Op
		for now := 0; now < 20; now++ {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0: // it moves by itself
				var can []task.Event
				for e := task.Claimed; e <= task.Expired; e++ {
					if _, ok := task.Next(state, e); ok && e != task.CancelAsked {
						can = append(can, e)
					}
				}
				if len(can) > 0 {
					state, _ = task.Next(state, rapid.SampledFrom(can).Draw(t, "event"))
					version++
				}
			case 1: // a submit, maybe without an answer
				o := Op{Verb: Submit, Outcome: Existed}
				if state == task.None {
					state, version, o.Outcome = task.Pending, 1, Done
				}
				o.State, o.Version = state, version
				if rapid.Bool().Draw(t, "lost") {
					o = submitted
				}
				ops = append(ops, at(2*now, 2*now+1, o))
			case 2: // a cancel, maybe without an answer
				o := Op{Verb: Cancel, Outcome: Conflict}
				if next, ok := task.Next(state, task.CancelAsked); ok {
					state, version = next, version+1
				}
				switch state {
				case task.None:
					o.Outcome = Missing
				case task.Cancelled:
					o = Op{Verb: Cancel, Outcome: Done, State: state, Version: version}
				}
				if rapid.Bool().Draw(t, "lost") {
					o = cancels
				}
				ops = append(ops, at(2*now, 2*now+1, o))
			default:
				o := got(state, version)
				if state == task.None {
					o = missing
				}
				ops = append(ops, at(2*now, 2*now+1, o))
			}
		}
		if bad := CheckHistory(ops, 10*time.Second); len(bad) > 0 {
			t.Fatalf("%v", bad)
		}
	})
}

func TestSchedule(t *testing.T) {
	a, err := Schedule(7, 30, 3, Can{}, nil)
	require.NoError(t, err)
	b, err := Schedule(7, 30, 3, Can{}, nil)
	require.NoError(t, err)
	require.Equal(t, faultNames(a), faultNames(b), "a seed is a schedule")
	require.Len(t, a, 30)
	first := map[string]bool{}
	for _, f := range a[:10] {
		require.False(t, f.Cuts)
		first[f.Name] = true
	}
	require.Len(t, first, 10, "every possible fault comes once before any comes twice")
	one, err := Schedule(7, 9, 1, Can{true, true}, nil)
	require.NoError(t, err)
	for _, f := range one {
		require.LessOrEqual(t, f.Nodes, 1)
	}
	_, err = Schedule(7, 1, 3, Can{}, []string{"kill-oen"})
	require.ErrorContains(t, err, "use kill-one, ")
	_, err = Schedule(7, 1, 1, Can{}, []string{"wipe-one"})
	require.ErrorContains(t, err, "none of the faults")
}

func TestMissingReplicas(t *testing.T) {
	c := cluster{}
	require.Contains(t, c.missing(3), "no shards")
	c.Shards = append(c.Shards, c.Shards...)
	require.NoError(t, jsonInto(&c, `{"shards":[{"shard":4,"lead":{"node":"node-1"},"replicas":[
		{"node":"node-1","voter":true,"alive":true,"applied":5000},{"node":"node-2","voter":true,"alive":true,"applied":4500},
		{"node":"node-3","voter":true,"alive":true,"applied":3000}]}]}`))
	require.Contains(t, c.missing(3), "shard 4 has 2 of 3 good replicas", "one lags behind")
	require.Empty(t, c.missing(2))
	c.Shards[0].Lead = nil
	require.Contains(t, c.missing(1), "no owner")
}
