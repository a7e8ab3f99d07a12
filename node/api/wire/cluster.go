package wire

import "time"

// Cluster is the answer of GET /v1/cluster: who is there and who holds what, as the node that answers
// could find out within two seconds.
type Cluster struct {
	Cluster     string  `json:"cluster" doc:"Id; empty for a node that is alone."`
	Node        string  `json:"node" doc:"The node that answers."`
	Copies      int     `json:"copies" doc:"Replicas that each shard is to have, where there are nodes for them."`
	Coordinator *Lead   `json:"coordinator" doc:"The node that places replicas: it owns shard 0. Null while nobody does."`
	Members     []Node  `json:"members" nullable:"false"`
	Shards      []Shard `json:"shards" nullable:"false"`

	Redundancy Redundancy `json:"redundancy"`
}

// Redundancy is what a cluster can lose, as the node that answers sees it.
type Redundancy struct {
	Whole   bool   `json:"whole" doc:"Every shard has an owner and all its copies."`
	Copies  int    `json:"copies" doc:"That each shard is to have."`
	Fewest  int    `json:"fewest" doc:"That a shard has: voters that live, stay, and have caught up."`
	Under   int    `json:"under_replicated" doc:"Shards with fewer copies than that."`
	Fragile int    `json:"fragile" doc:"Shards that stop when one more of their copies does."`
	Unowned int    `json:"unowned" doc:"Shards without an owner."`
	Text    string `json:"text" doc:"For people: what not to do now."`
}

// Lead is who leads something, since when, and under which fences.
type Lead struct {
	Node  string    `json:"node"`
	Term  uint64    `json:"term" doc:"Of Raft; grows with each election."`
	Epoch uint64    `json:"epoch" doc:"What the store fences earlier owners with."`
	Since time.Time `json:"since"`
}

// Node is one member.
type Node struct {
	Name      string    `json:"name"`
	Node      string    `json:"node" doc:"Id of its data directory; a wiped node has a new one."`
	State     string    `json:"state" enum:"alive,stopping,leaving,gone"`
	Error     string    `json:"error,omitempty" doc:"Why it did not answer."`
	HTTP      string    `json:"http"`
	Zone      string    `json:"zone,omitempty"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at,omitzero"`
	Owned     int       `json:"shards_owned"`
	Replicas  int       `json:"replicas"`
	Engines   []Engine  `json:"engines" nullable:"false"`
	Disk      Disk      `json:"disk"`
}

// Shard is one Raft group.
type Shard struct {
	Shard    int       `json:"shard"`
	Lead     *Lead     `json:"lead" doc:"Null while no owner is known."`
	Version  uint64    `json:"version" doc:"Of the membership."`
	Replicas []Replica `json:"replicas" nullable:"false"`
}

// Replica is one copy of a shard.
type Replica struct {
	Node    string `json:"node" doc:"Name, or the id of a node that nobody knows any more."`
	ID      uint64 `json:"id"`
	Voter   bool   `json:"voter"`
	Applied uint64 `json:"applied" doc:"Index of its last entry; 0 when it did not answer."`
	Alive   bool   `json:"alive"`
}

// ClusterEvents is the answer of GET /v1/cluster/events, oldest first.
type ClusterEvents struct {
	Events []ClusterEvent `json:"events" nullable:"false"`
}

// ClusterEvent is a decision of the coordinator, or something that it saw.
type ClusterEvent struct {
	At      time.Time `json:"at"`
	Epoch   uint64    `json:"epoch" doc:"Of the coordinator."`
	What    string    `json:"what"`
	Shard   *int      `json:"shard,omitempty"`
	Node    string    `json:"node,omitempty"`
	Text    string    `json:"text"`
	Outcome string    `json:"outcome,omitempty"`
}

// Drain is the body and the answer of POST /v1/cluster/drain.
type Drain struct {
	Node  string `json:"node" minLength:"1" doc:"Name of the node that gives its replicas and leads away."`
	Undo  bool   `json:"undo,omitempty" doc:"Let it take part again."`
	Force bool   `json:"force,omitempty" doc:"Even where fewer nodes stay than a shard has copies."`
}
