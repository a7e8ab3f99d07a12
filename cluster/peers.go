package cluster

import (
	"context"

	"github.com/open-autoglm/autoglm/cluster/mesh"
)

// Mesh carries requests between nodes; *mesh.Mesh is one. A node that is alone has none.
type Mesh interface {
	// Ask is one try to get an answer from a node. Its errors are faults: Unavailable (the node is unknown or
	// cannot be reached), Timeout (ctx ended), or what the handler there returned.
	Ask(ctx context.Context, node string, r *mesh.Request) (mesh.Answer, error)
	// Tell posts a request and does not wait; it may be lost. An error says that it was not sent.
	Tell(node string, r *mesh.Request) error
	// Handle serves an op, from now on.
	Handle(op string, h mesh.Handler)
}

// Peer is a node that gossip believes alive.
type Peer struct {
	Name    string // stable
	Node    string // id of its data directory; "" before it has one
	Boot    string // new at each start of the process
	Engines int    // inference engines there
	Erases  bool   // its program knows persistence.Write.Erase
	Seconds bool   // its program runs attempts of other nodes once more
	Bytes   bool   // its program counts the bytes that tenants keep
}

// Peers tells who is there, this node included. It is asked for every request: it must be quick and not block.
type Peers interface {
	// Alive returns the nodes that gossip believes alive. The slice is not changed afterwards, by either side.
	Alive() []Peer
	// Name returns the name of a node id that was seen, also when gossip believes it dead: Raft
	// may know better.
	Name(node string) (string, bool)
}

// alone is the Peers of a node without a cluster.
type alone struct{ self Peer }

func (a alone) Alive() []Peer { return []Peer{a.self} }

func (a alone) Name(node string) (string, bool) { return a.self.Name, node == a.self.Node }
