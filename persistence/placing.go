package persistence

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// How replicas come to this node and go. meta.json says first what is about to be, so that
// Open can finish what a crash interrupted:
//
//	Found, Join   meta.json: replica ─► start: dragonboat's record ─► state
//	Drop          meta.json: dropping ─► stop ─► dragonboat's log ─► rows ─► meta.json: none

// eraseTimeout is how long a replica may take to let go of its files.
const eraseTimeout = 10 * time.Second

// Found makes this node the only member of all groups and leads them.
func (s *store) Found(ctx context.Context) error {
	const op = "store.found"
	s.placing.Lock()
	defer s.placing.Unlock()
	if s.opts.Network == nil || !s.dir.empty() {
		return fault.New(fault.Conflict, op, s.dir.path, "the directory has replicas").
			WithRemedy("a node with replicas belongs to a cluster that exists: let it join that one, or give it an empty data directory")
	}
	s.dir.found()
	if err := s.dir.save(); err != nil {
		return err
	}
	all := make([]int, s.dir.Shards)
	for shard := range all {
		all[shard] = shard
	}
	if err := s.start(all); err != nil {
		return err
	}
	return s.lead(ctx, all)
}

// start starts the replicas of the shards that have one. One whose id was dropped here before is
// dropped again: a crash came between two steps of Join.
func (s *store) start(shards []int) error {
	var wg sync.WaitGroup
	errs := make([]error, len(shards))
	for i, shard := range shards {
		if r := s.dir.Replicas[shard]; r.ID != 0 {
			wg.Go(func() { errs[i] = s.groups.start(shard, r) })
		}
	}
	wg.Wait()
	for i, shard := range shards {
		if fault.KindOf(errs[i]) == fault.Conflict {
			errs[i] = s.erase(context.Background(), shard)
		}
	}
	return errors.Join(errs...)
}

// Join starts a replica that a Change added as a learner.
func (s *store) Join(_ context.Context, shard int, replica uint64) error {
	const op = "store.join"
	if err := s.inRange(op, shard); err != nil {
		return err
	}
	if s.opts.Network == nil {
		return fault.New(fault.Conflict, op, "", "%w", errAlone)
	}
	if replica == 0 {
		return fault.New(fault.Invalid, op, shardName(shard), "a replica has an id")
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	r := &s.dir.Replicas[shard]
	switch {
	case r.ID == replica && !r.Dropping && s.hosted(shard) == replica:
		return nil
	case r.ID == replica && !r.Dropping: // its start failed
	case r.ID != 0:
		return fault.New(fault.Conflict, op, shardName(shard), "replica %d is here", r.ID).WithRemedy("drop it first")
	default:
		*r = localReplica{ID: replica, Joined: true}
		if err := s.dir.save(); err != nil {
			*r = localReplica{}
			return err
		}
	}
	s.keeper.forget(shard)
	err := s.groups.start(shard, *r)
	if fault.KindOf(err) == fault.Conflict { // it lived here once
		*r = localReplica{}
		return errors.Join(err, s.dir.save())
	}
	return err
}

// Drop stops this node's replica of a shard and deletes its data. When it fails, or the node
// crashes, the rest is done by the same call again or by the next Open.
func (s *store) Drop(ctx context.Context, shard int) error {
	if err := s.inRange("store.drop", shard); err != nil {
		return err
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	r := &s.dir.Replicas[shard]
	if r.ID == 0 {
		return nil
	}
	if s.opts.Network == nil {
		return fault.New(fault.Conflict, "store.drop", "", "%w", errAlone)
	}
	if !r.Dropping {
		r.Dropping = true
		if err := s.dir.save(); err != nil {
			r.Dropping = false
			return err
		}
	}
	if err := s.groups.halt(shard, r.ID); err != nil {
		return changeFault("store.drop", shard, err)
	}
	return s.erase(ctx, shard)
}

// erase deletes what is left of a replica that is marked as dropping and does not run.
func (s *store) erase(ctx context.Context, shard int) error {
	const op = "store.drop"
	r := &s.dir.Replicas[shard]
	ctx, cancel := context.WithTimeout(ctx, eraseTimeout)
	defer cancel()
	if err := s.groups.erase(ctx, shard, r.ID); err != nil {
		return changeFault(op, shard, err)
	}
	s.registry.RemoveShard(group(shard))
	s.members.forget(shard)
	if err := s.machines[shard].reset(); err != nil {
		return changeFault(op, shard, err)
	}
	old := *r
	*r = localReplica{}
	if err := s.dir.save(); err != nil {
		*r = old
		return err
	}
	s.keeper.sweep(shard)
	return nil
}

// finishDrops does at Open what a crash left of Drop.
func (s *store) finishDrops() error {
	for shard, r := range s.dir.Replicas {
		if r.Dropping {
			if err := s.erase(context.Background(), shard); err != nil {
				return err
			}
		}
	}
	return nil
}

// lead makes this node leader of those of the shards whose only voter it is. It asks again and again,
// because a replica refuses to stand while it has not applied a change of its members.
func (s *store) lead(ctx context.Context, shards []int) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.OpenTimeout)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		open := 0
		info := s.groups.look()
		for _, shard := range shards {
			i, runs := info[shard]
			if !runs || s.leads.leading(shard) != nil {
				continue
			}
			if i.Pending { // a founder's membership is in its log; a learner may have none yet
				if !s.groups.joined[shard].Load() {
					open++
				}
				continue
			}
			if _, votes := i.Replicas[s.hosted(shard)]; votes && len(i.Replicas) == 1 {
				s.groups.campaign(shard)
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
