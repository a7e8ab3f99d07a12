package api

import (
	"time"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence"
)

// Cluster is who is there and who holds what.
type Cluster struct {
	Cluster     string // id; "" for a node that is alone
	Node        string // that answers
	Copies      int    // replicas that each shard is to have, where there are nodes for them
	Coordinator *Lead
	Members     []Member // by name
	Shards      []Shard
	Redundancy  Redundancy
}

// Redundancy is what a cluster can lose.
type Redundancy struct {
	Whole   bool   // every shard has an owner and all its copies
	Copies  int    // that each shard is to have
	Fewest  int    // that a shard has: voters that live, stay, and have caught up
	Under   int    // shards with fewer than Copies
	Fragile int    // shards that stop when one more copy does
	Unowned int    // shards without an owner
	Text    string // for people: what not to do
}

// Lead is who owns a shard.
type Lead struct {
	Node  string // name
	Term  uint64
	Epoch uint64
	Since time.Time
}

// Member is one node.
type Member struct {
	members.Member
	Alive    bool
	Started  time.Time
	Owned    int
	Replicas int
	Engines  []EngineStatus
	Space    persistence.Space
	Err      error // why it did not answer
}

// Shard is one Raft group.
type Shard struct {
	Shard    int
	Lead     *Lead // nil: no owner is known
	Version  uint64
	Replicas []Replica
}

// Replica is one copy of a shard.
type Replica struct {
	Node    string // name, or the id of a node that nobody knows any more
	ID      uint64
	Voter   bool
	Applied uint64
	Alive   bool
}

// ClusterEvent is a decision of the coordinator, or something that it saw.
type ClusterEvent struct {
	At      time.Time
	Epoch   uint64
	What    string
	Shard   int // -1: none
	Node    string
	Text    string
	Outcome string
}
