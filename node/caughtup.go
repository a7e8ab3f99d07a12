package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	caughtEvery  = 500 * time.Millisecond // between two looks at whether the replicas here have caught up
	caughtWithin = 5 * time.Minute        // after that the node is ready although they have not: it serves, and the log says so
)

// caught tells whether the replicas of this node have caught up once since it started. Until then the node is not ready, so that what
// restarts nodes one by one when they are ready does not take two copies of a shard at once.
//
// That cannot make nodes wait for each other: replicas catch up whether or not anybody is ready, a shard's leader is never behind,
// and a node waits for its own replicas only, not for those of a node that is away. Where it takes too long all the same
// (a disk without room, say) caughtWithin ends the wait.
type caught struct {
	up   atomic.Bool
	lack atomic.Int64 // replicas that had not, at the last look
}

// ready tells whether there is nothing to wait for any more, and else for what.
func (c *caught) ready() (bool, string) {
	if c.up.Load() {
		return true, ""
	}
	if n := c.lack.Load(); n > 0 {
		return false, fmt.Sprintf("%d replicas here have not caught up yet", n)
	}
	return false, "the replicas here have not been compared with the others yet"
}

// catchUp looks until the replicas here have caught up, or for caughtWithin.
func (s *service) catchUp(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, caughtWithin)
	defer cancel()
	again := time.NewTicker(caughtEvery)
	defer again.Stop()
	for {
		view, before := s.overview.look(ctx, s, judgeAgain)
		n, worst := lagging(&view, s.id, before)
		s.caught.lack.Store(int64(n))
		if n == 0 || s.store.Space().Refusing { // without room it falls behind on purpose
			s.caught.up.Store(true)
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if context.Cause(ctx) == context.DeadlineExceeded {
				s.caught.up.Store(true)
				log.Warn("replicas here have not caught up: the node is called ready all the same", "replicas", n, "entries_behind", worst, "after", caughtWithin)
			}
			return
		}
	}
}
