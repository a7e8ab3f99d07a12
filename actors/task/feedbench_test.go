package task

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkFeed is the life of a row in a queue of 1,000: put, taken in a batch, deleted. waits: so many other rows wait for their time.
func BenchmarkFeed(b *testing.B) {
	const queue, batch = 1000, 64
	for _, waits := range []int{0, 500} {
		b.Run(fmt.Sprint("waits=", waits), func(b *testing.B) {
			f := newFeed("m", 5)
			f.more, f.next, f.early = false, nil, early{}
			at := time.UnixMicro(1 << 40)
			for i := range waits {
				f.put(ReadyKey{Model: "m", Priority: 5, Visible: at.Add(time.Hour), ID: fmt.Sprintf("w%06d", i)}, at)
			}
			ids := make([]string, 1<<16)
			for i := range ids {
				ids[i] = fmt.Sprintf("t%06d", i)
			}
			n := 0
			put := func() {
				f.put(ReadyKey{Model: "m", Priority: 5, Visible: at.Add(time.Duration(n) * time.Nanosecond), ID: ids[n%len(ids)], AtOnce: true}, at)
				n++
			}
			for range queue {
				put()
			}
			b.ReportAllocs()
			for i := 0; i < b.N; i += batch {
				for range batch {
					put()
				}
				for _, k := range f.take(batch, at.Add(time.Minute), Taste{}) {
					f.delete(k)
				}
				f.first(at)
			}
		})
	}
}
