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

// TestSettledIsTheShardsTime: what was written while the clock was ahead is settled as soon as it is durable, also when the clock is
// right again; and what is written after a look is behind that look.
func TestSettledIsTheShardsTime(t *testing.T) {
	wall := time.UnixMicro(1_000_000)
	var micros atomic.Int64
	micros.Store(wall.Add(7 * time.Minute).UnixMicro())
	var saw atomic.Int64
	k := kind()
	k.Behave = func(ledger) entity.Behavior[ledger, entry] {
		return func(c *entity.Context[ledger, entry]) {
			if _, ok := c.Message().(add); ok {
				saw.Store(c.Now().UnixMicro())
				c.Commit(entry{Until: c.Now()})
			}
		}
	}
	w := newWorld(t, k, func() time.Time { return time.UnixMicro(micros.Load()) })
	o := w.shards.Owners()[0]
	w.must("a", add{1})
	micros.Store(wall.UnixMicro()) // set right
	look := o.Settled()
	require.False(t, look.Before(time.UnixMicro(saw.Load())))
	w.must("b", add{1})
	require.False(t, time.UnixMicro(saw.Load()).Before(look), "or who goes on from there would miss it")
	require.Equal(t, wall, o.Wall())
}
