package persistence

import "context"

// Lead says who leads a shard's group: this node, another one, or nobody. Raft's belief in a
// leader may overlap between nodes for tens of milliseconds: only a successful
// Journal.Acquire makes an owner.
type Lead struct {
	Shard   int
	Leading bool   // by the replica of this node
	Node    string // id of the node that leads, "" while none is known
	Term    uint64
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
	// changes of one shard are then merged into its last one. A lead that was lost and won again meanwhile is told
	// once more, with its new Term. Of a shard without a replica here nothing is told.
	Leads() <-chan Lead

	// Space reports the disk reserve.
	Space() Space

	// Backup writes a consistent copy of every shard, each at one applied index, to dir (a
	// new folder) while the node goes on working.
	Backup(ctx context.Context, dir string) error

	// Node returns the id of this node: a UUID, made with the data directory. A wiped node is a new one.
	Node() string

	// Found makes this node the only member of all groups and leads them. It is for the one node that
	// starts a cluster: a directory that has replicas refuses (Conflict). A node that is alone was founded by Open, also
	// when it becomes part of a cluster later.
	Found(ctx context.Context) error

	// Groups returns the groups that have a replica here, by shard.
	Groups() []Group

	// Change proposes a change of a group's membership through this node's replica, which must lead the group,
	// and returns when it is applied here. Conflict: Version is not the current one, or the membership forbids the
	// change (a removed id, a second replica on a node, the only voter, the leader itself: Transfer first); Unavailable: this
	// node does not lead, or the group is not ready, and nothing was done; Timeout: the outcome is unknown.
	Change(ctx context.Context, shard int, c Change) error

	// Join starts a replica here that a Change added as a learner. The same call again is harmless; a
	// replica of another id must be dropped first, and an id that was dropped here is never used again (Conflict).
	Join(ctx context.Context, shard int, replica uint64) error

	// Drop stops this node's replica of a shard and deletes its data. Without one it does nothing. Call it after a Change
	// removed the replica: one that is a member still would be missed by its group. After an error, the same call, or the next
	// Open, goes on.
	Drop(ctx context.Context, shard int) error

	// Transfer has the leader of a shard, which is this node's replica, hand the lead to another voter, and returns when the
	// lead was seen to move there. Unavailable: this node does not lead, or yet another one does now; Invalid: to is no voter;
	// Timeout: it has not moved, or this node has not heard of it.
	Transfer(ctx context.Context, shard int, to uint64) error

	// Close flushes and stops everything. It is safe to call twice.
	Close() error
}
