package persistence

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// groups is dragonboat behind what this project needs of it: propose, lead events,
// members, cutting the log. Shard s is Raft group s+1.
type groups struct {
	host     *dragonboat.NodeHost
	replica  uint64
	sessions []*client.Session // by shard; of the kind that keeps no state
	lone     *loneTransport
}

const (
	tick         = 20 // ms: the unit of all timeouts of Raft
	electionRTT  = 20 // ticks without a leader until an election
	heartbeatRTT = 2  // ticks
	execShards   = 16 // workers of Raft steps; for the life of the data

	// raftMemoryMax bounds what one group holds in memory of entries that are not
	// applied; above it Propose is refused.
	raftMemoryMax = 64 << 20
)

// openGroups starts the Raft host below dir and one replica of every shard.
func openGroups(dir string, o Options, id identity, leads *leads, replica func(shard int) sm.IOnDiskStateMachine) (g *groups, err error) {
	g = &groups{replica: o.ReplicaID, lone: newLoneTransport()}
	c := config.NodeHostConfig{
		DeploymentID:      id.Deployment,
		NodeHostID:        id.Node,
		NodeHostDir:       dir,
		RaftAddress:       id.Node,
		RTTMillisecond:    tick,
		RaftEventListener: leads,
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
	c.Expert.Engine.SnapshotShards = 2 // they only write a few hundred bytes
	c.Expert.Engine.CloseShards = 2
	c.Expert.TransportFactory = g.lone
	c.Expert.NodeRegistryFactory = newRegistry(id.Node)
	routeRaftLogs(o.Logger)
	if err := recovered(func() (err error) { g.host, err = dragonboat.NewNodeHost(c); return err }); err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	errs := make([]error, id.Shards)
	for shard := range id.Shards {
		g.sessions = append(g.sessions, g.host.GetNoOPSession(group(shard)))
		wg.Go(func() {
			errs[shard] = recovered(func() error {
				return g.host.StartOnDiskReplica(map[uint64]dragonboat.Target{g.replica: id.Node}, false,
					func(uint64, uint64) sm.IOnDiskStateMachine { return replica(shard) }, g.config(shard))
			})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func group(shard int) uint64 { return uint64(shard) + 1 }

func (g *groups) config(shard int) config.Config {
	return config.Config{
		ShardID: group(shard), ReplicaID: g.replica,
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
func (g *groups) close() { g.host.Close() }

// propose hands a command to the shard's leader. cmd is the caller's again after it.
func (g *groups) propose(shard int, cmd []byte, timeout time.Duration) (*dragonboat.RequestState, error) {
	rs, err := g.host.Propose(g.sessions[shard], cmd, max(timeout, 2*tick*time.Millisecond))
	return rs, proposeFault(err)
}

// campaign makes this replica stand for election now instead of after the election time
// out: for a group whose only voter it is, nothing is won by waiting.
func (g *groups) campaign(shard int) { g.lone.timeoutNow(group(shard), g.replica) }

// members returns the voters of the shard's group.
func (g *groups) members(ctx context.Context, shard int) (map[uint64]string, error) {
	m, err := g.host.SyncGetShardMembership(ctx, group(shard))
	if err != nil {
		return nil, proposeFault(err)
	}
	return m.Nodes, nil
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

// leads hears of leader changes from dragonboat and hands them on without ever
// blocking it: of one shard only the last state waits.
type leads struct {
	replica uint64
	out     chan Lead
	wake    chan struct{}
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup

	mu      sync.Mutex
	now     map[int]bool // shard → led by this replica
	changed []int        // shards whose state was not handed on, each once
}

func newLeads(replica uint64, shards int) *leads {
	l := &leads{replica: replica, out: make(chan Lead, shards), wake: make(chan struct{}, 1),
		stop: make(chan struct{}), now: map[int]bool{}}
	l.wg.Go(l.run)
	return l
}

// LeaderUpdated is called on dragonboat's only event goroutine.
func (l *leads) LeaderUpdated(i raftio.LeaderInfo) {
	shard, leading := int(i.ShardID)-1, i.LeaderID == l.replica
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now[shard] == leading {
		return
	}
	l.now[shard] = leading
	for _, s := range l.changed {
		if s == shard {
			return
		}
	}
	l.changed = append(l.changed, shard)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *leads) leading(shard int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now[shard]
}

func (l *leads) run() {
	defer close(l.out)
	for {
		l.mu.Lock()
		changed := l.changed
		l.changed = nil
		l.mu.Unlock()
		for _, shard := range changed {
			select {
			case l.out <- Lead{Shard: shard, Leading: l.leading(shard)}:
			case <-l.stop:
				return
			}
		}
		select {
		case <-l.wake:
		case <-l.stop:
			return
		}
	}
}

func (l *leads) close() {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
}
