package persistence

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// pour writes n rows to each shard from several writers at once, through whoever leads.
func (c *cluster) pour(shards, n int) {
	c.t.Helper()
	var wg sync.WaitGroup
	for shard := range shards {
		lead := c.leader(shard)
		epoch, err := lead.s.Journal(shard).Acquire(within(c.t))
		if err != nil {
			c.t.Fatal(err)
		}
		var some sync.WaitGroup
		slots := make(chan struct{}, 8)
		first := c.filled
		c.filled += n
		wg.Go(func() {
			for i := range n {
				slots <- struct{}{}
				some.Add(1)
				id := fmt.Sprint("pour-", first+i)
				lead.s.Journal(shard).Append(epoch, []Write{{Key: Key{"k", id}, Data: make([]byte, 300), Count: []Count{{"n", 1}},
					Index: []Index{{Name: "i", Key: []byte(id)}}}}, patience, func(out []Outcome, err error) {
					if err == nil {
						err = out[0].Err
					}
					if err != nil && kind(err) != fault.Unavailable {
						c.t.Error(err)
					}
					some.Done()
					<-slots
				})
			}
			some.Wait()
		})
	}
	wg.Wait()
}

// BenchmarkCatchUp measures how long a node that was stopped takes until it has what was written meanwhile, with a change
// of the lead now and then.
func BenchmarkCatchUp(b *testing.B) {
	const shards, turns, rows = 4, 6, 500
	c := formed(b, 3, Options{Shards: shards, Logger: quietLog()})
	for b.Loop() {
		late := c.nodes[2]
		for shard := range shards {
			c.handTo(shard, c.nodes[0])
		}
		late.close()
		for turn := range turns {
			for shard := range shards {
				c.handTo(shard, c.nodes[turn%2])
			}
			c.pour(shards, rows)
		}
		start := time.Now()
		late.open()
		opened := time.Since(start)
		for shard := range shards {
			late.level(shard)
		}
		took := time.Since(start)
		b.ReportMetric(opened.Seconds(), "s/open")
		b.ReportMetric(took.Seconds(), "s/level")
		b.ReportMetric(shards*turns*rows/took.Seconds(), "entries/s")
	}
}
