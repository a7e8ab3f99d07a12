package persistence

import (
	"errors"
	"maps"
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
)

// registry knows on which node a replica lives. It learns that from the memberships of the
// groups, and of replicas that are in none known here from those that speak as them: a new replica
// hears from a leader before it knows its group.
type registry struct {
	learned func(shard int) // called when a membership named a node; must not wait

	mu    sync.Mutex
	known map[uint64]map[uint64]string // of the memberships: by group and replica
	heard map[uint64]map[uint64]string // heardMax of each group
}

const heardMax = 16 // replicas of one group that spoke and are not in its membership here

var errNoNode = errors.New("no node is known for this replica")

func newRegistry(learned func(shard int)) *registry {
	return &registry{learned: learned, known: map[uint64]map[uint64]string{}, heard: map[uint64]map[uint64]string{}}
}

// Create makes the registry its own factory.
func (r *registry) Create(string, uint64, config.TargetValidator) (raftio.INodeRegistry, error) {
	return r, nil
}

// Close has nothing to end.
func (r *registry) Close() error { return nil }

// Add is told of the members of a group.
func (r *registry) Add(group, replica uint64, node string) {
	r.mu.Lock()
	if r.known[group] == nil {
		r.known[group] = map[uint64]string{}
	}
	r.known[group][replica] = node
	delete(r.heard[group], replica)
	r.mu.Unlock()
	r.learned(int(group) - 1)
}

// Remove is told of replicas that left their group.
func (r *registry) Remove(group, replica uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known[group], replica)
}

// RemoveShard forgets a group.
func (r *registry) RemoveShard(group uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, group)
	delete(r.heard, group)
}

// Resolve returns the node to dial, which is also the key of the queue for it.
func (r *registry) Resolve(group, replica uint64) (addr, key string, err error) {
	node := r.node(group, replica)
	if node == "" {
		return "", "", errNoNode
	}
	return node, node, nil
}

// node returns the node of a replica, or "".
func (r *registry) node(group, replica uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if node, ok := r.known[group][replica]; ok {
		return node
	}
	return r.heard[group][replica]
}

// members returns a copy of what the memberships say.
func (r *registry) members(group uint64) map[uint64]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.known[group])
}

// speaks tells whether a node may speak as a replica. One that no membership knows is believed.
func (r *registry) speaks(group, replica uint64, node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.known[group][replica]; ok {
		return known == node
	}
	heard := r.heard[group]
	if heard == nil {
		heard = map[uint64]string{}
		r.heard[group] = heard
	}
	if _, ok := heard[replica]; !ok && len(heard) >= heardMax {
		for other := range heard { // any: they speak again
			delete(heard, other)
			break
		}
	}
	heard[replica] = node
	return true
}
