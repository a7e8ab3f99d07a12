package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence"
)

// From any state that deaths, returns, wipes, leaves and growth bring about, with any actions lost, a cluster comes to
// rest within a bound, and rest is what it should be.
func TestPlanConverges(t *testing.T) {
	for _, zones := range [][]string{{""}, {"x", "y"}, {"x", "y", "z", "w"}} {
		t.Run("zones "+strings.Join(zones, ""), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				set := Settings{Replicas: rapid.SampledFrom([]int{1, 3, 3, 5}).Draw(rt, "replicas"), Grace: 5 * time.Second,
					ChangesMax: rapid.IntRange(1, 8).Draw(rt, "changes max")}.orDefaults()
				s := newSim(rt, rapid.IntRange(1, 8).Draw(rt, "shards"), set)
				s.nodes[0].zone = zones[0]
				for range rapid.IntRange(0, 4).Draw(rt, "nodes") {
					s.add(rapid.SampledFrom(zones).Draw(rt, "zone"))
				}
				for range rapid.IntRange(0, 60).Draw(rt, "rounds") {
					if rapid.IntRange(0, 2).Draw(rt, "calm") == 0 {
						s.chaos(zones)
					}
					s.tick()
					actions := s.plan()
					for _, a := range actions {
						if rapid.IntRange(0, 4).Draw(rt, "lost") > 0 {
							s.do(a)
						}
					}
				}
				for _, n := range s.nodes { // the dead stay dead where all groups can live without them
					if n.alive {
						continue
					}
					for _, g := range s.groups {
						if live, all := s.votes(g, nil); live < all/2+1 {
							n.alive = true
						}
					}
				}
				s.settle()
				s.rests(len(zones) == 1)
			})
		})
	}
}

// settle obeys until nothing is left to do and all grace times are over.
func (s *sim) settle() {
	const rounds = 400
	quiet := 0
	for range rounds {
		s.tick()
		actions := s.plan()
		for _, a := range actions {
			s.do(a)
		}
		if len(actions) > 0 {
			quiet = 0
		} else if quiet++; quiet > int(s.set.Grace/time.Second)+3 {
			return
		}
	}
	s.t.Fatalf("not at rest after %d rounds: %v\n%s", rounds, s.plan(), s)
}

func (s *sim) String() string {
	var b strings.Builder
	for _, n := range s.nodes {
		fmt.Fprintf(&b, "%s %s zone=%q alive=%v leaving=%v", n.name, n.id, n.zone, n.alive, n.leaving)
		for _, shard := range slices.Sorted(maps.Keys(n.runs)) {
			fmt.Fprintf(&b, " %d:%d@%d", shard, n.runs[shard].id, n.runs[shard].applied)
		}
		b.WriteString("\n")
	}
	for _, g := range s.groups {
		fmt.Fprintf(&b, "%+v\n", g.Group)
	}
	return b.String()
}

// rests checks the state that nothing is planned in.
func (s *sim) rests(even bool) {
	usable := map[string]*simNode{}
	zones := map[string]bool{}
	for _, n := range s.nodes {
		if n.alive && !n.leaving {
			usable[n.id] = n
			zones[n.zone] = true
		}
	}
	if len(usable) == 0 {
		return
	}
	target := min(s.set.Replicas, len(usable))
	replicas, leads := map[string]int{}, map[string]int{}
	for _, g := range s.groups {
		living := slices.DeleteFunc(slices.Clone(g.Replicas), func(r persistence.Replica) bool {
			was := s.titles[r.Node] // as the coordinator saw it last: it may have been told to leave, or was wiped, while it was dead
			for _, n := range s.nodes {
				if n.alive && (n.id == r.Node || was != nil && n.name == was.name) {
					return false
				}
			}
			return target < s.set.Replicas && (was == nil || !was.leaving) && r.Voter
		})
		if dead := len(g.Replicas) - len(living); len(living) != target || (target+dead)/2 != target/2 {
			s.t.Fatalf("shard %d has %d replicas and %d on the dead, not %d\n%s", g.Shard, len(living), dead, target, s)
		}
		seen, in := map[string]bool{}, map[string]bool{}
		for _, r := range living {
			n := usable[r.Node]
			if n == nil || !r.Voter || seen[r.Node] {
				s.t.Fatalf("shard %d: %+v\n%s", g.Shard, r, s)
			}
			seen[r.Node], in[n.zone] = true, true
			replicas[r.Node]++
			if r.ID == g.Leader {
				leads[r.Node]++
			}
		}
		if len(in) != min(target, len(zones)) {
			s.t.Fatalf("shard %d is in %d zones, not %d\n%s", g.Shard, len(in), min(target, len(zones)), s)
		}
	}
	for _, n := range s.nodes {
		for shard, r := range n.runs {
			if g := s.groups[shard]; n.alive && !slices.ContainsFunc(g.Replicas, func(x persistence.Replica) bool { return x.ID == r.id }) {
				s.t.Fatalf("%s runs what is no member: %d\n%s", n.name, shard, s)
			}
		}
	}
	spread := func(count map[string]int) (least, most int) {
		least = 1 << 30
		for id := range usable {
			least, most = min(least, count[id]), max(most, count[id])
		}
		return least, most
	}
	if least, most := spread(replicas); even && most-least > 1 {
		s.t.Fatalf("replicas from %d to %d\n%s", least, most, s)
	}
	if least, most := spread(leads); even && most-least > 1 {
		s.t.Fatalf("leads from %d to %d\n%s", least, most, s)
	}
}

// Growth 1 → 3 → 5 → 3, with the figures that people see.
func TestPlanGrowsAndShrinks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSim(rt, 16, Defaults)
		for _, size := range []int{3, 5, 3} {
			for len(s.nodes) < size {
				s.add("")
			}
			left := s.nodes[size:]
			for _, n := range left {
				n.leaving = true
			}
			s.settle()
			for _, n := range left {
				if len(n.runs) > 0 {
					rt.Fatalf("%s is not drained\n%s", n.name, s)
				}
			}
			s.nodes = s.nodes[:size]
			s.rests(true)
		}
	})
}

func TestChangeOfActions(t *testing.T) {
	r := persistence.Replica{ID: 4, Node: "x"}
	voter := r
	voter.Voter = true
	for kind, want := range map[Kind]persistence.Change{
		AddLearner: {Version: 9, Add: &r},
		Promote:    {Version: 9, Add: &voter},
		Remove:     {Version: 9, Remove: 4},
	} {
		got, ok := Action{Kind: kind, Node: "x", Replica: 4, Version: 9}.Change()
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	for _, kind := range []Kind{Join, Drop, Transfer} {
		_, ok := Action{Kind: kind, Node: "x", Replica: 4}.Change()
		require.False(t, ok)
	}
	require.Equal(t, "shard 3: drop replica 4 on node x: because", Action{Kind: Drop, Shard: 3, Node: "x", Replica: 4, Why: "because"}.String())
}
