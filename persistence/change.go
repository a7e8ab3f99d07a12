package persistence

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/lni/dragonboat/v4"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	// A change that was handed in while the leader died is never answered: each step has its time.
	changeTimeout = 2 * time.Second
	cutTries      = 10 // looks whether the log was really cut
	learnMax      = 64 // entries that a new replica may get one by one
)

// Groups returns the groups that have a replica here, by shard.
func (s *store) Groups() []Group {
	info := s.groups.look()
	var all []Group
	for shard := range s.dir.Shards {
		if s.hosted(shard) == 0 {
			continue
		}
		g := s.members.group(shard, info)
		g.Applied = s.machines[shard].applied.Load()
		all = append(all, g)
	}
	return all
}

// Change works only on the node that leads the group: its replica knows at once that the group is ready
// for a change. On another one it answers Unavailable and names the leader.
//
//	leader? ─► read the membership ─► decide ─► (cut the log) ─► propose with the version ─► applied here
func (s *store) Change(ctx context.Context, shard int, c Change) error {
	const op = "store.change"
	if err := s.inRange(op, shard); err != nil {
		return err
	}
	select {
	case s.changing[shard] <- struct{}{}:
		defer func() { <-s.changing[shard] }()
	case <-ctx.Done():
		return &fault.Error{Op: op, Key: shardName(shard), Kind: fault.Timeout, Err: ctx.Err()}
	}
	if s.leads.leading(shard) == nil {
		return s.elsewhere(op, shard)
	}
	read, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	r, err := s.members.read(read, shard)
	if err != nil {
		return changeFault(op, shard, err)
	}
	do, err := decide(r, c, s.hosted(shard))
	if err != nil {
		return err
	}
	if do == stepAdd {
		if err := s.growable(ctx, shard); err != nil {
			return err
		}
		s.shorten(ctx, shard)
	}
	var rs *dragonboat.RequestState
	switch host := s.groups.host; do {
	case stepAdd:
		rs, err = host.RequestAddNonVoting(group(shard), c.Add.ID, c.Add.Node, c.Version, changeTimeout)
	case stepPromote:
		rs, err = host.RequestAddReplica(group(shard), c.Add.ID, c.Add.Node, c.Version, changeTimeout)
	case stepRemove:
		rs, err = host.RequestDeleteReplica(group(shard), c.Remove, c.Version, changeTimeout)
	}
	if err != nil {
		return changeFault(op, shard, err)
	}
	if err := s.await(ctx, op, shard, rs, changeTimeout); err != nil {
		return err
	}
	again, cancel := context.WithTimeout(ctx, rosterTimeout)
	defer cancel()
	if _, err := s.members.read(again, shard); err != nil { // only Groups is behind then
		s.members.changed(shard)
	}
	return nil
}

// await waits for a request about a group, at most for its own time: dragonboat's clock stands still
// in a replica that is stopped.
func (s *store) await(ctx context.Context, op string, shard int, rs *dragonboat.RequestState, timeout time.Duration) error {
	late := time.NewTimer(timeout + tick*time.Millisecond*5)
	defer late.Stop()
	select {
	case r := <-rs.ResultC():
		rs.Release()
		switch {
		case r.Completed():
			return nil
		case r.Rejected():
			return fault.New(fault.Conflict, op, shardName(shard), "the membership changed meanwhile")
		case r.Timeout():
			return fault.New(fault.Timeout, op, shardName(shard), "no quorum in time; the outcome is unknown")
		case r.Dropped():
			return fault.New(fault.Unavailable, op, shardName(shard), "the group has no leader, or another change is under way: nothing was done")
		}
		return fault.New(fault.Timeout, op, shardName(shard), "the replica was stopped; the outcome is unknown")
	case <-ctx.Done():
		return &fault.Error{Op: op, Key: shardName(shard), Kind: fault.Timeout, Err: ctx.Err()}
	case <-late.C:
		return fault.New(fault.Timeout, op, shardName(shard), "no answer in time; the outcome is unknown")
	}
}

// growable makes sure that what a new replica gets is the whole state. A directory that was
// restored began with rows that its logs know nothing of, and a replica that replays such a log from its
// first entry would lack them. So that log is cut before the first replica is added: the new one gets a snapshot.
func (s *store) growable(ctx context.Context, shard int) error {
	const op = "store.change"
	if s.dir.Whole || s.groups.joined[shard].Load() {
		return nil
	}
	if s.machines[shard].applied.Load() == 0 {
		// A snapshot of a state machine at index 0 is taken for an empty one, and not loaded: do
		// something first, that does nothing.
		rs, err := s.groups.propose(shard, appendAcquire(nil, math.MaxUint64), changeTimeout)
		if err == nil {
			err = s.await(ctx, op, shard, rs, changeTimeout)
		}
		if err != nil {
			return err
		}
	}
	for range cutTries {
		log, err := s.groups.host.GetLogReader(group(shard))
		if err != nil {
			return changeFault(op, shard, err)
		}
		if first, _ := log.GetRange(); first > 1 {
			return nil
		}
		rs, err := s.groups.cut(shard, 0, changeTimeout)
		if err == nil {
			err = s.await(ctx, op, shard, rs, changeTimeout)
		}
		if err != nil && fault.KindOf(err) != fault.Conflict && !errors.Is(err, dragonboat.ErrSystemBusy) { // Conflict: it is cut at this index already
			return changeFault(op, shard, err)
		}
		select {
		case <-time.After(2 * tick * time.Millisecond): // the entries go in the step after the snapshot
		case <-ctx.Done():
			return &fault.Error{Op: op, Key: shardName(shard), Kind: fault.Timeout, Err: ctx.Err()}
		}
	}
	return fault.New(fault.Unavailable, op, shardName(shard), "the log is not cut after cutTries (%d) looks", cutTries)
}

// shorten makes a new replica get the state in one piece instead of entry by entry: dragonboat hands a log that holds
// changes of the lead or of the members to the state machine one entry at a time, and each is a transaction with a sync of
// its own, a thousand times slower. It is an ease, not a need: when it fails, the replica comes from the log.
func (s *store) shorten(ctx context.Context, shard int) {
	log, err := s.groups.host.GetLogReader(group(shard))
	if err != nil {
		return
	}
	if first, last := log.GetRange(); last-first < learnMax {
		return
	}
	rs, err := s.groups.cut(shard, 0, changeTimeout)
	if err == nil {
		err = s.await(ctx, "store.change", shard, rs, changeTimeout)
	}
	if err != nil {
		s.opts.Logger.Debug("a log was not cut before a replica is added", "shard", shard, "err", err)
	}
}

// changeFault classes dragonboat's errors of handing in a change, or of reading a membership: nothing was done.
func changeFault(op string, shard int, err error) error {
	kind := fault.Unavailable
	switch {
	case fault.KindOf(err) != fault.Unknown:
		return err
	case errors.Is(err, dragonboat.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, dragonboat.ErrCanceled):
		kind = fault.Timeout
	case errors.Is(err, dragonboat.ErrInvalidAddress), errors.Is(err, dragonboat.ErrInvalidTarget):
		kind = fault.Invalid
	}
	return &fault.Error{Op: op, Key: shardName(shard), Kind: kind, Err: err}
}

// elsewhere says who leads, since this node does not.
func (s *store) elsewhere(op string, shard int) error {
	if s.hosted(shard) == 0 {
		return noReplica(op, shard)
	}
	leader, _ := s.leads.leader(shard)
	node := s.registry.node(group(shard), leader)
	if leader == 0 || node == "" {
		return fault.New(fault.Unavailable, op, shardName(shard), "no leader is known")
	}
	return fault.New(fault.Unavailable, op, shardName(shard), "this node does not lead it, node %s does", node)
}

func noReplica(op string, shard int) error {
	return fault.New(fault.Unavailable, op, shardName(shard), "this node has no replica of shard %d", shard)
}

func (s *store) inRange(op string, shard int) error {
	if shard < 0 || shard >= s.dir.Shards {
		return fault.New(fault.Invalid, op, "", "there are shards 0 to %d, not %d", s.dir.Shards-1, shard)
	}
	return nil
}
