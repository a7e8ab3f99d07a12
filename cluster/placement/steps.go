package placement

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/open-autoglm/autoglm/persistence"
)

func (p *plan) act(s *shard, kind Kind, r persistence.Replica, why string, args ...any) {
	a := Action{Kind: kind, Shard: s.Shard, Node: r.Node, Replica: r.ID, On: s.lead.Node, Why: fmt.Sprintf(why, args...)}
	switch kind {
	case Join:
		a.On = r.Node
	case AddLearner, Promote, Remove:
		a.Version = s.Version
	}
	s.acted = true
	p.out = append(p.out, a)
}

// step goes on with what is under way in a shard.
func (p *plan) step(s *shard) {
	if p.leaving(*s.lead) && p.handOver(s, "its node is leaving") {
		return
	}
	for _, r := range s.learners {
		switch n := p.nodes[r.Node]; {
		case !s.keeps(r.ID):
			p.act(s, Remove, r, "it is not needed any more")
			return
		case n == nil || !n.Alive:
		case n.Reported && n.runs[s.Shard].Self == 0:
			p.act(s, Join, r, "%s does not run it yet", n.title())
			return
		case p.current(s, r):
			p.act(s, Promote, r, "%s has caught up", n.title())
			return
		}
	}
	if len(s.learners) > 0 || len(s.voters) <= p.target {
		return
	}
	// Too many vote. Those that are given up go first; one that leaves or is too much goes when enough others stay.
	for _, given := range []bool{true, false} {
		for _, r := range s.voters {
			if s.keeps(r.ID) || p.gone(s, r) != given || !given && len(s.keep) < p.target || p.mayReturn(s, r) {
				continue
			}
			p.remove(s, r)
			if s.acted {
				return
			}
		}
	}
}

// mayReturn tells that a dead voter, which no node is there to replace, is better kept: of three voters two must live,
// and of two both, so taking the third out gains nothing, and should it come back before another one dies, or after, it is one
// more that can vote. Where taking the dead out makes the majority smaller they go.
func (p *plan) mayReturn(s *shard, r persistence.Replica) bool {
	dead := 0
	for _, v := range s.voters {
		if p.asleep(v) {
			dead++
		}
	}
	n := len(s.keep)
	return p.asleep(r) && p.target < p.Replicas && (n+dead)/2 == n/2
}

// asleep tells that the replica is on a node that is dead, but was not wiped and was to stay.
func (p *plan) asleep(r persistence.Replica) bool {
	n := p.nodes[r.Node]
	return n != nil && !n.Alive && !n.wiped && !n.Leaving
}

// remove takes a voter out, unless that would leave the group without a living majority.
func (p *plan) remove(s *shard, r persistence.Replica) {
	if r.ID == s.Leader {
		p.handOver(s, "its replica here is to go")
		return
	}
	live := 0
	for _, v := range s.voters {
		if p.live(s, v) {
			live++
		}
	}
	after := live
	if p.live(s, r) {
		after--
	}
	if n := len(s.voters); live < n/2+1 || after < (n-1)/2+1 {
		return
	}
	why := "one replica is too much"
	switch n := p.nodes[r.Node]; {
	case p.gone(s, r) && n.Alive:
		why = "its node has lost it"
	case n.wiped:
		why = "its node was wiped"
	case p.gone(s, r):
		why = "its node is dead"
	case n.Leaving:
		why = "its node is leaving"
	}
	p.act(s, Remove, r, "%s", why)
}

// handOver moves the lead to the node with the fewest that stays and is up to date, and tells whether there is one.
func (p *plan) handOver(s *shard, why string) bool {
	var best *persistence.Replica
	for i, r := range s.keep {
		n := p.nodes[r.Node]
		if r.Voter && r.ID != s.Leader && n != nil && n.usable && p.current(s, r) && (best == nil || n.leads < p.nodes[best.Node].leads) {
			best = &s.keep[i]
		}
	}
	if best == nil {
		return false
	}
	p.nodes[s.lead.Node].leads--
	p.nodes[best.Node].leads++
	p.act(s, Transfer, *best, "%s", why)
	return true
}

// repair gives replicas to shards that have too few, those with the fewest first.
func (p *plan) repair() {
	var short []*shard
	for _, s := range p.shards {
		if !s.acted && len(s.learners) == 0 && len(s.keep) < p.target {
			short = append(short, s)
		}
	}
	slices.SortStableFunc(short, func(a, b *shard) int { return cmp.Compare(len(a.keep), len(b.keep)) })
	for _, s := range short {
		if n := p.home(s); n != nil && p.moving < p.ChangesMax {
			p.add(s, n, "%d of %d replicas are there to stay", len(s.keep), p.target)
		}
	}
}

// home returns the node for a new replica: in a zone that has none, then with the fewest, then by name.
func (p *plan) home(s *shard) *node {
	var best *node
	for _, n := range p.order {
		if !p.free(s, n) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(p.zones(s.keep, -1, best.ID), p.zones(s.keep, -1, n.ID)),
			cmp.Compare(n.replicas, best.replicas)) < 0 {
			best = n
		}
	}
	return best
}

// free tells that a node can take a replica of the shard now.
func (p *plan) free(s *shard, n *node) bool {
	_, runs := n.runs[s.Shard] // an old one: it is dropped first
	return n.usable && n.Reported && !runs && !s.on(n.ID)
}

func (p *plan) add(s *shard, n *node, why string, args ...any) {
	r := persistence.Replica{ID: s.Last + 1, Node: n.ID}
	s.keep = append(s.keep, r)
	n.replicas++
	p.moving++
	p.act(s, AddLearner, r, why, args...)
}
