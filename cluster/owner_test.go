package cluster

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAClockThatIsSetBack: the shard's time neither goes back nor stands still, and the clock catches up with it.
func TestAClockThatIsSetBack(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := &Owner{now: func() time.Time { return clock }}
	begin := clock
	at := func() time.Duration { return o.Now().Sub(begin) }
	require.Zero(t, at())
	clock = begin.Add(10 * time.Minute)
	require.Equal(t, 10*time.Minute, at())
	clock = begin // set back
	require.Equal(t, 10*time.Minute, at())
	clock = begin.Add(time.Second)
	require.Equal(t, 10*time.Minute+time.Second/2, at(), "half the pace")
	require.Equal(t, 10*time.Minute+time.Second/2, at())
	require.Equal(t, begin.Add(time.Second+7*time.Second).UnixNano(), o.Local(begin.Add(10*time.Minute+time.Second/2+7*time.Second)).UnixNano())
	clock = begin.Add(-time.Minute) // and back again
	require.Equal(t, 10*time.Minute+time.Second/2, at())
	clock = begin.Add(4 * time.Minute)
	require.Equal(t, 10*time.Minute+time.Second/2+5*time.Minute/2, at())
	o.NotBefore(begin.Add(20 * time.Minute)) // what an earlier owner wrote
	require.Equal(t, 20*time.Minute, at())
	clock = begin.Add(6 * time.Minute)
	require.Equal(t, 21*time.Minute, at())
	clock = begin.Add(40 * time.Minute) // it has caught up
	require.Equal(t, 40*time.Minute, at())
	require.Equal(t, clock, o.Local(o.Now()))
}

// TestManyReadersDoNotHurryTheTime: readings of the clock reach the owner in any order, and no interval may count twice.
func TestManyReadersDoNotHurryTheTime(t *testing.T) {
	began := time.Now()
	o := &Owner{now: time.Now}
	ahead := began.Add(time.Hour)
	o.NotBefore(ahead)
	o.Now() // from here on it counts
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 20_000 {
				o.Now()
			}
		})
	}
	wg.Wait()
	passed := o.Now().Sub(ahead)
	require.LessOrEqual(t, passed, time.Since(began)/2)
	require.Positive(t, passed)
}
