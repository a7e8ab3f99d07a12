package persistence

import (
	"context"
	"net"
)

// Network connects the Raft groups of this node with those of its peers. Nodes are named
// by node id (see Store.Node), never by address. Both ends are authenticated before
// a connection is handed over.
type Network interface {
	// Dial connects to a node. An unknown or unreachable node is an error at once or when ctx ends.
	Dial(ctx context.Context, node string) (net.Conn, error)

	// Accept returns the next connection that a peer opened, and the peer's node id, or
	// net.ErrClosed after Close.
	Accept() (conn net.Conn, node string, err error)

	// Close ends Accept and all connections. It is safe to call twice.
	Close() error
}

// Replica is one member of a shard's group.
type Replica struct {
	ID    uint64 `json:"id"`    // never used again in its group once removed
	Node  string `json:"node"`  // id of the node it lives on
	Voter bool   `json:"voter"` // false: it only learns, until it is promoted
}

// Group is a shard's Raft group as the replica of this node knows it: what it has applied, so it
// may be behind.
type Group struct {
	Shard    int       `json:"shard"`
	Self     uint64    `json:"self"`               // replica of this node; 0: it has none
	Leader   uint64    `json:"leader,omitempty"`   // 0: none is known
	Term     uint64    `json:"term"`               //
	Applied  uint64    `json:"applied"`            // index of the last entry in this node's store
	Version  uint64    `json:"version"`            // of the membership; Change must name it
	Replicas []Replica `json:"replicas,omitempty"` // by ID
	Last     uint64    `json:"last"`               // largest replica id ever used, removed ones included
}

// Change is one change of a group's membership.
type Change struct {
	Version uint64   `json:"version"`          // the membership it was decided on; another one by then refuses it (Conflict)
	Add     *Replica `json:"add,omitempty"`    // a new id as a learner, or a learner's id to promote it
	Remove  uint64   `json:"remove,omitempty"` // a replica's id
}
