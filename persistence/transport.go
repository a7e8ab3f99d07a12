package persistence

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// transport carries dragonboat's messages and snapshots over a Network. Of a node that is
// alone it reaches nobody; the groups notice no difference, because members are named by
// node id, not by address.
//
//	dragonboat: one queue for each peer ─► link ─► Network.Dial ═══ Network.Accept ─► serve ─► gate ─► dragonboat
//
// What a peer sends may be anything: a frame that is not well-formed, or speaks for a replica of
// another node, ends its connection (see gate). A peer that belongs to a group can still lie
// about its contents: Raft does not defend against that, the certificates do.
type transport struct {
	network Network // nil: alone
	gate    gate
	log     *slog.Logger

	receive raftio.MessageHandler // hands messages to the local groups
	chunk   raftio.ChunkHandler
	deploy  uint64

	wg     sync.WaitGroup
	stop   chan struct{}
	once   sync.Once
	mu     sync.Mutex
	closed bool
	served map[net.Conn]string // connections that peers opened, and whose
}

// Limits of what peers may open.
const (
	peerConns   = 80 // of one peer: dragonboat has one for messages and up to 64 that send a snapshot
	acceptPause = 50 * time.Millisecond
)

var errAlone = errors.New("this node has no peers")

func newTransport(network Network, g gate, log *slog.Logger) *transport {
	return &transport{network: network, gate: g, log: log, stop: make(chan struct{}), served: map[net.Conn]string{}}
}

// Create makes the transport its own factory.
func (t *transport) Create(c config.NodeHostConfig, receive raftio.MessageHandler, chunk raftio.ChunkHandler) raftio.ITransport {
	t.deploy, t.receive, t.chunk = c.GetDeploymentID(), receive, chunk
	t.gate.deployment = t.deploy
	return t
}

// Validate accepts every name: nodes are named by UUIDs, which dragonboat checks.
func (t *transport) Validate(string) bool { return true }

// Name returns the name for dragonboat's log.
func (t *transport) Name() string { return "persistence" }

// Start begins to accept connections.
func (t *transport) Start() error {
	if t.network != nil {
		t.wg.Go(t.accept)
	}
	return nil
}

// Close ends all connections and the Network. It is safe to call twice.
func (t *transport) Close() (err error) {
	t.once.Do(func() {
		close(t.stop)
		if t.network != nil {
			err = t.network.Close()
		}
		t.mu.Lock()
		t.closed = true
		for c := range t.served {
			c.Close()
		}
		t.mu.Unlock()
		t.wg.Wait()
	})
	return err
}

// timeoutNow gives a replica of this node the message by which a leader hands over its lead: the
// replica stands for election at once.
func (t *transport) timeoutNow(group, replica uint64) {
	t.receive(raftpb.MessageBatch{DeploymentId: t.deploy, BinVer: raftio.TransportBinVersion,
		Requests: []raftpb.Message{{Type: raftpb.TimeoutNow, ShardID: group, To: replica, From: replica}}})
}

// heartbeatResp gives a leader of this node the answer of a replica to a heartbeat, without its term: the
// leader sends it what it lacks.
func (t *transport) heartbeatResp(group, from, to uint64) {
	t.receive(raftpb.MessageBatch{DeploymentId: t.deploy, BinVer: raftio.TransportBinVersion,
		Requests: []raftpb.Message{{Type: raftpb.HeartbeatResp, ShardID: group, From: from, To: to}}})
}

func (t *transport) accept() {
	for {
		conn, node, err := t.network.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // of one peer, or for a moment
			t.log.Warn("raft network does not accept", "err", err)
			select {
			case <-time.After(acceptPause):
				continue
			case <-t.stop:
				return
			}
		}
		if !t.admit(conn, node) {
			conn.Close()
			continue
		}
		t.wg.Go(func() {
			err := t.serve(conn, node)
			conn.Close()
			t.mu.Lock()
			delete(t.served, conn)
			t.mu.Unlock()
			t.log.Debug("raft connection ended", "peer", node, "err", err)
		})
	}
}

func (t *transport) admit(conn net.Conn, node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, other := range t.served {
		if other == node {
			n++
		}
	}
	if t.closed || n >= peerConns {
		t.log.Warn("raft connection refused: peerConns of that peer are open", "peer", node, "open", n)
		return false
	}
	t.served[conn] = node
	return true
}

// serve reads what a peer sends until it is wrong or ends.
func (t *transport) serve(conn net.Conn, node string) error {
	in := newFrames(conn)
	kind, b, err := in.next(helloTimeout)
	if err != nil {
		return err
	}
	if kind != frameHello {
		return errFrame
	}
	if err := checkHello(b); err != nil {
		return err
	}
	pong := appendFrame(nil, framePong)
	for {
		kind, b, err := in.next(idleTimeout)
		if err != nil {
			return err
		}
		switch kind {
		case frameMessages:
			err = recovered(func() error { return t.messages(node, b) })
		case frameChunk:
			err = recovered(func() error { return t.snapshot(node, b) })
		case framePing:
			err = writeAll(conn, pong)
		default:
			err = errFrame
		}
		if err != nil {
			if kind != framePing {
				t.log.Log(context.Background(), levelOf(err), "raft peer refused", "peer", node, "err", err)
			}
			return err
		}
	}
}

func (t *transport) messages(node string, b []byte) error {
	var batch raftpb.MessageBatch
	if err := batch.Unmarshal(b); err != nil {
		return err
	}
	if err := t.gate.messages(node, &batch); err != nil || len(batch.Requests) == 0 {
		return err
	}
	t.receive(batch)
	return nil
}

// errChunk: a snapshot that is sent again from its beginning overtakes what is left of the last try. The sender starts it
// anew, so this is no trouble by itself; a copy that stays behind is.
var errChunk = errors.New("snapshot chunk refused: the sender begins that snapshot again")

// levelOf says how loudly the end of a peer's connection is told.
func levelOf(err error) slog.Level {
	if errors.Is(err, errChunk) {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

func (t *transport) snapshot(node string, b []byte) error {
	var c raftpb.Chunk
	if err := c.Unmarshal(b); err != nil {
		return err
	}
	if err := t.gate.snapshot(node, &c); err != nil {
		return err
	}
	if !t.chunk(c) {
		return errChunk
	}
	return nil
}

// GetConnection dials a peer for messages.
func (t *transport) GetConnection(ctx context.Context, node string) (raftio.IConnection, error) {
	return t.dial(ctx, node)
}

// GetSnapshotConnection dials a peer for one snapshot.
func (t *transport) GetSnapshotConnection(ctx context.Context, node string) (raftio.ISnapshotConnection, error) {
	l, err := t.dial(ctx, node)
	if err != nil {
		return nil, err
	}
	return snapshotLink{l}, nil
}

func (t *transport) dial(ctx context.Context, node string) (*link, error) {
	if t.network == nil {
		return nil, errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := t.network.Dial(ctx, node)
	if err != nil {
		return nil, err
	}
	if err := writeAll(conn, appendHello(nil)); err != nil {
		conn.Close()
		return nil, err
	}
	return newLink(conn), nil
}
