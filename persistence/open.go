package persistence

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// store is a node's Store.
type store struct {
	opts     Options
	dir      *dataDir
	badger   *badger.DB
	db       *committer
	registry *registry
	groups   *groups
	leads    *leads
	members  *members
	reserve  *reserve
	keeper   *keeper
	settler  *settler
	builders *builders
	machines []*stateMachine
	shards   []*shard
	flight   atomic.Int64

	placing  sync.Mutex      // held while replicas come and go; owns dir.identity after Open
	changing []chan struct{} // by shard: one Change at a time

	once sync.Once
	err  error // of Close
}

// Open opens or makes the data directory and returns when every shard that this
// node alone votes for is led by it. It does not wait for the leaders of groups that have other voters.
//
//	lock ─► identity ─► verify what is on disk ─► Badger ─► Raft ─► unfinished drops ─► replicas ─► campaign ─► led
func Open(o Options) (Store, error) {
	network := o.Network
	o, err := o.withDefaults()
	if err != nil {
		if network != nil {
			network.Close()
		}
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
	s.builders = trimBuilders(s.badger)
	s.db = newCommitter(s.badger, 2*s.dir.Shards)
	s.keeper = newKeeper(s, log)
	s.settler = newSettler(func() {
		if err := s.settle(); err != nil {
			s.opts.Logger.Error("what replicas applied cannot be committed", "err", err)
		}
	})
	for i := range s.dir.Shards {
		m := newStateMachine(i, s.db, s.opts.Heads/s.dir.Shards, s.keeper.grown)
		m.swept = s.keeper.sweep
		m.follows, m.putOff = func(shard int) bool { return s.leads.leading(shard) == nil }, s.settler.soon
		if err := m.load(); err != nil {
			return readFault(Key{Kind: "shard", ID: fmt.Sprint(i)}, err)
		}
		if s.dir.Complete && s.dir.replica(i) != 0 {
			if err := verifyTogether(s.dir.path, i, m.meta.applied, log[i]); err != nil {
				return err
			}
		}
		s.machines = append(s.machines, m)
		s.changing = append(s.changing, make(chan struct{}, 1))
	}
	s.registry = newRegistry(func(shard int) { s.leads.look(shard) })
	s.leads = newLeads(s.dir.Node, s.dir.Shards, func(shard int, replica uint64) string { return s.registry.node(group(shard), replica) })
	s.members = newMembers(s.dir.Shards)
	s.groups, err = openGroups(s.dir.raft(), s)
	if err != nil {
		return err
	}
	s.members.start(s.groups)
	if err := s.finishDrops(); err != nil {
		return err
	}
	all := make([]int, s.dir.Shards)
	for i, m := range s.machines {
		all[i] = i
		s.shards = append(s.shards, newShard(i, m, s))
	}
	if err := s.start(all); err != nil {
		return err
	}
	if err := s.lead(context.Background(), all); err != nil {
		return err
	}
	if err := s.settle(); err != nil { // what was replayed
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
	c, err := s.unlock()
	if err != nil {
		return nil, err
	}
	defer c.close()
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
	wg.Go(func() { log, logErr = verifyLog(s.dir.logDir(s.dir.Host), s.dir.logged) })
	wg.Go(func() { storeErr = verifyStore(s.dir.store(), s.opts, c) })
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

// Shards returns the number of shards.
func (s *store) Shards() int { return s.dir.Shards }

// Journal returns the shard's journal.
func (s *store) Journal(shard int) Journal { return s.shards[shard] }

// Node returns the node's id.
func (s *store) Node() string { return s.dir.Node }

// hosted returns the replica of a shard that runs here, or 0.
func (s *store) hosted(shard int) uint64 { return s.groups.hosted(shard) }

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
		if s.members != nil {
			s.members.close()
		}
		if s.groups != nil {
			s.groups.close()
		} else if s.opts.Network != nil {
			s.opts.Network.Close()
		}
		for _, h := range s.shards {
			h.close()
		}
		if s.leads != nil {
			s.leads.close()
		}
		if s.settler != nil {
			s.settler.close()
		}
		if s.db != nil {
			s.db.close()
			s.builders.close()
			s.err = s.badger.Close()
		}
		if s.dir != nil {
			s.dir.close()
		}
	})
	return s.err
}
