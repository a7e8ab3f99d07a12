package persisttest

import (
	"context"
	"sync"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Store is a persistence.Store of Memory journals that leads every shard at once.
type Store struct {
	shards []*Memory
	leads  chan persistence.Lead
	once   sync.Once

	telling sync.Mutex // of Lead and Close
	ended   bool

	cluster *Cluster // whose node it is; nil: it is alone
	name    string   // in the cluster
	closed  bool     // in a cluster, guarded by its mu
}

// leadsMax is how many changes of leadership a Store keeps for a slow reader before it holds up the test.
const leadsMax = 1024

// NewStore returns a store of n empty shards.
func NewStore(n int) *Store {
	s := &Store{leads: make(chan persistence.Lead, leadsMax+n)}
	for i := range n {
		s.shards = append(s.shards, NewMemory())
		s.leads <- persistence.Lead{Shard: i, Leading: true}
	}
	return s
}

// Shards returns the number of shards.
func (s *Store) Shards() int { return len(s.shards) }

// Journal returns the shard's journal.
func (s *Store) Journal(shard int) persistence.Journal {
	if s.cluster != nil {
		return seat{Memory: s.shards[shard], c: s.cluster, s: s, shard: shard}
	}
	return s.shards[shard]
}

// Memory returns the same journal with its hooks.
func (s *Store) Memory(shard int) *Memory { return s.shards[shard] }

// Lead makes the store report a change of leadership; after Close nobody hears of it.
func (s *Store) Lead(l persistence.Lead) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if !s.ended {
		s.leads <- l
	}
}

// Leads delivers the shards led at the start and then what Lead was told.
func (s *Store) Leads() <-chan persistence.Lead { return s.leads }

// Space reports a disk without an end.
func (s *Store) Space() persistence.Space { return persistence.Space{Free: 1 << 40} }

// Backup is refused: there are no files.
func (s *Store) Backup(context.Context, string) error {
	return fault.New(fault.Refused, "store.backup", "", "a store in memory has no backup")
}

// Close closes Leads.
func (s *Store) Close() error {
	s.once.Do(func() {
		if s.cluster != nil {
			s.cluster.mu.Lock()
			defer s.cluster.mu.Unlock()
			s.closed = true
		}
		s.telling.Lock()
		defer s.telling.Unlock()
		s.ended = true
		close(s.leads)
	})
	return nil
}

// NodeID is the node that a Store in memory says it is.
const NodeID = "00000000-0000-4000-8000-000000000001"

// Node returns NodeID, or in a Cluster the node's own.
func (s *Store) Node() string {
	if s.cluster != nil {
		return s.cluster.ids[s.name]
	}
	return NodeID
}

// Found is refused: every shard has its replica.
func (s *Store) Found(context.Context) error { return errAlone("found") }

// Groups shows a group of one for each shard.
func (s *Store) Groups() []persistence.Group {
	all := make([]persistence.Group, len(s.shards))
	for i := range all {
		all[i] = persistence.Group{Shard: i, Self: 1, Leader: 1, Term: 1, Version: 1, Last: 1, Replicas: []persistence.Replica{{ID: 1, Node: NodeID, Voter: true}}}
	}
	return all
}

// Change is refused: a store in memory has no peers.
func (s *Store) Change(context.Context, int, persistence.Change) error { return errAlone("change") }

// Join is refused.
func (s *Store) Join(context.Context, int, uint64) error { return errAlone("join") }

// Drop is refused.
func (s *Store) Drop(context.Context, int) error { return errAlone("drop") }

// Transfer is refused.
func (s *Store) Transfer(context.Context, int, uint64) error { return errAlone("transfer") }

func errAlone(op string) error {
	return fault.New(fault.Conflict, "store."+op, "", "a store in memory is alone")
}
