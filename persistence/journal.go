package persistence

import (
	"context"
	"time"
)

// Limits of one Write and of one Append call. They keep a proposal well below
// Raft's entry limit and a Badger transaction below 15 % of its memtable.
//
// A large Data or Snapshot.State is stored in pieces, over 256 KiB in front of the transaction
// that makes it visible. So one Write may be larger than what several may
// weigh together: a Write over AppendMax travels alone.
const (
	KeyMax      = 512     // bytes of kind, id, or a name; an index key may have more
	IndexKeyMax = 1024    // bytes
	WriteMax    = 8 << 20 // bytes of one Write with all its events, index rows and snapshot; see Write.Size
	AppendMax   = 1 << 20 // bytes of all Writes of one Append with more than one: one proposal
	AppendCount = 4096    // Writes of one Append
	CountersMax = 4096    // counters of a shard that are not zero

	// CountersCreateMax is CountersMax for a Write that creates a journal. The rest is room
	// for journals that exist to move on in: a full shard must still be able to empty.
	CountersCreateMax = CountersMax / 4 * 3
)

// Key names one journal: the kind of a persistent actor and its id.
type Key struct{ Kind, ID string }

func (k Key) String() string { return k.Kind + "/" + k.ID }

// Write is one all-or-nothing change to one journal: its events get one row with
// sequence number After+1, and the index rows and counters change with it.
type Write struct {
	Key   Key
	After uint64    // sequence the writer believes to be the last; 0 creates the journal
	Data  []byte    // the events of this row, opaque here, not empty
	Index []Index   // ordered index rows put or deleted in the same step
	Count []Count   // counters moved in the same step
	Snap  *Snapshot // optional: replaces the journal's snapshot (at sequence After+1)

	// Erase ends the journal instead: nothing stays of it, and its key is as if it had never been used. Data is not kept. It takes no
	// Snap, and a journal of at most EraseRows rows, no row or snapshot over EraseBody; one that has more is truncated by a Write before,
	// of another Append, and that Append has no Snap of the journal. Only programs from this version on know it: who sends one sees to it that all replicas run such a program.
	Erase bool
}

// What a journal has at most that one Write erases; rows that a snapshot truncated do not count.
const (
	EraseRows = 32       // rows
	EraseBody = 16 << 10 // bytes of the Data of each row, and of the snapshot's State; see bodyWhole
)

// Snapshot is a state that stands for all rows up to and with the Write's own.
type Snapshot struct {
	State    []byte
	Truncate bool // also delete the rows that the snapshot stands for
}

// Index is one row of an ordered index of the shard.
type Index struct {
	Name   string // which index
	Key    []byte // sorted bytewise inside the index
	Value  []byte
	Delete bool
}

// Count moves a named counter of the shard by Delta. Counters are exact: they are
// kept with the data and change only together with it.
type Count struct {
	Name  string
	Delta int64
}

// Outcome answers one Write.
type Outcome struct {
	Seq uint64 // last sequence of the journal after the call, also on a conflict; 0: it does not exist
	// Err is nil, or a *fault.Error: Conflict (sequence moved on), Invalid, TooLarge (also: too much to erase at once), NoSpace (this Write
	// creates a journal), Overloaded (it needs more counters than the shard has room for).
	Err error
	Dup bool // the very same Write was already applied, or what it erases is gone; nothing changed now
}

// Row is one appended row of a journal.
type Row struct {
	Seq  uint64
	Data []byte
}

// Log is what one journal holds: the newest snapshot and the rows after it.
// A journal that does not exist has Last == 0.
type Log struct {
	SnapSeq uint64 // 0: no snapshot
	Snap    []byte
	Rows    []Row  // Seq ascending without a gap
	Last    uint64 // SnapSeq <= Last
}

// Journal is the durable memory of one shard, as its owner sees it.
//
// Append and Acquire go through Raft: they return after a quorum has them on
// disk and this replica has applied them. Reads are local: they see everything
// that an Append of this process has acknowledged. On a node that does not lead the shard,
// Append is refused at once (Unavailable) and Acquire tries until ctx ends; on one without a replica of the
// shard, everything is refused (Unavailable).
type Journal interface {
	// Acquire fences all earlier owners: it raises the shard's epoch and returns it.
	Acquire(ctx context.Context) (epoch uint64, err error)

	// Append proposes the writes as one log entry and calls done once, from any
	// goroutine, perhaps before it returns, with one Outcome for each of them in
	// order, or with an error for all: Fenced (epoch is not the current one: nothing was applied), NoSpace (half of
	// the disk reserve is gone: nothing was applied), Overloaded (nothing was applied), Timeout or Unavailable (the outcome is
	// unknown: appending the very same Write again is safe). The writes and all they refer to
	// must not change before done. done must not block: answers of the shard wait behind it.
	// A Write that its limits or the disk reserve refuse says so in its own Outcome and holds up no other.
	Append(epoch uint64, writes []Write, timeout time.Duration, done func([]Outcome, error))

	// Barrier returns when this replica has applied everything that was committed anywhere in
	// the group before the call: a Read after it is linearizable. It costs a round trip to a quorum, shared by
	// concurrent calls. A replica without a quorum answers Timeout or Unavailable. epoch is the one that is
	// current then: an owner with an older one was replaced before the call ended.
	Barrier(ctx context.Context) (epoch uint64, err error)

	// Read returns the rows after a sequence number (0: snapshot and tail). The snapshot
	// is returned only when it is newer than that number.
	Read(key Key, after uint64) (Log, error)

	// Scan walks the rows of an index with from <= key < to (to nil: to its end) in
	// order until f returns false. The slices are lent for the call.
	Scan(index string, from, to []byte, f func(key, value []byte) bool) error

	// Counters returns a copy of all counters of the shard.
	Counters() (map[string]int64, error)
}
