package entity_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestSettledWaitsForWhatIsInHand: a goroutine that is stopped for a long time between reading the clock and adding its append is not
// passed over: who reads an index by time, up to Settled, would never see that row.
func TestSettledWaitsForWhatIsInHand(t *testing.T) {
	began := time.UnixMicro(1_000_000)
	var micros atomic.Int64
	micros.Store(began.UnixMicro())
	reached, on := make(chan struct{}), make(chan struct{})
	k := kind()
	k.Behave = func(ledger) entity.Behavior[ledger, entry] {
		return func(c *entity.Context[ledger, entry]) {
			if _, ok := c.Message().(add); ok {
				c.Commit(entry{Until: c.Now()})
				close(reached)
				<-on
			}
		}
	}
	w := newWorld(t, k, func() time.Time { return time.UnixMicro(micros.Load()) })
	o := w.shards.Owners()[0]
	asked := make(chan error, 1)
	go func() { _, err := w.ask("a", add{1}); asked <- err }()
	<-reached
	micros.Add(int64(time.Hour / time.Microsecond))
	require.Equal(t, began, o.Settled(), "an hour later it may still write what it saw")
	close(on)
	require.NoError(t, <-asked)
	require.Equal(t, began.Add(time.Hour), o.Settled())
}

// TestSettledGoesOn after a message that committed nothing, one that was refused, one that crashed, and a commit that failed.
func TestSettledGoesOn(t *testing.T) {
	var micros atomic.Int64
	w := newWorld(t, kind(), func() time.Time { return time.UnixMicro(micros.Add(1)) })
	o := w.shards.Owners()[0]
	settled := func() {
		t.Helper()
		before := time.UnixMicro(micros.Load())
		require.False(t, o.Settled().Before(before))
	}
	w.must("a", get{})
	settled()
	_, err := w.ask("a", add{-1})
	require.Error(t, err)
	settled()
	_, err = w.ask("a", boom{})
	require.Error(t, err)
	settled()
	w.mem.FailCreate = func(persistence.Key) error { return fault.New(fault.NoSpace, "test", "", "no room") }
	_, err = w.ask("b", add{1})
	require.Error(t, err)
	settled()
}
