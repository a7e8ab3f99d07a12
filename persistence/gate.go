package persistence

import (
	"fmt"
	"regexp"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// gate decides what of a peer's messages may reach the groups: those that belong between
// peers, from a replica that may live on that peer, and nothing that dragonboat answers with a panic
// although it can be checked.
type gate struct {
	deployment uint64
	shards     int
	hosted     func(shard int) uint64                              // replica running here; 0: none
	speaks     func(group, replica uint64, node string) (may bool) // see registry
	room       func(bytes int) bool                                // is the disk still fit to be written?
}

// between peers; everything else is local to a replica, or forwarded and not wanted.
var peerMessages = map[raftpb.MessageType]bool{
	raftpb.NoOP: true, raftpb.Replicate: true, raftpb.ReplicateResp: true,
	raftpb.RequestVote: true, raftpb.RequestVoteResp: true, raftpb.RequestPreVote: true, raftpb.RequestPreVoteResp: true,
	raftpb.Heartbeat: true, raftpb.HeartbeatResp: true, raftpb.ReadIndex: true, raftpb.ReadIndexResp: true,
	raftpb.SnapshotReceived: true, raftpb.TimeoutNow: true, raftpb.RateLimit: true,
}

func refused(node, format string, args ...any) error {
	return fmt.Errorf("peer %s: %s", node, fmt.Sprintf(format, args...))
}

// messages checks a batch and leaves in it what may be delivered. An error ends the connection.
// Entries for which the disk has no room are left out like ones that were lost: the replica falls
// behind, and its group goes on without it.
func (g *gate) messages(node string, b *raftpb.MessageBatch) error {
	if b.DeploymentId != g.deployment || b.BinVer != raftio.TransportBinVersion {
		return refused(node, "deployment %d, version %d", b.DeploymentId, b.BinVer)
	}
	b.SourceAddress = "" // the peer's own word; the registry has learned who it is from the connection
	kept := b.Requests[:0]
	for i := range b.Requests {
		m := &b.Requests[i]
		if !peerMessages[m.Type] || m.From == 0 || m.To == 0 || m.ShardID == 0 || m.ShardID > uint64(g.shards) {
			return refused(node, "message %v for group %d from %d to %d", m.Type, m.ShardID, m.From, m.To)
		}
		if len(m.Entries) > 0 && m.Type != raftpb.Replicate || !raftpb.IsEmptySnapshot(m.Snapshot) {
			return refused(node, "message %v carries what it must not", m.Type)
		}
		size := 0
		for j := range m.Entries {
			if e := &m.Entries[j]; e.Type != raftpb.ApplicationEntry && e.Type != raftpb.EncodedEntry && e.Type != raftpb.ConfigChangeEntry ||
				e.Index != m.LogIndex+1+uint64(j) {
				return refused(node, "entry %d of type %d", e.Index, e.Type)
			}
			size += len(m.Entries[j].Cmd)
		}
		if g.hosted(int(m.ShardID)-1) != m.To {
			continue // it is gone, or not yet here
		}
		if !g.speaks(m.ShardID, m.From, node) {
			return refused(node, "replica %d of group %d lives on another node", m.From, m.ShardID)
		}
		if size > 0 && !g.room(size) {
			continue
		}
		kept = append(kept, *m)
	}
	b.Requests = kept
	return nil
}

var snapshotFile = regexp.MustCompile(`^snapshot-[0-9A-F]{1,16}\.[a-z]{1,16}$`)

// snapshot checks a chunk. An error ends the connection, and dragonboat begins anew later.
func (g *gate) snapshot(node string, c *raftpb.Chunk) error {
	_, voter := c.Membership.Addresses[c.ReplicaID]
	_, learner := c.Membership.NonVotings[c.ReplicaID]
	switch {
	case c.DeploymentId != g.deployment || c.BinVer != raftio.TransportBinVersion:
		return refused(node, "deployment %d, version %d", c.DeploymentId, c.BinVer)
	case c.ShardID == 0 || c.ShardID > uint64(g.shards) || c.From == 0 || c.ReplicaID == 0:
		return refused(node, "chunk for group %d from %d to %d", c.ShardID, c.From, c.ReplicaID)
	case g.hosted(int(c.ShardID)-1) != c.ReplicaID:
		return refused(node, "chunk for replica %d of group %d, which is not here", c.ReplicaID, c.ShardID)
	case c.HasFileInfo || c.Witness || len(c.Membership.Witnesses) > 0 || !snapshotFile.MatchString(c.Filepath):
		return refused(node, "chunk of a file %q", c.Filepath)
	case c.Index == 0 || c.Term == 0 || c.Membership.ConfigChangeId == 0 || !voter && !learner:
		return refused(node, "chunk at index %d, term %d", c.Index, c.Term)
	case c.FileChunkId != c.ChunkId || c.IsPoisonChunk():
		return refused(node, "chunk %d of %d", c.ChunkId, c.ChunkCount)
	case !g.speaks(c.ShardID, c.From, node):
		return refused(node, "replica %d of group %d lives on another node", c.From, c.ShardID)
	case !g.room(2 * len(c.Data)): // in a file, and then in the store
		return refused(node, "no room for a snapshot of group %d: the disk reserve is reached", c.ShardID)
	}
	return nil
}
