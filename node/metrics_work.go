package node

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	workWithin  = 2 * time.Second // for all of it at a scrape; what was not looked at by then is left out
	unfinished  = 1000            // batches of a shard that are looked at
	behindShard = 1000            // results of a shard that are counted for one sink
)

// workCollector tells how the batches and sinks are whose shards are owned here, at the moment of a scrape. What all nodes tell adds up to all.
type workCollector struct {
	n                                               *Node // nil: it only describes
	batches, running, written, lag, behind, failing *prometheus.Desc
}

// NewWorkMetrics describes the metrics of batches and sinks; with a node it reads them.
func NewWorkMetrics(n *Node) prometheus.Collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("autoglm_"+name, help, labels, nil)
	}
	return &workCollector{
		n:       n,
		batches: d("bulk_batches", "OpenAI batches that have not ended, by status, over the shards owned here.", "status"),
		running: d("sink_running", "1 while the sink runs, 0 while it is paused.", "tenant", "sink"),
		written: d("sink_rows_total", "Results that the sink has written.", "tenant", "sink"),
		lag:     d("sink_lag_seconds", "Age of the oldest result that the sink has still to write; 0: none.", "tenant", "sink"),
		behind:  d("sink_behind_rows", "Results that the sink has still to look at, whether it wants them or not; at most 1000 of each shard are counted.", "tenant", "sink"),
		failing: d("sink_failing", "1 while the sink's destination fails.", "tenant", "sink"),
	}
}

// Describe is part of prometheus.Collector.
func (c *workCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.batches, c.running, c.written, c.lag, c.behind, c.failing} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector. What cannot be read is left out: no numbers are better than wrong ones.
func (c *workCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), workWithin)
	defer cancel()
	if by, err := c.n.unfinished(ctx); err == nil {
		for status, count := range by {
			ch <- prometheus.MustNewConstMetric(c.batches, prometheus.GaugeValue, float64(count), status)
		}
	}
	for _, o := range c.n.sys.Shards.Owners() {
		_ = sink.In(o.Scan, func(id string) bool {
			s, err := c.n.sinks.Whole(ctx, id)
			if err == nil {
				c.sink(ctx, ch, id, &s)
			}
			return ctx.Err() == nil
		})
	}
}

func (c *workCollector) sink(ctx context.Context, ch chan<- prometheus.Metric, id string, s *sink.State) {
	whose, name := tenant.Split(id)
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, whose, name)
	}
	flag := func(d *prometheus.Desc, on bool) {
		v := 0.0
		if on {
			v = 1
		}
		send(d, prometheus.GaugeValue, v)
	}
	flag(c.running, s.Phase == sink.Running)
	flag(c.failing, s.Error != nil)
	send(c.written, prometheus.CounterValue, float64(s.Count))
	if rows, err := c.n.svc.behind(ctx, whose, s.Cursor); err == nil {
		send(c.behind, prometheus.GaugeValue, float64(rows))
	}
	if oldest, err := c.n.sinks.Waiting(tenant.With(ctx, whose), s); err == nil {
		lag := time.Duration(0)
		if !oldest.IsZero() {
			lag = max(0, c.n.now().Sub(oldest))
		}
		send(c.lag, prometheus.GaugeValue, lag.Seconds())
	}
}

// unfinished counts the batches that have not ended, by status.
func (n *Node) unfinished(ctx context.Context) (map[string]int, error) {
	by := map[string]int{}
	for _, p := range []bulk.Phase{bulk.Validating, bulk.InProgress, bulk.Finalizing, bulk.Expiring, bulk.Cancelling} {
		by[p.Status()] = 0
	}
	var bad error
	for _, o := range n.sys.Shards.Owners() {
		looked := 0
		err := bulk.Unfinished(o.Scan, func(id string) bool {
			s, err := n.batches.Get(ctx, id)
			switch {
			case err != nil && fault.KindOf(err) != fault.NotFound:
				bad = err
				return false
			case err == nil && !s.Phase.Final():
				by[s.Phase.Status()]++
			}
			looked++
			return looked < unfinished
		})
		if err != nil {
			bad = err
		}
	}
	return by, bad
}

// behind counts the results of a tenant behind a cursor, as far as nothing can turn up before them any more.
func (s *service) behind(ctx context.Context, whose, text string) (rows int, err error) {
	cur, err := resultCursor(text, "")
	if err != nil {
		return 0, err
	}
	index := tenant.Index(task.IndexEnded, whose)
	for shard := range s.store.Shards() {
		var from []byte
		if last, ok := cur[shard]; ok {
			from = append(append([]byte{}, last...), 0)
		}
		p, err := s.sys.Router.Scan(ctx, shard, index, from, nil, behindShard)
		if err != nil {
			return 0, err
		}
		rows += len(p.Rows)
	}
	return rows, nil
}
