package node

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// aheadMax bounds how many tasks before one are counted, in each shard and together.
const aheadMax = 1000

// Explain reads the task's journal, and asks the nodes about their engines where the task waits for one.
func (s *service) Explain(ctx context.Context, id string) (x api.Explained, err error) {
	whole := tenant.Own(ctx, id)
	facts, err := s.sys.Tasks.History(cluster.Reader{Context: ctx, Router: s.sys.Router}, whole, 0)
	if err != nil {
		return x, err
	}
	if len(facts) == 0 {
		return x, fault.New(fault.NotFound, "task", id, "no such task")
	}
	steps, r, err := explain.Story(facts)
	if err != nil {
		return x, err
	}
	scene := explain.Scene{Now: s.now(), Record: &r, Newest: facts[len(facts)-1].Reason, Attempts: s.attempts}
	waits := r.State == task.Pending && (r.AtOnce || !r.NotBefore.After(scene.Now))
	if waits || r.State == task.Running {
		scene.Nodes = s.engineNodes(ctx)
	}
	if waits {
		scene.Ahead = s.ahead(ctx, whole, &r)
		scene.Quota = s.quotaOf(ctx, tenant.Of(whole), r.Spec.PriorityOr())
	}
	return api.Explained{Record: &r, Steps: steps, Why: explain.Explain(scene)}, nil
}

// quotaOf says what the tenant of a waiting task may have, and has.
func (s *service) quotaOf(ctx context.Context, whose string, priority int) (q explain.Quota) {
	terms, ok := s.sys.Quota.Terms(whose)
	if !ok {
		return q
	}
	q.May = terms.Hard.Running
	rest := quota.Terms{Hard: quota.Limits{TokensPerMinute: terms.Hard.TokensPerMinute}}
	for _, c := range terms.Classes {
		if c.Has(priority) {
			rest.Classes = append(rest.Classes, c)
		}
	}
	if rest.Hard.TokensPerMinute > 0 || len(rest.Classes) > 0 {
		q.Other = rest.String()
	}
	if t, err := s.tallyAll(ctx); err == nil {
		q.Running = int(t.Of(whose)[task.Running])
	}
	return q
}

// engineNodes asks the living nodes for their engines, within factsWithin.
func (s *service) engineNodes(ctx context.Context) (nodes []explain.Node) {
	alive := s.sys.Router.Alive()
	told := s.ask(ctx, alive)
	for _, p := range alive {
		t := told[p.Name]
		n := explain.Node{Name: cmp.Or(p.Name, s.id), Boot: p.Boot, Silent: t.err != nil}
		for _, e := range t.Engines {
			n.Engines = append(n.Engines, explain.Engine{Name: e.Name, Models: e.Models, Endpoints: e.Endpoints, Healthy: e.Healthy, Reason: e.Reason,
				Limit: e.Limit, InFlight: e.InFlight, Paused: e.Paused})
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b explain.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}

// ahead counts what is before a task in its queue, in all shards: engines take from each of them. Of other tenants' tasks only the
// operator hears.
func (s *service) ahead(ctx context.Context, id string, r *task.Record) explain.Waiting {
	ctx, cancel := context.WithTimeout(ctx, tallyWithin)
	defer cancel()
	whose := tenant.Of(id)
	w := explain.Waiting{Known: true, Own: whose != tenant.Default}
	ranges := r.Before(id, s.now())
	var mu sync.Mutex
	var wg sync.WaitGroup
	for shard := range s.store.Shards() {
		wg.Go(func() {
			n, more := 0, false
			for _, k := range ranges {
				p, err := s.sys.Router.Scan(ctx, shard, task.IndexReady, k[0], k[1], aheadMax-n)
				for _, row := range p.Rows {
					if k, ok := task.ParseReadyKey(row.Key); ok && k.ID != id && (!w.Own || tenant.Of(k.ID) == whose) {
						n++
					}
				}
				if err != nil || !p.Ended {
					more = true
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			w.Count, w.More = w.Count+n, w.More || more
		})
	}
	wg.Wait()
	if w.Count > aheadMax {
		w.Count, w.More = aheadMax, true
	}
	return w
}
