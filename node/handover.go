package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence"
)

const (
	handOverWait   = 5 * time.Second        // for the leads to move away at a stop
	handOverAgain  = 100 * time.Millisecond // before those that stayed are tried again
	handOverAtOnce = 64                     // leads that move at the same time
	heirsWait      = 500 * time.Millisecond // for the others to say how far their replicas are
)

// handOver gives the leads of this node to others before it stops, so that nobody waits for an
// election. It returns when they are gone, or after handOverWait.
func (j *joint) handOver(ctx context.Context, store persistence.Store) {
	ctx, cancel := context.WithTimeout(ctx, handOverWait)
	defer cancel()
	again := time.NewTicker(handOverAgain)
	defer again.Stop()
	for {
		var led []persistence.Group
		for _, g := range store.Groups() {
			if g.Self != 0 && g.Leader == g.Self {
				led = append(led, g)
			}
		}
		if len(led) == 0 {
			return
		}
		heirs := j.heirs(ctx, store.Node())
		var stayed atomic.Int64
		var wg sync.WaitGroup
		slots := make(chan struct{}, handOverAtOnce)
		for _, g := range led {
			to := heir(g, heirs)
			if to == 0 {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				if err := store.Transfer(ctx, g.Shard, to); err != nil {
					stayed.Add(1)
					j.n.log.Debug("a lead stays", "shard", g.Shard, "err", err)
				}
			})
		}
		wg.Wait()
		if stayed.Load() == 0 {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			j.n.log.Warn("leads could not be handed over: others take them after an election", "shards", stayed.Load())
			return
		}
	}
}

// heirs asks the living nodes that stay how far their replicas are, by node id. One that does not answer in time has an empty
// report.
func (j *joint) heirs(ctx context.Context, self string) map[string]replicas.Report {
	ctx, cancel := context.WithTimeout(ctx, heirsWait)
	defer cancel()
	all := map[string]replicas.Report{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range j.list.Members() {
		if m.Node == "" || m.Node == self || m.Stopping || m.Leaving {
			continue
		}
		wg.Go(func() { j.hear(ctx, m, &mu, all) })
	}
	wg.Wait()
	return all
}

func (j *joint) hear(ctx context.Context, m members.Member, mu *sync.Mutex, all map[string]replicas.Report) {
	var r replicas.Report
	if err := j.ask(ctx, m.Name, replicas.OpReport, struct{}{}, &r); err != nil || r.Node != m.Node {
		r = replicas.Report{}
	}
	mu.Lock()
	defer mu.Unlock()
	all[m.Node] = r
}

// heir is who is to lead a group next: of its other voters on the nodes given one that has applied the most, or lacks next to
// nothing of that; 0 when there is none. Shards go to different ones.
func heir(g persistence.Group, nodes map[string]replicas.Report) uint64 {
	applied := map[uint64]uint64{} // by replica
	var ids []uint64
	most := uint64(0)
	for _, r := range g.Replicas {
		report, lives := nodes[r.Node]
		if !r.Voter || r.ID == g.Self || !lives {
			continue
		}
		ids = append(ids, r.ID)
		for _, x := range report.Groups {
			if x.Shard == g.Shard && x.Self == r.ID {
				applied[r.ID] = x.Applied
				most = max(most, x.Applied)
			}
		}
	}
	ids = slices.DeleteFunc(ids, func(id uint64) bool { return applied[id]+placement.Defaults.Behind < most })
	if len(ids) == 0 {
		return 0
	}
	return ids[g.Shard%len(ids)]
}
