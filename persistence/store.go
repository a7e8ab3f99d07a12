package persistence

import "context"

// Lead says that this node gained or lost the lead of a shard. Raft's belief in a
// leader may overlap between nodes for tens of milliseconds: only a successful
// Journal.Acquire makes an owner.
type Lead struct {
	Shard   int
	Leading bool
}

// Space is how full the disk below the data directory is.
type Space struct {
	Free, Reserve uint64 // bytes
	Refusing      bool   // creating journals is refused (fault.NoSpace) until Free grows past Reserve again
}

// Store is everything durable of one node: its replicas of the shards' Raft groups
// and the one Badger database below them.
type Store interface {
	// Shards returns how many shards the data directory was created with.
	Shards() int

	// Journal returns the shard's journal, 0 <= shard < Shards().
	Journal(shard int) Journal

	// Leads delivers every change of leadership in order, starting with the
	// shards led when Open returned; it is closed by Close. The receiver may be slow:
	// changes of one shard are then merged into its last one.
	Leads() <-chan Lead

	// Space reports the disk reserve.
	Space() Space

	// Backup writes a consistent copy of every shard, each at one applied index, to dir (a
	// new folder) while the node goes on working.
	Backup(ctx context.Context, dir string) error

	// Close flushes and stops everything. It is safe to call twice.
	Close() error
}
