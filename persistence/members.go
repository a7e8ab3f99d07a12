package persistence

import (
	"context"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/raftio"
)

// members keeps the rosters of the groups that run here. dragonboat tells at once who votes; the
// rest (learners, and ids that were removed) it tells only with the help of the group's leader. So
// after every change of a membership it asks, and asks again while there is no leader.
type members struct {
	groups *groups // set before the first event
	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	seen []*roster // by shard
	due  map[int]bool
}

const (
	rosterTimeout = 500 * time.Millisecond // one question
	rosterAgain   = 100 * time.Millisecond // between two rounds of questions
	rosterAtOnce  = 16                     // groups asked at the same time
	nudgeEvery    = 200 * time.Millisecond // see nudge
)

func newMembers(shards int) *members {
	m := &members{wake: make(chan struct{}, 1), seen: make([]*roster, shards), due: map[int]bool{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// start begins to ask; the groups are open.
func (m *members) start(g *groups) {
	m.groups = g
	m.wg.Go(m.run)
}

func (m *members) close() {
	m.cancel()
	m.wg.Wait()
}

// changed has the shard's roster read; it never waits.
func (m *members) changed(shard int) {
	m.mu.Lock()
	m.due[shard] = true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// forget drops what is known of a group that has no replica here any more.
func (m *members) forget(shard int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[shard] = nil
	delete(m.due, shard)
}

// roster returns what was read last, or nil.
func (m *members) roster(shard int) *roster {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[shard]
}

// read reads the roster of a shard through its leader.
func (m *members) read(ctx context.Context, shard int) (*roster, error) {
	self := m.groups.hosted(shard)
	got, err := m.groups.host.SyncGetShardMembership(ctx, group(shard))
	if err != nil {
		return nil, err
	}
	r := rosterOf(got)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.groups.hosted(shard) == self && (m.seen[shard] == nil || m.seen[shard].version <= r.version) {
		m.seen[shard] = r
	}
	return r, nil
}

func (m *members) run() {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-m.wake:
		case <-wait.C:
		case <-m.ctx.Done():
			return
		}
		all := m.round()
		lonely := m.nudge()
		wait.Stop()
		switch {
		case !all:
			wait.Reset(rosterAgain)
		case lonely:
			wait.Reset(nudgeEvery)
		}
	}
}

// nudge makes this node's replica try again to send to learners, where it is the only voter, and tells whether
// there are any. A question for the commit index that waited for the answer of a voter when that one
// was removed waits for ever in dragonboat, and as long as one waits, learners get no heartbeats: the first
// message to a learner, lost because it was not started yet, would never be repeated.
func (m *members) nudge() (lonely bool) {
	for shard := range m.seen {
		r := m.roster(shard)
		if r == nil || len(r.voters) != 1 || len(r.learners) == 0 || m.groups.leads.leading(shard) == nil {
			continue
		}
		lonely = true
		for learner := range r.learners {
			m.groups.transport.heartbeatResp(group(shard), learner, m.groups.hosted(shard))
		}
	}
	return lonely
}

// round asks for every roster that is due, and tells whether all were answered.
func (m *members) round() (all bool) {
	info := m.groups.look()
	m.mu.Lock()
	due := m.due
	m.due = map[int]bool{}
	m.mu.Unlock()
	all = true
	slots := make(chan struct{}, rosterAtOnce)
	var wg sync.WaitGroup
	for shard := range due {
		want, runs := info[shard]
		if !runs {
			continue // it was dropped, or it learned that it was removed
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(m.ctx, rosterTimeout)
			defer cancel()
			if r, err := m.read(ctx, shard); err == nil && r.version >= want.ConfigChangeIndex {
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.due[shard], all = true, false
		})
	}
	wg.Wait()
	return all
}

// MembershipChanged is called on dragonboat's only event goroutine, like all below.
func (m *members) MembershipChanged(i raftio.NodeInfo) { m.changed(int(i.ShardID) - 1) }

// The other events are not needed.
func (m *members) NodeHostShuttingDown()                       {}
func (m *members) NodeUnloaded(raftio.NodeInfo)                {}
func (m *members) NodeDeleted(raftio.NodeInfo)                 {}
func (m *members) NodeReady(raftio.NodeInfo)                   {}
func (m *members) ConnectionEstablished(raftio.ConnectionInfo) {}
func (m *members) ConnectionFailed(raftio.ConnectionInfo)      {}
func (m *members) SendSnapshotStarted(raftio.SnapshotInfo)     {}
func (m *members) SendSnapshotCompleted(raftio.SnapshotInfo)   {}
func (m *members) SendSnapshotAborted(raftio.SnapshotInfo)     {}
func (m *members) SnapshotReceived(raftio.SnapshotInfo)        {}
func (m *members) SnapshotRecovered(raftio.SnapshotInfo)       {}
func (m *members) SnapshotCreated(raftio.SnapshotInfo)         {}
func (m *members) SnapshotCompacted(raftio.SnapshotInfo)       {}
func (m *members) LogCompacted(raftio.EntryInfo)               {}
func (m *members) LogDBCompacted(raftio.EntryInfo)             {}

var _ raftio.ISystemEventListener = (*members)(nil)

// group composes what is known here of a shard's group.
func (m *members) group(shard int, info map[int]dragonboat.ShardInfo) Group {
	g := Group{Shard: shard, Self: m.groups.hosted(shard)}
	g.Leader, g.Term = m.groups.leads.leader(shard)
	seen := m.roster(shard)
	i, runs := info[shard]
	if !runs { // it stopped itself: removed
		i.Pending = true
	}
	if seen == nil && i.Pending {
		return g
	}
	r := merge(seen, i, m.groups.registry.members(group(shard)))
	g.Version, g.Replicas, g.Last = r.version, r.replicas(), r.last()
	return g
}
