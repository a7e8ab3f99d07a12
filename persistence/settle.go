package persistence

import (
	"sync"
	"time"
)

// A replica that does not lead puts off the commit of what it applied, so that one transaction with one sync holds many
// entries. Raft allows that: an entry is durable by the logs of a quorum, and after a crash the log is
// replayed from the applied index that is on disk. What Update returns, Raft believes applied, so everything that
// acts on an applied entry settles first:
//
//	Update ─► batch, pending ─┬─ full ──────────────────────────────────────────► commit
//	                          ├─ settleAfter later ─ settler ───────────────────► commit
//	                          ├─ this node leads ─ every Update ────────────────► commit
//	                          └─ an Append's answer, a Barrier, a Backup, Raft's
//	                             Sync (before it cuts the log), a snapshot, Close ► commit
//
// Why: dragonboat hands over what it replays one entry at a time where it lies beside a change of the lead or of the
// members, so a replica that came back would make a transaction of each entry, 30 a second on a busy disk.
const (
	settleAfter = tick * time.Millisecond // a reader of the replica's own store is at most so far behind
	settleBytes = txnBytes / 2            // of a batch
	settleRows  = txnRows / 2             // of a batch: a row is looked for by going through all of them
)

// later tells whether what was applied may wait for more; it needs lock.
func (s *stateMachine) later() bool {
	return s.follows != nil && s.follows(s.shard) && s.size() < settleBytes && s.batch.rows() < settleRows
}

// settle returns when all that was applied is on disk.
func (s *stateMachine) settle() error {
	if !s.pending.Load() {
		return nil
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.settled()
}

// settled is settle for who holds lock.
func (s *stateMachine) settled() error {
	if s.broken != nil || !s.pending.Load() {
		return s.broken
	}
	return s.commitAll()
}

// commitAll commits the batch; it needs lock. After an error the state in memory is not that on disk, and nothing goes on.
func (s *stateMachine) commitAll() error {
	if s.broken = s.flush(); s.broken != nil {
		return s.broken
	}
	s.pending.Store(false)
	if s.grown != nil {
		s.grown(s.shard, s.grew, s.meta.applied)
	}
	s.grew = 0
	return nil
}

// settler commits what the replicas of a node have put off, all of them at once: their batches become one transaction.
type settler struct {
	settle func() // whatever is pending
	wake   chan struct{}
	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

func newSettler(settle func()) *settler {
	x := &settler{settle: settle, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	x.wg.Go(x.run)
	return x
}

// soon has everything settled after settleAfter; it never waits.
func (x *settler) soon() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// close ends the settler; what is pending stays so.
func (x *settler) close() {
	x.once.Do(func() { close(x.stop) })
	x.wg.Wait()
}

func (x *settler) run() {
	wait := time.NewTimer(0)
	<-wait.C
	defer wait.Stop()
	for {
		select {
		case <-x.wake:
		case <-x.stop:
			return
		}
		wait.Reset(settleAfter)
		select {
		case <-wait.C:
			x.settle()
		case <-x.stop:
			return
		}
	}
}

// settle commits what the replicas of this node have put off, and returns when it is on disk.
func (s *store) settle() error {
	var wg sync.WaitGroup
	errs := make([]error, len(s.machines))
	for i, m := range s.machines {
		if m.pending.Load() {
			wg.Go(func() { errs[i] = m.settle() })
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
