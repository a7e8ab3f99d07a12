package node

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/retention"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// keepMin is longer than any retry of a write goes on, so that one that is late never begins anew what was deleted meanwhile.
const keepMin = time.Minute

func (c *Config) checkRetention(w *wrong) {
	r := c.Retention
	for name, d := range map[string]time.Duration{"tasks": r.Tasks, "batches": r.Batches, "files": r.Files, "audit": r.Audit} {
		w.when(d != 0 && d < keepMin, "retention."+name, d, "use at least %v, or 0 to keep all", keepMin)
	}
}

// openRetention lets what is kept for long enough be deleted: the node has begun to own its shards.
func (n *Node) openRetention() {
	n.sweeper = retention.New(retention.Options{
		Keep: retention.Keep(n.cfg.Retention), Router: n.sys.Router, Owners: n.sys.Shards.Owners, Tenants: n.tenants, Marks: n.sinkMarks, Batches: n.batches,
		Delete:  n.deleteUnused,
		Deleted: func(what string, count int) { n.meter.Deleted.WithLabelValues(what).Add(float64(count)) },
		Log:     n.log,
	})
	n.sweeper.Start()
}

// tenants are all that may have something: those of tasks, those of API keys, revoked ones too, and the default one.
func (n *Node) tenants(ctx context.Context) ([]string, error) {
	tally, err := n.svc.tallyAll(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]bool{tenant.Default: true}
	for name := range tally.Tenants {
		all[name] = true
	}
	keys := apikey.New(n.sys.Router, n.now)
	for after, more := "", true; more; {
		var page []apikey.Key
		if page, more, err = keys.List(ctx, "", after, apikey.ListMax); err != nil {
			return nil, err
		}
		for _, k := range page {
			all[k.Tenant], after = true, k.ID
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// sinkMarks is up to where the sinks are.
func (n *Node) sinkMarks(ctx context.Context) ([]retention.Mark, error) {
	cursors, err := n.sinks.Cursors(ctx)
	if err != nil {
		return nil, err
	}
	marks := make([]retention.Mark, 0, len(cursors))
	for id, text := range cursors {
		cur, err := resultCursor(text, "")
		if err != nil {
			return nil, err
		}
		marks = append(marks, retention.Mark{Tenant: tenant.Of(id), Last: cur})
	}
	return marks, nil
}

// deleteUnused deletes a file, by its whole id, that no batch reads.
func (n *Node) deleteUnused(ctx context.Context, id string) error {
	used, err := n.batches.Used(ctx, id)
	if err == nil && used != "" {
		err = fault.New(fault.Conflict, "node.retention", id, "batch %s reads it", used)
	}
	if err != nil {
		return err
	}
	return n.files.Delete(ctx, id)
}

// mayErase tells whether a shard's journals may be erased: a replica whose program does not know how could not go on. So all nodes that may have one,
// or get one, must be here, and say that they do.
func (j *joint) mayErase(shard int) error {
	for _, g := range j.n.store.Groups() {
		if g.Shard == shard {
			return erasable(g.Replicas, j.who().Alive())
		}
	}
	return fault.New(fault.Unavailable, "node.retention", "", "shard %d has no replica here", shard)
}

func erasable(replicas []persistence.Replica, alive []cluster.Peer) error {
	here := map[string]bool{}
	for _, p := range alive {
		if !p.Erases {
			return fault.New(fault.Unavailable, "node.retention", p.Name, "the program of that node does not know how to delete").WithRemedy("upgrade it: nothing is deleted until all nodes can")
		}
		here[p.Node] = true
	}
	for _, r := range replicas {
		if !here[r.Node] {
			return fault.New(fault.Unavailable, "node.retention", r.Node, "the node with this id has a replica and is not there: what its program can is not known").
				WithRemedy("start it; when it is lost for good, nothing is deleted until another node has taken its replicas over")
		}
	}
	return nil
}

// Delete takes a final task away, at once. It waits for the same as retention does: a sink that has planned to write a result must find it.
func (s *service) Delete(ctx context.Context, id string) error {
	whole := tenant.Own(ctx, id)
	r, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	if r.State.Final() {
		marks, err := s.marks(ctx)
		if err != nil {
			return err
		}
		if retention.Awaited(marks, whole, s.sys.Router.ShardOf(task.Key(whole)), r.EndedAt) {
			return fault.New(fault.Conflict, "task.delete", id, "a sink has not written its result yet").WithRemedy("wait for the sink, which may be paused or fail, or delete that first: autoglm sink list")
		}
	}
	_, err = s.sys.Router.Ask(ctx, task.Key(whole), &task.Forget{Ended: r.EndedAt})
	return err
}
