package quota

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestARoundIsOneCount for all who came before it began; who comes while it is made, or while others grant by it, waits for the next.
func TestARoundIsOneCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counts := 0 // counts are never made side by side
		began := time.Now()
		r := newRounds(func() *task.Tally {
			counts++
			time.Sleep(time.Second) // of the fake clock
			return &task.Tally{Bytes: map[string]int64{"acme": int64(counts)}}
		})
		var wg sync.WaitGroup
		var granted atomic.Int64
		ask := func(wanted bool, round int64, at time.Duration) {
			wg.Go(func() {
				tally, leave, err := r.join(t.Context(), wanted)
				require.NoError(t, err)
				require.Equal(t, at, time.Since(began))
				require.Equal(t, round, tally.Bytes["acme"])
				time.Sleep(time.Second)
				granted.Add(1)
				leave()
			})
		}
		ask(true, 1, time.Second)
		synctest.Wait()
		for range 10 {
			ask(true, 2, 3*time.Second)
		}
		ask(false, 2, 3*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		_, _, err := r.join(ctx, true)
		require.Equal(t, fault.Timeout, fault.KindOf(err), "who has gone holds nobody up")
		wg.Wait()
		require.EqualValues(t, 12, granted.Load())
		require.Equal(t, 2, counts)
		tally, leave, err := r.join(t.Context(), false)
		require.NoError(t, err)
		require.Nil(t, tally, "nobody wanted to know")
		leave()
	})
}

// TestShardsAreCountedSideBySide, and one that does not say voids the count.
func TestShardsAreCountedSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		l := &lender{mono: func() time.Duration { return time.Hour }, shards: 64, counters: func(ctx context.Context, shard int) (map[string]int64, error) {
			select {
			case <-time.After(countWithin / 2):
			case <-ctx.Done():
			}
			if broken && shard == 7 {
				return nil, fault.New(fault.Unavailable, "test", "", "no owner")
			}
			return map[string]int64{"bytes/acme": 2}, ctx.Err()
		}}
		began := time.Now()
		tally := l.count()
		require.Equal(t, countWithin/2, time.Since(began))
		require.NotNil(t, tally)
		require.EqualValues(t, 128, tally.Bytes["acme"])
		broken = true
		require.Nil(t, l.count())
		broken = false
		require.Nil(t, l.count(), "not for a while")
	})
}
