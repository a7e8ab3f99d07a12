package persistence

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
)

// leads hears of leader changes from dragonboat and hands them on without ever
// blocking it: of one shard only the last state waits.
//
//	dragonboat ─► LeaderUpdated ─► standing of the shard ─► changed ─► Lead, with the leader's node ─► Leads()
//	                                    └► reign: what Append asks
type leads struct {
	self string                                      // this node's id
	node func(shard int, replica uint64) (id string) // of a replica; "" while not known
	out  chan Lead
	wake chan struct{}
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	reigns []atomic.Pointer[reign] // by shard; nil: this node does not lead

	mu      sync.Mutex
	all     []standing // by shard
	changed []int      // shards to look at, each once
}

// standing is what is known of a shard's leader.
type standing struct {
	self         uint64 // this node's replica; 0: none
	leader, term uint64
	moved        chan struct{} // closed when leader or term change; nil: nobody waits
	told         Lead          // what was delivered last
	queued       bool          // is in changed
}

// reign is a term in which this node leads a shard.
type reign struct {
	term  uint64
	ended chan struct{} // closed when the lead is lost
	until time.Time     // set before: so long the answers of what was proposed in it may still come
}

// deposedGrace is how long a lost lead's proposals may take to be answered after all: the next leader commits in
// milliseconds those that reached it, and nobody ever answers the others.
const deposedGrace = 200 * time.Millisecond

func newLeads(self string, shards int, node func(shard int, replica uint64) string) *leads {
	l := &leads{self: self, node: node, out: make(chan Lead, shards), wake: make(chan struct{}, 1), stop: make(chan struct{}),
		reigns: make([]atomic.Pointer[reign], shards), all: make([]standing, shards)}
	for i := range l.all {
		l.all[i].told.Shard = i
	}
	l.wg.Go(l.run)
	return l
}

// host names this node's replica of a shard; 0: it has none any more, and whoever led is not known.
func (l *leads) host(shard int, replica uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.all[shard]
	s.self = replica
	l.becomes(shard, 0, s.term)
}

// LeaderUpdated is called on dragonboat's only event goroutine.
func (l *leads) LeaderUpdated(i raftio.LeaderInfo) {
	shard := int(i.ShardID) - 1
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[shard].self == i.ReplicaID { // not one that was dropped meanwhile
		l.becomes(shard, i.LeaderID, i.Term)
	}
}

func (l *leads) becomes(shard int, leader, term uint64) {
	s := &l.all[shard]
	if s.moved != nil && (s.leader != leader || s.term != term) {
		close(s.moved)
		s.moved = nil
	}
	s.leader, s.term = leader, term
	now := l.reigns[shard].Load()
	leading := leader != 0 && leader == s.self
	if now != nil && (!leading || now.term != term) {
		l.reigns[shard].Store(nil)
		now.until = time.Now().Add(deposedGrace)
		close(now.ended)
		now = nil
	}
	if leading && now == nil {
		l.reigns[shard].Store(&reign{term: term, ended: make(chan struct{})})
	}
	l.lookLocked(shard)
}

// look has the shard's leader looked up again: a membership names a node more.
func (l *leads) look(shard int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if shard >= 0 && shard < len(l.all) {
		l.lookLocked(shard)
	}
}

func (l *leads) lookLocked(shard int) {
	if s := &l.all[shard]; !s.queued {
		s.queued = true
		l.changed = append(l.changed, shard)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// leading returns the term in which this node leads the shard, or nil.
func (l *leads) leading(shard int) *reign { return l.reigns[shard].Load() }

// leader returns the shard's leader, 0 while none is known, and the term.
func (l *leads) leader(shard int) (replica, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[shard].leader, l.all[shard].term
}

// watch returns the shard's leader, the term, and a channel that is closed when either changes.
func (l *leads) watch(shard int) (leader, term uint64, moved <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.all[shard]
	if s.moved == nil {
		s.moved = make(chan struct{})
	}
	return s.leader, s.term, s.moved
}

// next takes a shard that changed and what to tell of it, if anything.
func (l *leads) next() (lead Lead, tell, more bool) {
	l.mu.Lock()
	if len(l.changed) == 0 {
		l.mu.Unlock()
		return Lead{}, false, false
	}
	shard := l.changed[0]
	l.changed = l.changed[1:]
	l.all[shard].queued = false
	s := l.all[shard]
	l.mu.Unlock()

	lead = Lead{Shard: shard, Leading: s.leader != 0 && s.leader == s.self, Term: s.term}
	switch {
	case lead.Leading:
		lead.Node = l.self
	case s.leader != 0:
		lead.Node = l.node(shard, s.leader)
	}
	if !news(s.told, lead) {
		return Lead{}, false, true
	}
	l.mu.Lock() // only this goroutine moves told
	l.all[shard].told = lead
	l.mu.Unlock()
	return lead, true, true
}

// news tells whether a lead differs from the one before for somebody who acts on it. A term alone
// does when it has a leader: the lead was lost and won meanwhile.
func news(before, now Lead) bool {
	return now.Leading != before.Leading || now.Node != before.Node || now.Node != "" && now.Term != before.Term
}

func (l *leads) run() {
	defer close(l.out)
	for {
		lead, tell, more := l.next()
		switch {
		case tell:
			select {
			case l.out <- lead:
			case <-l.stop:
				return
			}
		case !more:
			select {
			case <-l.wake:
			case <-l.stop:
				return
			}
		}
	}
}

func (l *leads) close() {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
}
