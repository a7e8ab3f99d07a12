package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInHandKnowsTheOldest(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	var h inHand
	begin := func(n int64) *InHand { return h.begin(func() time.Time { return at(n) }) }
	oldest := func(n int64) {
		t.Helper()
		got, some := h.oldest()
		require.Equal(t, n > 0, some)
		if some {
			require.Equal(t, at(n), got)
		}
	}
	oldest(0)
	a, b, c := begin(1), begin(2), begin(3)
	oldest(1)
	b.End() // out of order
	oldest(1)
	a.End()
	oldest(3)
	a.End() // twice
	d := begin(4)
	c.End()
	oldest(4)
	d.End()
	oldest(0)
	require.Nil(t, h.open, "nothing is kept")
	e := begin(5)
	oldest(5)
	e.End()
}

func BenchmarkInHand(b *testing.B) {
	o := &Owner{now: time.Now}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o.Begin().End()
		}
	})
}
