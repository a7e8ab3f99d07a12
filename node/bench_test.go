package node

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkSubmit is one durable task a request over HTTP, from 32 clients at once.
// The client's own cost is in the figure: it shares the process.
func BenchmarkSubmit(b *testing.B) {
	c := testConfig(b)
	c.Shards = 16
	n := boot(b, c)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var next atomic.Int64
	b.SetParallelism(16) // of 2 processors: 32 clients
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body := fmt.Sprintf(`{"task_id":"t%d","prompt":"say it","not_before":"2100-01-01T00:00:00Z"}`, next.Add(1))
			res, err := client.Post("http://"+n.HTTPAddr()+"/v1/tasks", "application/json", bytes.NewReader([]byte(body)))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusCreated {
				b.Error(res.Status)
				return
			}
		}
	})
	b.StopTimer()
	require.False(b, b.Failed())
}

// BenchmarkSealed is what sealing costs: a durable task, and a file of 4 chunks. Each is done by a node with a key and by one without
// in turn, so that what else the machine does falls on both; the medians and their ratio are reported.
func BenchmarkSealed(b *testing.B) {
	content := string(bytes.Repeat([]byte("0123456789abcde\n"), 4*255<<10/16))
	var nodes [2]*Node
	for i := range nodes {
		c := testConfig(b)
		c.Shards = 16
		if i == 1 {
			c.Encryption.KeyFile = keyFile(b)
		}
		nodes[i] = boot(b, c)
	}
	next := 0
	for _, x := range []struct {
		name string
		do   func(n *Node)
	}{
		{"submit", func(n *Node) {
			call(b, n, "POST", "/v1/tasks", map[string]any{"task_id": fmt.Sprint("t", next), "prompt": "say it", "not_before": "2100-01-01T00:00:00Z"}, nil)
		}},
		{"file", func(n *Node) { upload(b, n, "f", content) }},
	} {
		b.Run(x.name, func(b *testing.B) {
			var took [2][]time.Duration
			for b.Loop() {
				next++
				for i := range nodes {
					i = (i + next) % 2
					began := time.Now()
					x.do(nodes[i])
					took[i] = append(took[i], time.Since(began))
				}
			}
			var median [2]float64
			for i, all := range took {
				slices.Sort(all)
				median[i] = float64(all[len(all)/2])
			}
			b.ReportMetric(median[0], "ns/clear")
			b.ReportMetric(median[1], "ns/sealed")
			b.ReportMetric(median[1]/median[0], "sealed/clear")
		})
	}
}
