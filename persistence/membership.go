package persistence

import (
	"maps"
	"slices"

	"github.com/lni/dragonboat/v4"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// roster is a group's membership at one version, the index of the entry that made it.
type roster struct {
	version  uint64
	voters   map[uint64]string // replica → node
	learners map[uint64]string
	removed  map[uint64]struct{}
}

func rosterOf(m *dragonboat.Membership) *roster {
	return &roster{version: m.ConfigChangeID, voters: m.Nodes, learners: m.NonVotings, removed: m.Removed}
}

// replicas lists the members by id.
func (r *roster) replicas() []Replica {
	all := make([]Replica, 0, len(r.voters)+len(r.learners))
	for id, node := range r.voters {
		all = append(all, Replica{ID: id, Node: node, Voter: true})
	}
	for id, node := range r.learners {
		all = append(all, Replica{ID: id, Node: node})
	}
	slices.SortFunc(all, func(a, b Replica) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

// last returns the largest replica id that was ever used.
func (r *roster) last() uint64 {
	last := uint64(0)
	for _, ids := range []map[uint64]string{r.voters, r.learners} {
		for id := range ids {
			last = max(last, id)
		}
	}
	for id := range r.removed {
		last = max(last, id)
	}
	return last
}

// merge returns the best that is known of a membership here. seen, of which everything is known, was read
// with the help of the group's leader and may be old or nil; dragonboat itself says only who votes, since which
// version; members are the nodes of all replicas it told of.
func merge(seen *roster, info dragonboat.ShardInfo, members map[uint64]string) *roster {
	if seen != nil && (info.Pending || seen.version >= info.ConfigChangeIndex) {
		return seen
	}
	r := &roster{version: info.ConfigChangeIndex, voters: info.Replicas, learners: map[uint64]string{}}
	for id, node := range members {
		if _, votes := r.voters[id]; !votes {
			r.learners[id] = node
		}
	}
	if seen != nil {
		r.removed = maps.Clone(seen.removed)
		for _, ids := range []map[uint64]string{seen.voters, seen.learners} {
			for id := range ids {
				_, votes := r.voters[id]
				_, learns := r.learners[id]
				if !votes && !learns {
					if r.removed == nil {
						r.removed = map[uint64]struct{}{}
					}
					r.removed[id] = struct{}{}
				}
			}
		}
	}
	return r
}

// step is what a Change asks of Raft.
type step uint8

const (
	stepNone step = iota
	stepAdd
	stepPromote
	stepRemove
)

// decide tells what a change of a membership comes to, or why it can not be. self is the replica that leads.
func decide(r *roster, c Change, self uint64) (step, error) {
	const op = "store.change"
	if (c.Add == nil) == (c.Remove == 0) {
		return stepNone, fault.New(fault.Invalid, op, "", "a change either adds a replica or removes one")
	}
	if c.Version != r.version {
		return stepNone, fault.New(fault.Conflict, op, "", "the membership has version %d, the change was decided on %d", r.version, c.Version)
	}
	if c.Remove != 0 {
		_, votes := r.voters[c.Remove]
		_, learns := r.learners[c.Remove]
		switch {
		case !votes && !learns:
			return stepNone, fault.New(fault.Conflict, op, "", "replica %d is no member", c.Remove)
		case votes && len(r.voters) == 1:
			return stepNone, fault.New(fault.Conflict, op, "", "replica %d is the only voter", c.Remove)
		case c.Remove == self:
			return stepNone, fault.New(fault.Conflict, op, "", "replica %d leads the group", c.Remove).
				WithRemedy("transfer the lead to another voter first")
		}
		return stepRemove, nil
	}
	add := *c.Add
	if add.ID == 0 || add.Node == "" {
		return stepNone, fault.New(fault.Invalid, op, "", "a replica has an id and a node")
	}
	if node, ok := r.voters[add.ID]; ok {
		return stepNone, fault.New(fault.Conflict, op, "", "replica %d is a voter already, on node %s", add.ID, node)
	}
	if _, ok := r.removed[add.ID]; ok {
		return stepNone, fault.New(fault.Conflict, op, "", "replica id %d was removed: it is never used again", add.ID)
	}
	node, learns := r.learners[add.ID]
	switch {
	case learns && node != add.Node:
		return stepNone, fault.New(fault.Conflict, op, "", "replica %d lives on node %s", add.ID, node)
	case learns && !add.Voter:
		return stepNone, fault.New(fault.Conflict, op, "", "replica %d learns already", add.ID)
	case learns:
		return stepPromote, nil
	case add.Voter:
		return stepNone, fault.New(fault.Invalid, op, "", "replica %d is no member", add.ID).
			WithRemedy("add it as a learner, wait until it has caught up, then promote it")
	}
	for _, other := range r.replicas() {
		if other.Node == add.Node {
			return stepNone, fault.New(fault.Conflict, op, "", "node %s has replica %d of the group", add.Node, other.ID).
				WithRemedy("remove that replica first")
		}
	}
	return stepAdd, nil
}
