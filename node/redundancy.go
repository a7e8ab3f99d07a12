package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/node/api"
)

const (
	marksMax   = 2 * time.Second       // what was applied longer ago says nothing of who has caught up
	judgeAgain = 50 * time.Millisecond // before a second look, where the first could not tell a replica that is behind from one that is in time
	viewFresh  = time.Second           // what the metrics and readiness say of the whole cluster is at most so old
)

// marks is what each shard's furthest replica had applied at some look, by shard.
type marks struct {
	at      time.Time
	applied []uint64
}

func marksOf(now time.Time, c *api.Cluster) marks {
	m := marks{at: now, applied: make([]uint64, len(c.Shards))}
	for i, s := range c.Shards {
		m.applied[i] = newest(s)
	}
	return m
}

func newest(s api.Shard) (most uint64) {
	for _, r := range s.Replicas {
		most = max(most, r.Applied)
	}
	return most
}

// of returns what a shard had applied before, 0 when that is not known.
func (m marks) of(shard int) uint64 {
	if shard < len(m.applied) {
		return m.applied[shard]
	}
	return 0
}

// current tells that a replica has caught up: it lacks a few entries, or only what was written since a look a moment ago.
func current(r api.Replica, most, before uint64) bool {
	return r.Applied+placement.Defaults.Behind >= most || before > 0 && r.Applied >= before
}

// redundancy judges what a cluster can lose. A copy counts when it votes, has caught up, and is on a node that answers and stays.
func redundancy(c *api.Cluster, before marks) api.Redundancy {
	stays := map[string]bool{}
	for _, m := range c.Members {
		stays[m.Name] = m.Alive && m.Err == nil && !m.Stopping
	}
	r := api.Redundancy{Copies: c.Copies, Fewest: c.Copies}
	for _, s := range c.Shards {
		most, voters, good := newest(s), 0, 0
		for _, x := range s.Replicas {
			if !x.Voter {
				continue
			}
			voters++
			if x.Alive && stays[x.Node] && current(x, most, before.of(s.Shard)) {
				good++
			}
		}
		r.Fewest = min(r.Fewest, good)
		if good < c.Copies {
			r.Under++
		}
		if good-1 <= voters/2 { // one less is no majority
			r.Fragile++
		}
		if s.Lead == nil {
			r.Unowned++
		}
	}
	r.Whole = r.Under == 0 && r.Unowned == 0
	r.Text = verdict(r, len(c.Shards))
	return r
}

// verdict says what an operator should not do now.
func verdict(r api.Redundancy, shards int) string {
	switch {
	case r.Unowned > 0:
		return fmt.Sprintf("%d of %d shards have no owner that this node can find: start the nodes that are missing, and stop no other", r.Unowned, shards)
	case r.Under > 0 && r.Fragile > 0:
		return fmt.Sprintf("%d of %d shards have fewer than %d copies, the worst %d: do not stop another node", r.Under, shards, r.Copies, r.Fewest)
	case r.Under > 0:
		return fmt.Sprintf("%d of %d shards have fewer than %d copies, the worst %d: wait before another node is stopped", r.Under, shards, r.Copies, r.Fewest)
	case r.Copies == 1:
		return fmt.Sprintf("%d shards, 1 copy each: no node may be lost", shards)
	case r.Fragile > 0:
		return fmt.Sprintf("%d shards, %d copies each: a node that stops takes its shards along until it is back", shards, r.Copies)
	}
	return fmt.Sprintf("%d shards, %d copies each: any one node may be stopped", shards, r.Copies)
}

// lagging counts the replicas of a node that have not caught up, with the shards that have no owner to compare with, and tells how many
// entries the worst lacks.
func lagging(c *api.Cluster, name string, before marks) (count int, worst uint64) {
	for _, s := range c.Shards {
		most := newest(s)
		if s.Lead == nil {
			count++
			continue
		}
		for _, r := range s.Replicas {
			if r.Node != name || !r.Voter {
				continue
			}
			if !r.Alive || !current(r, most, before.of(s.Shard)) {
				count++
			}
			worst = max(worst, most-r.Applied)
		}
	}
	return count, worst
}

// overview is the newest view of the whole cluster, and what was applied at the look before. It is safe for many goroutines.
type overview struct {
	mu     sync.Mutex
	at     time.Time
	last   api.Cluster
	before marks // of a look at least judgeAgain before last
}

// look returns a view that is at most age older than the call. Calls at the same time share one.
func (o *overview) look(ctx context.Context, s *service, age time.Duration) (api.Cluster, marks) {
	oldest := time.Now().Add(-age)
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.at.Before(oldest) {
		return o.last, o.before
	}
	all := context.WithoutCancel(ctx) // it is for others as well; factsWithin is its limit
	o.take(all, s)
	if o.before.at.IsZero() && !o.last.Redundancy.Whole {
		t := time.NewTimer(judgeAgain)
		defer t.Stop()
		select {
		case <-t.C:
			o.take(all, s)
		case <-ctx.Done():
		}
	}
	return o.last, o.before
}

func (o *overview) take(ctx context.Context, s *service) {
	now := time.Now()
	o.before = marks{}
	if age := now.Sub(o.at); age >= judgeAgain && age <= marksMax {
		o.before = marksOf(o.at, &o.last)
	}
	o.last = s.view(ctx)
	o.at = now
	o.last.Redundancy = redundancy(&o.last, o.before)
}
