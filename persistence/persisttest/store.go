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
}

// NewStore returns a store of n empty shards.
func NewStore(n int) *Store {
	s := &Store{leads: make(chan persistence.Lead, 1024+n)}
	for i := range n {
		s.shards = append(s.shards, NewMemory())
		s.leads <- persistence.Lead{Shard: i, Leading: true}
	}
	return s
}

// Shards returns the number of shards.
func (s *Store) Shards() int { return len(s.shards) }

// Journal returns the shard's journal.
func (s *Store) Journal(shard int) persistence.Journal { return s.shards[shard] }

// Memory returns the same journal with its hooks.
func (s *Store) Memory(shard int) *Memory { return s.shards[shard] }

// Lead makes the store report a change of leadership; not after Close.
func (s *Store) Lead(l persistence.Lead) { s.leads <- l }

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
	s.once.Do(func() { close(s.leads) })
	return nil
}
