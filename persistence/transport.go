package persistence

import (
	"context"
	"errors"
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// loneTransport is dragonboat's network of a node that is alone: it listens on nothing and
// reaches nobody. A node with peers gives dragonboat a real one in its place; the
// groups notice no difference, because members are named by id, not by address.
type loneTransport struct {
	mu         sync.Mutex
	deployment uint64
	receive    raftio.MessageHandler // hands a message to the local groups
}

var errAlone = errors.New("this node has no peers")

func newLoneTransport() *loneTransport { return &loneTransport{} }

// Create makes the transport its own factory.
func (t *loneTransport) Create(c config.NodeHostConfig, receive raftio.MessageHandler, _ raftio.ChunkHandler) raftio.ITransport {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deployment, t.receive = c.GetDeploymentID(), receive
	return t
}

func (t *loneTransport) Validate(string) bool { return true }
func (t *loneTransport) Name() string         { return "lone" }
func (t *loneTransport) Start() error         { return nil }
func (t *loneTransport) Close() error         { return nil }

func (t *loneTransport) GetConnection(context.Context, string) (raftio.IConnection, error) {
	return nil, errAlone
}

func (t *loneTransport) GetSnapshotConnection(context.Context, string) (raftio.ISnapshotConnection, error) {
	return nil, errAlone
}

// timeoutNow gives a replica the message by which a leader hands over its lead: the
// replica stands for election at once.
func (t *loneTransport) timeoutNow(group, replica uint64) {
	t.mu.Lock()
	receive, deployment := t.receive, t.deployment
	t.mu.Unlock()
	receive(raftpb.MessageBatch{DeploymentId: deployment, BinVer: raftio.TransportBinVersion,
		Requests: []raftpb.Message{{Type: raftpb.TimeoutNow, ShardID: group, To: replica, From: replica}}})
}

// registry resolves a replica to a node id and that to an address. Alone, there is one.
type registry struct {
	self    string
	mu      sync.Mutex
	targets map[raftio.NodeInfo]string
}

func newRegistry(self string) *registry {
	return &registry{self: self, targets: map[raftio.NodeInfo]string{}}
}

// Create makes the registry its own factory.
func (r *registry) Create(string, uint64, config.TargetValidator) (raftio.INodeRegistry, error) {
	return r, nil
}

func (r *registry) Close() error { return nil }

func (r *registry) Add(shard, replica uint64, target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets[raftio.GetNodeInfo(shard, replica)] = target
}

func (r *registry) Remove(shard, replica uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.targets, raftio.GetNodeInfo(shard, replica))
}

func (r *registry) RemoveShard(shard uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.targets {
		if k.ShardID == shard {
			delete(r.targets, k)
		}
	}
}

// Resolve returns the address and the key of the connection to it.
func (r *registry) Resolve(shard, replica uint64) (addr, key string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.targets[raftio.GetNodeInfo(shard, replica)]
	if !ok {
		return "", "", errAlone
	}
	return t, t, nil
}
