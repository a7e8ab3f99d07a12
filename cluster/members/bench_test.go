package members

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// cluster starts members with the product's own tuning.
func lan(b *testing.B, nodes int) []*List {
	var lists []*List
	var want string
	for i := range nodes {
		o := options(fmt.Sprint("n", i))
		o.Detect = DetectLAN
		if i > 0 {
			o.Join = []string{lists[0].Addr()}
			want += " "
		}
		want += o.Self.Name
		lists = append(lists, start(b, o))
	}
	sees(b, want, lists...)
	return lists
}

// BenchmarkDetect measures how long after a kill each of the others knows. Run with -benchtime 10x: one
// kill each, in clusters of three and of five on loopback.
func BenchmarkDetect(b *testing.B) {
	for _, nodes := range []int{3, 5} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			var took []time.Duration
			for range b.N {
				lists := lan(b, nodes)
				victim := lists[nodes-1]
				killed := time.Now()
				victim.gossip.Shutdown()
				var wg sync.WaitGroup
				at := make([]time.Duration, nodes-1)
				for i, l := range lists[:nodes-1] {
					wg.Go(func() {
						until(b, l, "dead", func() bool { return get(l, victim.Self().Name).Name == "" })
						at[i] = time.Since(killed)
					})
				}
				wg.Wait()
				took = append(took, at...)
				for _, l := range lists {
					l.Stop()
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms-p50")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms-max")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkFlap counts the members wrongly lost while two loops for each core never rest. Run with -benchtime 1x: it
// takes a minute.
func BenchmarkFlap(b *testing.B) {
	for range b.N {
		lists := lan(b, 3)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 * runtime.NumCPU() {
			wg.Go(func() {
				for n := 0; ; n++ {
					if n%1_000_000 == 0 {
						select {
						case <-stop:
							return
						default:
						}
					}
				}
			})
		}
		lost := 0
		changed, end := lists[0].Changed()
		for limit := time.After(time.Minute); limit != nil; {
			select {
			case <-changed:
				lost += len(lists) - len(lists[0].Members())
			case <-limit:
				limit = nil
			}
		}
		end()
		close(stop)
		wg.Wait()
		b.ReportMetric(float64(lost), "lost/min")
		for _, l := range lists {
			l.Stop()
		}
	}
}
