package node

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

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
