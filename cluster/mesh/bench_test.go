package mesh

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/pki/pkitest"
)

// BenchmarkAsk is a round trip to another process over TLS on loopback, with so many in flight.
func BenchmarkAsk(b *testing.B) {
	m := benchMesh(b)
	for _, size := range []int{0, 1 << 10} {
		for _, flight := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("body=%d/flight=%d", size, flight), func(b *testing.B) {
				ask(b, m, flight, size)
			})
		}
	}
}

// BenchmarkAskLarge moves a body of 4 MiB there and back.
func BenchmarkAskLarge(b *testing.B) {
	m := benchMesh(b)
	b.SetBytes(2 * 4 << 20)
	ask(b, m, 1, 4<<20)
}

func ask(b *testing.B, m *Mesh, flight, size int) {
	ctx := b.Context()
	next := make(chan struct{}, flight)
	var wg sync.WaitGroup
	r := &Request{ID: "bench", Op: "echo", Kind: "task", Key: "0190f6c2-7e1f-7d3a-9b57-3f6e2c9a1d10", Body: make([]byte, size)}
	for range flight {
		wg.Go(func() {
			for range next {
				if _, err := m.Ask(ctx, "b", r); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "asks/s")
}

// benchMesh is the one mesh of this process; see harness_test.go.
var benchMesh = func() func(b *testing.B) *Mesh {
	var once sync.Once
	var m *Mesh
	return func(b *testing.B) *Mesh {
		once.Do(func() {
			dir := pkitest.New(b, "a", "b")
			bk := newBook()
			other := startNode(&lasting{b}, dir, "b", bk, nodeOptions{})
			m = startMesh(&lasting{b}, dir, "a", bk, Options{}, nil)
			other.do("peer a %s", m.Addr())
			require.Equal(b, "ok", other.line())
			askUntil(b, m, "b")
		})
		return m
	}
}()

// lasting keeps what a benchmark started until the process ends: the node ends with its input.
type lasting struct{ *testing.B }

func (*lasting) Cleanup(func()) {}
