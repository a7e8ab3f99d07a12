package persistence

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// store is a node's Store.
type store struct {
	opts     Options
	dir      *dataDir
	badger   *badger.DB
	db       *committer
	groups   *groups
	leads    *leads
	reserve  *reserve
	keeper   *keeper
	machines []*stateMachine
	shards   []*shard
	flight   atomic.Int64

	once sync.Once
	err  error // of Close
}

// Open opens or makes the data directory and returns when every shard that this
// node alone votes for is led by it.
//
//	lock ─► identity ─► verify what is on disk ─► Badger ─► Raft ─► campaign ─► led
func Open(o Options) (Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &store{opts: o}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) open() (err error) {
	if s.dir, err = openDataDir(s.opts); err != nil {
		return err
	}
	if s.reserve, err = newReserve(s.dir.path, s.opts.DiskReserve, s.opts.Logger, s.opts.Now); err != nil {
		return dirFault(s.dir.path, err)
	}
	log, err := s.verify()
	if err != nil {
		return err
	}
	if err := s.openBadger(); err != nil {
		return err
	}
	s.db = newCommitter(s.badger, 2*s.dir.Shards)
	s.keeper = newKeeper(s, log)
	for i := range s.dir.Shards {
		m := newStateMachine(i, s.db, s.opts.Heads/s.dir.Shards, s.keeper.grown)
		if err := m.load(); err != nil {
			return readFault(Key{Kind: "shard", ID: fmt.Sprint(i)}, err)
		}
		if s.dir.Complete {
			if err := verifyTogether(s.dir.path, i, m.meta.applied, log[i]); err != nil {
				return err
			}
		}
		s.machines = append(s.machines, m)
	}
	s.leads = newLeads(s.opts.ReplicaID, s.dir.Shards)
	s.groups, err = openGroups(s.dir.raft(), s.opts, s.dir.identity, s.leads,
		func(shard int) sm.IOnDiskStateMachine { return s.machines[shard] })
	if err != nil {
		return err
	}
	for i, m := range s.machines {
		s.shards = append(s.shards, newShard(i, m, s))
	}
	if err := s.lead(); err != nil {
		return err
	}
	s.keeper.start()
	if !s.dir.Complete {
		s.dir.Complete = true
		return s.dir.save()
	}
	return nil
}

// verify reads everything on disk of a directory that was complete once.
func (s *store) verify() (log map[int]logged, err error) {
	if !s.dir.Complete {
		return nil, nil
	}
	for _, name := range []string{"dragonboat.ds", "NODEHOST.ID"} {
		if err := readFlag(filepath.Join(s.dir.raft(), name), nil); err != nil {
			return nil, err
		}
	}
	var wg sync.WaitGroup
	var logErr, storeErr error
	wg.Go(func() { log, logErr = verifyLog(s.dir.logDir(s.dir.Host), s.opts.ReplicaID) })
	wg.Go(func() { storeErr = verifyStore(s.dir.store(), s.opts) })
	wg.Wait()
	return log, errors.Join(logErr, storeErr)
}

func (s *store) openBadger() error {
	err := recovered(func() (err error) {
		s.badger, err = badger.OpenManaged(badgerOptions(s.dir.store(), s.opts))
		return err
	})
	if err == nil || fault.KindOf(err) != fault.Unknown {
		return err
	}
	return (&fault.Error{Op: "store.open", Key: s.dir.store(), Kind: fault.Corrupt, Err: err}).WithRemedy(remedyCorrupt)
}

// lead makes this replica leader of every shard. It asks again and again, because a replica
// refuses to stand while it has not applied a change of its members.
func (s *store) lead() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.OpenTimeout)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		open := 0
		for i := range s.shards {
			if !s.leads.leading(i) {
				s.groups.campaign(i)
				open++
			}
		}
		if open == 0 {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "store.open", s.dir.path, "%d shards have no leader after OpenTimeout (%v)", open, s.opts.OpenTimeout)
		}
	}
}

// Shards returns the number of shards.
func (s *store) Shards() int { return s.dir.Shards }

// Journal returns the shard's journal.
func (s *store) Journal(shard int) Journal { return s.shards[shard] }

// Leads delivers changes of leadership.
func (s *store) Leads() <-chan Lead { return s.leads.out }

// Space looks at the disk.
func (s *store) Space() Space {
	space, err := s.reserve.look()
	if err != nil {
		return Space{Reserve: s.opts.DiskReserve, Refusing: true}
	}
	return space
}

// Close stops everything in the order of the flow, so that each part finds the next one
// alive: groups, answers, committer, Badger, lock.
func (s *store) Close() error {
	s.once.Do(func() {
		if s.keeper != nil {
			s.keeper.close()
		}
		if s.groups != nil {
			s.groups.close()
		}
		for _, h := range s.shards {
			h.close()
		}
		if s.leads != nil {
			s.leads.close()
		}
		if s.db != nil {
			s.db.close()
			s.err = s.badger.Close()
		}
		if s.dir != nil {
			s.dir.close()
		}
	})
	return s.err
}
