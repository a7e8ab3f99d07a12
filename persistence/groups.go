package persistence

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// groups is dragonboat behind what this project needs of it: start and stop replicas, propose, read, lead events,
// members, cutting the log. Shard s is Raft group s+1.
type groups struct {
	host      *dragonboat.NodeHost
	node      string
	machine   func(shard int) sm.IOnDiskStateMachine
	sessions  []*client.Session // by shard; of the kind that keeps no state
	running   []atomic.Uint64   // by shard: the replica started here; 0: none
	joined    []atomic.Bool     // by shard: whether it joined, or was founded here
	transport *transport
	registry  *registry
	leads     *leads
	once      sync.Once
}

const (
	tick         = 20 // ms: the unit of all timeouts of Raft
	electionRTT  = 20 // ticks without a leader until an election
	heartbeatRTT = 2  // ticks
	execShards   = 16 // workers of Raft steps; for the life of the data

	// raftMemoryMax bounds what one group holds in memory of entries that are not
	// applied; above it Propose is refused.
	raftMemoryMax = 64 << 20

	// queueBytesMax bounds what waits for one peer, and what came from peers and waits for one group.
	queueBytesMax = 128 << 20
)

// openGroups starts the Raft host below dir. It has no replicas yet.
func openGroups(dir string, s *store) (g *groups, err error) {
	o, id := s.opts, s.dir.identity
	g = &groups{node: id.Node, leads: s.leads, registry: s.registry, running: make([]atomic.Uint64, id.Shards), joined: make([]atomic.Bool, id.Shards),
		machine: func(shard int) sm.IOnDiskStateMachine { return s.machines[shard] }}
	g.transport = newTransport(o.Network, gate{shards: id.Shards, hosted: g.hosted, speaks: s.registry.speaks, room: s.reserve.room}, o.Logger)
	c := config.NodeHostConfig{
		DeploymentID:        id.Deployment,
		NodeHostID:          id.Node,
		NodeHostDir:         dir,
		RaftAddress:         id.Node,
		RTTMillisecond:      tick,
		RaftEventListener:   s.leads,
		SystemEventListener: s.members,
		MaxSendQueueSize:    queueBytesMax,
		MaxReceiveQueueSize: queueBytesMax,
	}
	// One log for all groups: one sync serves many of them. Both numbers of workers that
	// the log depends on are for the life of the data.
	c.Expert.LogDB = config.GetTinyMemLogDBConfig()
	c.Expert.LogDB.Shards = 1
	c.Expert.LogDB.KVMaxBytesForLevelBase = 64 << 20
	c.Expert.Engine = config.GetDefaultEngineConfig()
	c.Expert.Engine.ExecShards = execShards
	c.Expert.Engine.CommitShards = uint64(o.ApplyWorkers)
	c.Expert.Engine.ApplyShards = uint64(o.ApplyWorkers)
	c.Expert.Engine.SnapshotShards = 2 // of the node's own they write a few hundred bytes
	c.Expert.Engine.CloseShards = 2
	c.Expert.TransportFactory = g.transport
	c.Expert.NodeRegistryFactory = g.registry
	routeRaftLogs(o.Logger)
	if err := recovered(func() (err error) { g.host, err = dragonboat.NewNodeHost(c); return err }); err != nil {
		g.transport.Close() // NewNodeHost may have failed before it was started
		return nil, err
	}
	for shard := range id.Shards {
		g.sessions = append(g.sessions, g.host.GetNoOPSession(group(shard)))
	}
	return g, nil
}

func group(shard int) uint64 { return uint64(shard) + 1 }

// hosted returns the replica of a shard that runs here, or 0.
func (g *groups) hosted(shard int) uint64 { return g.running[shard].Load() }

// start starts a replica and returns when it has loaded its state. Messages reach it from the
// moment on that it is there.
func (g *groups) start(shard int, r localReplica) error {
	founders := map[uint64]dragonboat.Target{}
	if !r.Joined {
		founders[r.ID] = g.node
	}
	g.leads.host(shard, r.ID)
	err := recovered(func() error {
		return g.host.StartOnDiskReplica(founders, r.Joined,
			func(uint64, uint64) sm.IOnDiskStateMachine { return g.machine(shard) }, g.config(shard, r))
	})
	if err != nil {
		g.leads.host(shard, 0)
		if errors.Is(err, dragonboat.ErrReplicaRemoved) {
			return (&fault.Error{Op: "store.start", Key: shardName(shard), Kind: fault.Conflict, Err: err}).
				WithRemedy("replica %d was here and was dropped: its id is never used again", r.ID)
		}
		if fault.KindOf(err) == fault.Unknown {
			err = &fault.Error{Op: "store.start", Key: shardName(shard), Kind: fault.Unavailable, Err: err}
		}
		return err
	}
	g.joined[shard].Store(r.Joined)
	g.running[shard].Store(r.ID)
	return nil
}

// halt stops a replica, which may have stopped itself: it learned that it was removed.
func (g *groups) halt(shard int, replica uint64) error {
	g.running[shard].Store(0)
	g.leads.host(shard, 0)
	err := g.host.StopReplica(group(shard), replica)
	if errors.Is(err, dragonboat.ErrShardNotFound) {
		return nil
	}
	return err
}

// erase deletes the log of a replica that does not run any more.
func (g *groups) erase(ctx context.Context, shard int, replica uint64) error {
	return recovered(func() error { return g.host.SyncRemoveData(ctx, group(shard), replica) })
}

func (g *groups) config(shard int, r localReplica) config.Config {
	return config.Config{
		ShardID: group(shard), ReplicaID: r.ID,
		// Evaluated when a change is applied, so the same for all replicas for ever. Logs of a time when it
		// was off hold no change but the founding, which it does not concern.
		OrderedConfigChange: true,
		// A replica that was added as a learner stays one for dragonboat's start: its log may hold the entry that
		// added it. It becomes a voter while it loads the membership, or replays the entry, that made it one.
		IsNonVoting:     r.Joined,
		CheckQuorum:     true, // a leader that lost its quorum steps down
		PreVote:         true, // a node that comes back does not disturb the term
		ElectionRTT:     electionRTT,
		HeartbeatRTT:    heartbeatRTT,
		SnapshotEntries: 0, // the log is cut by keep.go, by bytes as well as by entries
		MaxInMemLogSize: raftMemoryMax,
		WaitReady:       true,
	}
}

// close stops every replica and the host. Appends that wait are answered.
func (g *groups) close() { g.once.Do(g.host.Close) }

// propose hands a command to the shard's leader, which must be the replica here: see link.SendMessageBatch. cmd is the caller's again after it.
func (g *groups) propose(shard int, cmd []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
	rs, err := g.host.Propose(g.sessions[shard], cmd, max(timeout, 2*tick*time.Millisecond))
	return rs, proposeFault(err)
}

// campaign makes this node's replica stand for election now instead of after the election time
// out: for a group whose only voter it is, nothing is won by waiting.
func (g *groups) campaign(shard int) {
	if r := g.hosted(shard); r != 0 {
		g.transport.timeoutNow(group(shard), r)
	}
}

// look returns what dragonboat knows of the groups that run here, by shard. It asks nobody.
func (g *groups) look() map[int]dragonboat.ShardInfo {
	all := map[int]dragonboat.ShardInfo{}
	if info := g.host.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true}); info != nil {
		for _, i := range info.ShardInfoList {
			all[int(i.ShardID)-1] = i
		}
	}
	return all
}

// cut writes a Raft snapshot (a few bytes: the state is on disk already) and drops all but the
// newest keep entries of the log.
func (g *groups) cut(shard int, keep uint64, timeout time.Duration) (*dragonboat.RequestState, error) {
	return g.host.RequestSnapshot(group(shard), dragonboat.SnapshotOption{
		OverrideCompactionOverhead: true, CompactionOverhead: keep}, timeout)
}

// proposeFault classes dragonboat's errors of handing something in: nothing was
// applied.
func proposeFault(err error) error {
	const op = "journal.append"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, dragonboat.ErrSystemBusy):
		return &fault.Error{Op: op, Kind: fault.Overloaded, Err: err}
	case errors.Is(err, dragonboat.ErrPayloadTooBig):
		return &fault.Error{Op: op, Kind: fault.TooLarge, Err: err}
	case errors.Is(err, dragonboat.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return &fault.Error{Op: op, Kind: fault.Timeout, Err: err}
	}
	return &fault.Error{Op: op, Kind: fault.Unavailable, Err: err}
}

// resultFault classes how a proposal ended.
func resultFault(r dragonboat.RequestResult) error {
	const op = "journal.append"
	switch {
	case r.Completed():
		return nil
	case r.Timeout():
		return fault.New(fault.Timeout, op, "", "no quorum in time; the outcome is unknown")
	case r.Dropped():
		return fault.New(fault.Unavailable, op, "", "the shard has no leader")
	case r.Terminated():
		return fault.New(fault.Unavailable, op, "", "the shard is being stopped; the outcome is unknown")
	}
	return fault.New(fault.Unavailable, op, "", "the proposal was aborted; the outcome is unknown")
}
