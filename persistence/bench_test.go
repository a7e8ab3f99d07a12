package persistence_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// task is a Write like a submitted task: 300 bytes, two index rows, one counter.
func task(n uint64) persistence.Write {
	id := fmt.Sprintf("task-%016x", n*0x9e3779b97f4a7c15)
	at := binary.BigEndian.AppendUint64(nil, n)
	return persistence.Write{Key: persistence.Key{Kind: "task", ID: id}, Data: payload[n%64 : n%64+300],
		Index: []persistence.Index{{Name: "pending", Key: append(at, id...)}, {Name: "age", Key: append(at, id...)}},
		Count: []persistence.Count{{Name: "pending", Delta: 1}}}
}

var payload = func() []byte {
	b := make([]byte, 400)
	for i := range b {
		b[i] = byte(i*i*7 + i>>3)
	}
	return b
}()

// load keeps flight Appends of size writes in flight, spread over the shards, until n
// writes are durable.
func load(b testing.TB, s persistence.Store, owners []*persisttest.Owner, from, n uint64, flight, size int) {
	var next atomic.Uint64
	next.Store(from)
	var wg sync.WaitGroup
	for w := range flight {
		wg.Go(func() {
			done := make(chan error, 1)
			ws := make([]persistence.Write, 0, size)
			for {
				ws = ws[:0]
				first := next.Add(uint64(size)) - uint64(size)
				if first >= from+n {
					return
				}
				for i := range uint64(size) {
					ws = append(ws, task(first+i))
				}
				o := owners[(w+int(first))%len(owners)]
				for {
					o.J.Append(o.Epoch, ws, 10*time.Second, func(out []persistence.Outcome, err error) {
						for i := range out {
							if err == nil {
								err = out[i].Err
							}
						}
						done <- err
					})
					if err := <-done; err == nil {
						break
					} else if !b.(interface{ Failed() bool }).Failed() {
						b.Errorf("append: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func own(b testing.TB, s persistence.Store) []*persisttest.Owner {
	var owners []*persisttest.Owner
	for i := range s.Shards() {
		owners = append(owners, persisttest.Own(b, s.Journal(i)))
	}
	return owners
}

// BenchmarkAppend: one op is one durable write; flight Appends of size writes at a time.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ flight, size int }{{1, 1}, {32, 1}, {2048, 1}, {4, 256}, {16, 256}} {
		b.Run(fmt.Sprintf("flight=%d/size=%d", c.flight, c.size), func(b *testing.B) {
			s := open(b, persistence.Options{})
			owners := own(b, s)
			b.ReportAllocs()
			b.ResetTimer()
			load(b, s, owners, 0, uint64(b.N), c.flight, c.size)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// BenchmarkRead: one op reads one journal of one row, or scans 1000 index rows.
func BenchmarkRead(b *testing.B) {
	s := open(b, persistence.Options{Shards: 1})
	const n = 100_000
	load(b, s, own(b, s), 0, n, 16, 256)
	j := s.Journal(0)
	b.Run("journal", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			l, err := j.Read(task(uint64(i*7919)%n).Key, 0)
			if err != nil || l.Last != 1 {
				b.Fatal(l.Last, err)
			}
		}
	})
	b.Run("scan1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			require.NoError(b, j.Scan("pending", nil, nil, func(k, v []byte) bool { n++; return n < 1000 }))
			require.Equal(b, 1000, n)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := persistence.Open(persistence.Options{Dir: dir})
		require.NoError(b, err)
		require.NoError(b, s.Close())
	}
}
