package node

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/open-autoglm/autoglm/actors/infer"
)

// collector reads what the shards' exact counters and the store know at the moment
// of a scrape.
type collector struct {
	s                                                                            *service
	alive, replicas, behind, under, coordinates, term, epoch                     *prometheus.Desc
	tasks, deleted, waiting, owned, shards, free, reserve, refusing, up, circuit *prometheus.Desc
}

func newCollector(s *service) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("autoglm_"+name, help, labels, nil)
	}
	return &collector{
		s:           s,
		tasks:       d("tasks", "Tasks by state, over all shards owned here.", "state"),
		deleted:     d("tasks_deleted", "Tasks that there were and that are deleted, over all shards owned here: with all states of autoglm_tasks they are what was ever submitted."),
		waiting:     d("queue_depth_tasks", "Pending tasks by model and priority (0 runs first).", "model", "priority"),
		owned:       d("shards_owned", "Shards owned by this node."),
		shards:      d("shards", "Shards of the data directory."),
		free:        d("disk_free_bytes", "Free space below the data directory."),
		reserve:     d("disk_reserve_bytes", "Free space below which new tasks are refused."),
		refusing:    d("disk_refusing", "1 while new tasks are refused for want of space."),
		alive:       d("members_alive", "Nodes of the cluster that this one hears, itself included."),
		replicas:    d("replicas", "Replicas of shards on this node."),
		behind:      d("replica_behind_entries", "Entries that the replica here which is furthest behind lacks."),
		under:       d("shards_under_replicated", "Shards with fewer copies than they should have, as this node sees it: above 0, stop no other node."),
		coordinates: d("coordinator", "1 while this node coordinates the cluster; the sum over all nodes is 1."),
		term:        d("coordinator_term", "Raft's term of the coordinator's lead, as this node sees it."),
		epoch:       d("coordinator_epoch", "Epoch of the coordinator, as this node sees it."),
		up:          d("engine_up", "1 while the engine answers.", "engine"),
		circuit:     d("engine_circuit", "0 while the engine is trusted, 2 while it gets nothing because it kept failing, 1 while one task tries it.", "engine"),
	}
}

// Describe is part of prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is part of prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	tally, owned, err := c.s.tally()
	if err == nil { // no numbers are better than wrong ones
		for state, n := range tally.ByState {
			gauge(c.tasks, float64(n), state.String())
		}
		gauge(c.deleted, float64(tally.Deleted))
		for q, n := range tally.Queues() {
			gauge(c.waiting, float64(n), q.Model, strconv.Itoa(q.Priority))
		}
	}
	gauge(c.owned, float64(owned))
	gauge(c.shards, float64(c.s.store.Shards()))
	view, _ := c.s.overview.look(context.Background(), c.s, viewFresh) // it has its own limit, factsWithin
	_, behind := lagging(&view, c.s.id, marks{})
	gauge(c.alive, float64(len(c.s.sys.Router.Alive())))
	gauge(c.replicas, float64(len(c.s.store.Groups())))
	gauge(c.behind, float64(behind))
	gauge(c.under, float64(view.Redundancy.Under))
	lead := view.Coordinator
	gauge(c.coordinates, flag(lead != nil && lead.Node == c.s.id))
	if lead != nil {
		gauge(c.term, float64(lead.Term))
		gauge(c.epoch, float64(lead.Epoch))
	}
	sp := c.s.store.Space()
	gauge(c.free, float64(sp.Free))
	gauge(c.reserve, float64(sp.Reserve))
	gauge(c.refusing, flag(sp.Refusing))
	for _, e := range c.s.engines() {
		gauge(c.up, flag(e.Healthy), e.Name)
		gauge(c.circuit, map[string]float64{infer.HalfOpen.String(): 1, infer.Open.String(): 2}[e.Circuit], e.Name)
	}
}
