package placement

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence"
)

// sim is a cluster that obeys actions as the real one does, and checks each of them.
type sim struct {
	t      *rapid.T
	now    time.Time
	set    Settings
	nodes  []*simNode
	groups []*simGroup
	ids    int

	// What a coordinator remembers.
	since  map[string]time.Time
	alive  map[string]bool
	titles map[string]*simNode // by id, as last seen
}

type simNode struct {
	name, id, zone string
	alive, leaving bool
	runs           map[int]*simReplica
}

type simReplica struct{ id, applied uint64 }

type simGroup struct {
	persistence.Group
}

func newSim(t *rapid.T, shards int, set Settings) *sim {
	s := &sim{t: t, now: time.Unix(1e9, 0), set: set, since: map[string]time.Time{}, alive: map[string]bool{}, titles: map[string]*simNode{}}
	n := s.add("")
	for i := range shards {
		s.groups = append(s.groups, &simGroup{persistence.Group{Shard: i, Leader: 1, Term: 1, Applied: 5000, Version: 1, Last: 1,
			Replicas: []persistence.Replica{{ID: 1, Node: n.id, Voter: true}}}})
		n.runs[i] = &simReplica{id: 1, applied: 5000}
	}
	return s
}

func (s *sim) add(zone string) *simNode {
	s.ids++
	n := &simNode{name: fmt.Sprintf("n%02d", s.ids), id: fmt.Sprintf("id%02d", s.ids), zone: zone, alive: true, runs: map[int]*simReplica{}}
	s.nodes = append(s.nodes, n)
	return n
}

func (s *sim) node(id string) *simNode {
	for _, n := range s.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// votes counts the voters that could vote if the node did not.
func (s *sim) votes(g *simGroup, without *simNode) (live, all int) {
	for _, r := range g.Replicas {
		if r.Voter {
			all++
			if n := s.node(r.Node); n != nil && n != without && n.alive && n.runs[g.Shard] != nil && n.runs[g.Shard].id == r.ID {
				live++
			}
		}
	}
	return live, all
}

// kept counts the voters whose data exists, dead or not, if the node were wiped.
func (s *sim) kept(g *simGroup, without *simNode) (kept, all int) {
	for _, r := range g.Replicas {
		if r.Voter {
			all++
			if n := s.node(r.Node); n != nil && n != without && n.runs[g.Shard] != nil && n.runs[g.Shard].id == r.ID {
				kept++
			}
		}
	}
	return kept, all
}

// elect gives each group a living leader where it has a quorum.
func (s *sim) elect() {
	for _, g := range s.groups {
		live, all := s.votes(g, nil)
		if live < all/2+1 {
			g.Leader = 0
			continue
		}
		var most persistence.Replica
		var applied uint64
		for _, r := range g.Replicas {
			n := s.node(r.Node)
			if n == nil || !n.alive || n.runs[g.Shard] == nil || n.runs[g.Shard].id != r.ID || !r.Voter {
				continue
			}
			if r.ID == g.Leader {
				most.ID = 0
				break
			}
			if a := n.runs[g.Shard].applied; most.ID == 0 || a > applied {
				most, applied = r, a
			}
		}
		if most.ID != 0 {
			g.Leader, g.Term = most.ID, g.Term+1
		}
	}
}

// tick lets time pass: leaders write, others follow.
func (s *sim) tick() {
	s.now = s.now.Add(time.Second)
	s.elect()
	for _, g := range s.groups {
		if g.Leader != 0 {
			g.Applied += 100
		}
		for _, r := range g.Replicas {
			n := s.node(r.Node)
			if n == nil || !n.alive || n.runs[g.Shard] == nil || n.runs[g.Shard].id != r.ID {
				continue
			}
			x := n.runs[g.Shard]
			if r.ID == g.Leader {
				x.applied = g.Applied
			} else if g.Leader != 0 {
				x.applied = min(x.applied+max(3000, g.Applied/3), g.Applied-50)
			}
		}
	}
}

func (s *sim) view() View {
	v := View{Now: s.now, Settings: s.set, Groups: make([]*persistence.Group, len(s.groups))}
	known := map[string]bool{}
	for _, n := range s.nodes {
		if n.alive {
			c := *n
			s.titles[n.id] = &c
			known[n.id] = true
		}
	}
	for _, g := range s.groups {
		for _, r := range g.Replicas {
			known[r.Node] = true
		}
	}
	for id := range s.alive {
		if s.titles[id] != nil && s.now.Sub(s.since[id]) < 10*s.set.Grace {
			known[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		n := s.node(id)
		alive := n != nil && n.alive
		if was, ok := s.alive[id]; !ok || was != alive {
			s.alive[id], s.since[id] = alive, s.now
		}
		x := Node{ID: id, Alive: alive, Since: s.since[id]}
		if t := s.titles[id]; t != nil {
			x.Name, x.Zone, x.Leaving = t.name, t.zone, t.leaving
		}
		if alive {
			x.Reported = true
			for _, shard := range slices.Sorted(maps.Keys(n.runs)) {
				g := s.groups[shard].Group
				g.Self, g.Applied, g.Replicas = n.runs[shard].id, n.runs[shard].applied, slices.Clone(g.Replicas)
				x.Groups = append(x.Groups, g)
				if g.Self == g.Leader {
					v.Groups[shard] = &g
				}
			}
		}
		v.Nodes = append(v.Nodes, x)
	}
	return v
}

// plan asks for a plan and checks what must hold for any.
func (s *sim) plan() []Action {
	s.elect()
	actions := Plan(s.view())
	acted := map[int]bool{}
	moving := 0
	for _, g := range s.groups {
		learners, voters := 0, 0
		for _, r := range g.Replicas {
			if r.Voter {
				voters++
			} else {
				learners++
			}
		}
		if learners > 1 {
			s.t.Fatalf("shard %d has two learners: %+v", g.Shard, g)
		}
		if learners > 0 && g.Leader != 0 {
			moving++
		}
	}
	for _, a := range actions {
		g := s.groups[a.Shard]
		if a.Why == "" || a.On == "" || a.Node == "" || a.Replica == 0 {
			s.t.Fatalf("not all is said: %+v", a)
		}
		if a.Kind == Drop {
			if g.Leader != 0 && slices.ContainsFunc(g.Replicas, func(r persistence.Replica) bool { return r.ID == a.Replica }) {
				s.t.Fatalf("%s: it is a member: %+v", a, g)
			}
			continue
		}
		if acted[a.Shard] {
			s.t.Fatalf("two actions for shard %d: %v", a.Shard, actions)
		}
		acted[a.Shard] = true
		change, isChange := a.Change()
		if isChange && change.Version != g.Version {
			s.t.Fatalf("%s: decided on version %d, it is %d", a, change.Version, g.Version)
		}
		switch a.Kind {
		case AddLearner:
			if moving++; moving > s.set.ChangesMax {
				s.t.Fatalf("more than %d changes under way: %v", s.set.ChangesMax, actions)
			}
			if slices.ContainsFunc(g.Replicas, func(r persistence.Replica) bool { return !r.Voter || r.Node == a.Node || r.ID >= a.Replica }) {
				s.t.Fatalf("%s: %+v", a, g)
			}
		case Remove:
			live, all := s.votes(g, nil)
			for _, r := range g.Replicas {
				if r.ID != a.Replica || !r.Voter {
					continue
				}
				if n := s.node(r.Node); n != nil && n.alive && n.runs[a.Shard] != nil && n.runs[a.Shard].id == r.ID {
					live--
				}
				if live < (all-1)/2+1 {
					s.t.Fatalf("%s: %d of %d voters would live", a, live, all-1)
				}
				if a.Replica == g.Leader {
					s.t.Fatalf("%s: it leads", a)
				}
			}
		}
	}
	return actions
}

// do carries an action out as a store would.
func (s *sim) do(a Action) {
	g := s.groups[a.Shard]
	n := s.node(a.Node)
	on := s.node(a.On)
	if on == nil || !on.alive {
		return
	}
	if change, ok := a.Change(); ok {
		if g.Leader == 0 || change.Version != g.Version || on.runs[a.Shard] == nil || on.runs[a.Shard].id != g.Leader {
			return
		}
		g.Version++
		g.Replicas = slices.Clone(g.Replicas)
		i := slices.IndexFunc(g.Replicas, func(r persistence.Replica) bool { return r.ID == a.Replica })
		switch a.Kind {
		case AddLearner:
			g.Replicas = append(g.Replicas, *change.Add)
			g.Last = a.Replica
		case Promote:
			g.Replicas[i].Voter = true
		case Remove:
			g.Replicas = slices.Delete(g.Replicas, i, i+1)
		}
		return
	}
	switch a.Kind {
	case Join:
		if n.runs[a.Shard] == nil {
			n.runs[a.Shard] = &simReplica{id: a.Replica}
		}
	case Drop:
		if n.runs[a.Shard] != nil && n.runs[a.Shard].id == a.Replica {
			delete(n.runs, a.Shard)
		}
	case Transfer:
		if x := on.runs[a.Shard]; x != nil && x.id == g.Leader && n.alive && n.runs[a.Shard] != nil && n.runs[a.Shard].id == a.Replica {
			g.Leader, g.Term = a.Replica, g.Term+1
		}
	}
}

// chaos lets one thing happen to the cluster.
func (s *sim) chaos(zones []string) {
	t := s.t
	n := s.nodes[rapid.IntRange(0, len(s.nodes)-1).Draw(t, "node")]
	safe := func(count func(*simGroup, *simNode) (int, int)) bool {
		for _, g := range s.groups {
			if live, all := count(g, n); live < all/2+1 {
				return false
			}
		}
		return true
	}
	switch rapid.SampledFrom([]string{"add", "kill", "back", "wipe", "leave", "stay", "gone"}).Draw(t, "what") {
	case "add":
		if len(s.nodes) < 7 {
			s.add(rapid.SampledFrom(zones).Draw(t, "zone"))
		}
	case "kill": // also where it stops a group: then until it is back
		n.alive = false
	case "back":
		n.alive = true
	case "wipe":
		if safe(s.kept) {
			s.ids++
			n.id, n.runs, n.alive = fmt.Sprintf("id%02d", s.ids), map[int]*simReplica{}, true
		}
	case "leave":
		n.leaving = true
	case "stay":
		n.leaving = false
	case "gone": // it drained and is taken away
		if n.leaving && len(n.runs) == 0 && len(s.nodes) > 1 {
			s.nodes = slices.DeleteFunc(s.nodes, func(x *simNode) bool { return x == n })
		}
	}
}
