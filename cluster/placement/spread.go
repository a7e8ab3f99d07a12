package placement

import (
	"slices"

	"github.com/open-autoglm/autoglm/persistence"
)

// settled tells that a shard has what it should have, living, and nothing is under way. A dead voter beside that is one that
// may return.
func (p *plan) settled(s *shard) bool {
	return !s.acted && len(s.learners) == 0 && len(s.keep) == p.target &&
		!slices.ContainsFunc(s.keep, func(r persistence.Replica) bool { return !p.live(s, r) }) &&
		!slices.ContainsFunc(s.voters, func(r persistence.Replica) bool { return !s.keeps(r.ID) && !p.mayReturn(s, r) })
}

// balance begins moves of replicas: into zones that a shard lacks, then from full nodes to emptier ones. Each move
// makes the sum of zones larger, or leaves it and makes the sum of squares of the loads smaller: so moves end. Which replica a
// move is to replace is not kept anywhere: worst finds it, or a better one, when the new one votes.
func (p *plan) balance() {
	for _, s := range p.shards {
		if len(s.keep) < p.target {
			return // repairs come first, they change the loads
		}
	}
	for p.moving < p.ChangesMax && p.move() {
	}
}

// move begins the best single move there is.
func (p *plan) move() bool {
	var (
		shard    *shard
		from, to *node
		index    int
		gain     int // zones
		slope    int // difference of loads
	)
	for _, s := range p.shards {
		if !p.settled(s) {
			continue
		}
		now := p.zones(s.keep, -1, "")
		for i, r := range s.keep {
			a := p.nodes[r.Node]
			if a == nil {
				continue
			}
			for _, b := range p.order {
				if !p.free(s, b) {
					continue
				}
				g, d := p.zones(s.keep, i, b.ID)-now, a.replicas-b.replicas
				if g < 0 || g == 0 && d < 2 {
					continue
				}
				if shard == nil || g > gain || g == gain && d > slope {
					shard, from, to, index, gain, slope = s, a, b, i, g, d
				}
			}
		}
	}
	if shard == nil {
		return false
	}
	from.replicas--
	shard.keep = slices.Delete(shard.keep, index, index+1)
	if gain > 0 {
		p.add(shard, to, "it brings the shard to one more zone, instead of %s", from.title())
	} else {
		p.add(shard, to, "%s has %d replicas more than %s", from.title(), slope, to.title())
	}
	return true
}

// spreadLeads moves leads from nodes with many to nodes with few, also by way of others: every path between two nodes that
// differ by more than the spread makes the sum of squares smaller, and where there is none the leads are as even as
// the replicas allow.
func (p *plan) spreadLeads() {
	for moved := 0; moved < p.ChangesMax; {
		path := p.leadPath()
		if path == nil {
			return
		}
		for _, h := range path {
			p.nodes[h.s.lead.Node].leads--
			p.nodes[h.r.Node].leads++
			p.act(h.s, Transfer, h.r, "leads are spread")
			moved++
		}
	}
}

// hop is one lead that can move.
type hop struct {
	s *shard
	r persistence.Replica // to here
}

// leadPath returns the shortest chain of leads to move from a node with most to one with too few.
func (p *plan) leadPath() []hop {
	out := map[string][]hop{} // by the node that leads
	for _, s := range p.shards {
		if !p.settled(s) {
			continue
		}
		for _, r := range s.voters {
			if n := p.nodes[r.Node]; r.ID != s.Leader && n.usable && p.current(s, r) {
				out[s.lead.Node] = append(out[s.lead.Node], hop{s, r})
			}
		}
	}
	starts := slices.Clone(p.order)
	slices.SortStableFunc(starts, func(a, b *node) int { return b.leads - a.leads })
	for _, from := range starts {
		came := map[string]hop{from.ID: {}}
		for queue := []string{from.ID}; len(queue) > 0; queue = queue[1:] {
			for _, h := range out[queue[0]] {
				if _, seen := came[h.r.Node]; seen {
					continue
				}
				came[h.r.Node] = h
				if from.leads-p.nodes[h.r.Node].leads <= p.LeadSpread {
					queue = append(queue, h.r.Node)
					continue
				}
				var path []hop
				for at := h.r.Node; at != from.ID; at = came[at].s.lead.Node {
					path = append(path, came[at])
				}
				slices.Reverse(path)
				return path
			}
		}
	}
	return nil
}
