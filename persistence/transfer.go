package persistence

import (
	"context"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// transferTimeout is how long a lead may take to move: Raft gives a transfer up after the election time, and then this node
// must have heard of the new leader. It takes milliseconds where the other is there.
const transferTimeout = 2 * electionRTT * tick * time.Millisecond

// Transfer hands the lead of a shard to another voter, and returns when it was seen to move. While it is under way, Appends
// are refused.
func (s *store) Transfer(ctx context.Context, shard int, to uint64) error {
	const op = "store.transfer"
	if err := s.inRange(op, shard); err != nil {
		return err
	}
	reign := s.leads.leading(shard)
	if reign == nil {
		return s.elsewhere(op, shard)
	}
	if to == s.hosted(shard) {
		return nil
	}
	if _, votes := s.groups.look()[shard].Replicas[to]; !votes {
		return fault.New(fault.Invalid, op, shardName(shard), "replica %d is no voter", to)
	}
	if err := s.groups.host.RequestLeaderTransfer(group(shard), to); err != nil {
		return changeFault(op, shard, err)
	}
	late := time.NewTimer(transferTimeout)
	defer late.Stop()
	for {
		leader, term, moved := s.leads.watch(shard)
		switch {
		case term < reign.term || leader == 0: // nobody leads at this moment
		case leader == to:
			return nil
		case term > reign.term:
			return fault.New(fault.Unavailable, op, shardName(shard), "replica %d took the lead, not %d", leader, to)
		}
		select {
		case <-moved:
		case <-late.C:
			if leader == 0 {
				return fault.New(fault.Timeout, op, shardName(shard), "no leader is known %v later", transferTimeout)
			}
			return fault.New(fault.Timeout, op, shardName(shard), "the lead stayed: replica %d did not take it in %v", to, transferTimeout).
				WithRemedy("it is behind or not to be reached; ask again when it has caught up")
		case <-ctx.Done():
			return &fault.Error{Op: op, Key: shardName(shard), Kind: fault.Timeout, Err: ctx.Err()}
		}
	}
}
