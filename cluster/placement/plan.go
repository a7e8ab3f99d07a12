package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/open-autoglm/autoglm/persistence"
)

// plan is one run of Plan.
type plan struct {
	View
	nodes  map[string]*node // by id
	order  []*node          // by name, then id
	shards []*shard
	target int // voters of each shard: the fewer of Replicas and the nodes that will hold some
	moving int // shards with a replica that learns
	out    []Action
}

// node is a Node with what follows from it.
type node struct {
	Node
	runs     map[int]persistence.Group // by shard
	wiped    bool                      // another data directory has its name now
	gone     bool                      // what it has is given up: dead beyond the grace time, or wiped
	usable   bool                      // may get replicas and leads
	replicas int                       // that it is to have when all that is under way is done
	leads    int                       // that it has, or is to have by this plan
}

// shard is a group with what follows from it.
type shard struct {
	*persistence.Group
	lead     *persistence.Replica
	voters   []persistence.Replica
	learners []persistence.Replica
	keep     []persistence.Replica // those that stay when all that is under way is done; at most target
	before   uint64                // View.Before
	acted    bool                  // it has its one action
}

// Plan names the next steps: at most one change of each shard's membership or lead, and what replicas have to be
// started or deleted. It is the same for the same view.
func Plan(v View) []Action {
	v.Settings = v.Settings.orDefaults()
	p := &plan{View: v, nodes: map[string]*node{}}
	p.readNodes()
	usable := 0
	for _, n := range p.order {
		if n.usable || !n.Alive && !n.gone && !n.Leaving {
			usable++
		}
	}
	p.target = min(p.Replicas, usable)
	p.readGroups()
	p.drops()
	if p.target > 0 { // else nobody is to have anything: a whole cluster that leaves stays as it is
		p.project()
		for _, s := range p.shards {
			p.step(s)
		}
		p.repair()
		p.balance()
		p.spreadLeads()
	}
	for i := range p.out {
		if n := p.nodes[p.out[i].Node]; n != nil {
			p.out[i].Name = n.Name
		}
	}
	return p.out
}

func (p *plan) readNodes() {
	heirs := map[string]Node{} // name → its newest data directory: the one that lives, or died last
	for _, n := range p.Nodes {
		if h, ok := heirs[n.Name]; n.Name != "" && (!ok || n.Alive && !h.Alive || n.Alive == h.Alive && n.Since.After(h.Since)) {
			heirs[n.Name] = n
		}
	}
	for _, n := range p.Nodes {
		x := &node{Node: n, runs: map[int]persistence.Group{}}
		heir, ok := heirs[n.Name]
		x.wiped = ok && !n.Alive && heir.ID != n.ID && (heir.Alive || heir.Since.After(n.Since))
		x.gone = x.wiped || !n.Alive && p.Now.Sub(n.Since) >= p.Grace
		x.usable = n.Alive && !n.Leaving
		for _, g := range n.Groups {
			if n.Reported && g.Self != 0 {
				x.runs[g.Shard] = g
			}
		}
		p.nodes[n.ID] = x
		p.order = append(p.order, x)
	}
	slices.SortFunc(p.order, func(a, b *node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
}

func (p *plan) readGroups() {
	for i, g := range p.Groups {
		if g == nil {
			for _, n := range p.order {
				if _, ok := n.runs[i]; ok {
					n.replicas++
				}
			}
			continue
		}
		s := &shard{Group: g}
		if i < len(p.Before) {
			s.before = p.Before[i]
		}
		for k, r := range g.Replicas {
			if r.Voter {
				s.voters = append(s.voters, r)
			} else {
				s.learners = append(s.learners, r)
			}
			if r.ID == g.Leader {
				s.lead = &g.Replicas[k]
			}
		}
		if s.lead == nil || p.nodes[s.lead.Node] == nil {
			continue // it reported itself out of its own membership: it will not lead for long
		}
		p.nodes[s.lead.Node].leads++
		p.shards = append(p.shards, s)
	}
}

// drops deletes replicas that their group does not have any more. The group must be at least as new as the replica:
// a leader that was deposed may not know yet of one that was added. A replica that leads is left alone: one that was
// removed cannot, so this is another cluster's under the same id.
func (p *plan) drops() {
	for _, s := range p.shards {
		for _, n := range p.order {
			g, ok := n.runs[s.Shard]
			if ok && g.Self != g.Leader && g.Self <= s.Last && g.Version <= s.Version && !s.has(g.Self) {
				p.out = append(p.out, Action{Kind: Drop, Shard: s.Shard, Node: n.ID, Replica: g.Self, On: n.ID,
					Why: fmt.Sprintf("%s has a replica that is no member any more", n.title())})
			}
		}
	}
}

func (s *shard) has(id uint64) bool {
	return slices.ContainsFunc(s.Replicas, func(r persistence.Replica) bool { return r.ID == id })
}

func (s *shard) on(id string) bool {
	return slices.ContainsFunc(s.Replicas, func(r persistence.Replica) bool { return r.Node == id })
}

func (s *shard) keeps(id uint64) bool {
	return slices.ContainsFunc(s.keep, func(r persistence.Replica) bool { return r.ID == id })
}

func (n *node) title() string {
	if n.Name != "" {
		return n.Name
	}
	return n.ID
}

// gone tells that a replica is given up: its node is, or the node lives and has not run it for longer than the
// grace time. One that only learns is not given up then but joined again.
func (p *plan) gone(s *shard, r persistence.Replica) bool {
	n := p.nodes[r.Node]
	return n != nil && (n.gone || r.Voter && p.absent(s, r) && p.Now.Sub(n.Since) >= p.Grace)
}

// absent tells that the node says it does not run the replica.
func (p *plan) absent(s *shard, r persistence.Replica) bool {
	n := p.nodes[r.Node]
	return n != nil && n.Alive && n.Reported && n.runs[s.Shard].Self != r.ID
}

// live tells that a voter counts for a quorum: its node said just now that it runs it.
func (p *plan) live(s *shard, r persistence.Replica) bool {
	n := p.nodes[r.Node]
	return n != nil && n.Alive && n.Reported && n.runs[s.Shard].Self == r.ID
}

// current tells that a replica runs and has caught up: it lacks a few entries, or only what was written a moment ago.
func (p *plan) current(s *shard, r persistence.Replica) bool {
	n := p.nodes[r.Node]
	if n == nil || !n.Alive {
		return false
	}
	g, ok := n.runs[s.Shard]
	return ok && g.Self == r.ID && (g.Applied+p.Behind >= s.Applied || s.before > 0 && g.Applied >= s.before)
}

func (p *plan) leaving(r persistence.Replica) bool {
	n := p.nodes[r.Node]
	return n != nil && n.Leaving
}

// project finds what each shard is to have in the end, were nothing begun now: what is given up or leaves goes, and of what
// is too much the worst. It is what a node's load is measured by.
func (p *plan) project() {
	for _, s := range p.shards {
		for _, r := range s.Replicas {
			if !p.gone(s, r) && !p.leaving(r) {
				s.keep = append(s.keep, r)
				p.load(r.Node, 1)
			}
		}
	}
	for _, s := range p.shards {
		for len(s.keep) > p.target {
			i := p.worst(s)
			p.load(s.keep[i].Node, -1)
			s.keep = slices.Delete(s.keep, i, i+1)
		}
		if len(s.learners) > 0 {
			p.moving++
		}
	}
}

func (p *plan) load(id string, by int) {
	if n := p.nodes[id]; n != nil {
		n.replicas += by
	}
}

// worst returns the index in keep of the replica to do without: one that is dead, then where the fewest zones are
// lost, then on the fullest node; then what costs least.
func (p *plan) worst(s *shard) int {
	best := -1
	better := func(i, k int) bool {
		a, b := s.keep[i], s.keep[k]
		na, nb := p.nodes[a.Node], p.nodes[b.Node]
		if na == nil || nb == nil {
			return na == nil && nb != nil
		}
		return cmp.Or(
			-boolCompare(!na.Alive, !nb.Alive),
			cmp.Compare(p.zones(s.keep, k, ""), p.zones(s.keep, i, "")),
			cmp.Compare(nb.replicas, na.replicas),
			-boolCompare(!a.Voter, !b.Voter),
			-boolCompare(a.ID != s.Leader, b.ID != s.Leader),
			cmp.Compare(b.ID, a.ID)) < 0
	}
	for i := range s.keep {
		if best < 0 || better(i, best) {
			best = i
		}
	}
	return best
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// zones counts the zones of a set of replicas without the one at index skip (-1: all) and with another node ("": none).
func (p *plan) zones(set []persistence.Replica, skip int, with string) int {
	seen := map[string]bool{}
	for i, r := range set {
		if n := p.nodes[r.Node]; i != skip && n != nil {
			seen[n.Zone] = true
		}
	}
	if n := p.nodes[with]; n != nil {
		seen[n.Zone] = true
	}
	return len(seen)
}
