package persistence_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// TestCloseStopsEverything: no goroutine outlives Close, every Append is answered once, and
// what comes later is refused.
func TestCloseStopsEverything(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := open(t, persistence.Options{Shards: 4})
	var asked, answered int
	var mu sync.Mutex
	var owners []*persisttest.Owner
	for shard := range s.Shards() {
		owners = append(owners, persisttest.Own(t, s.Journal(shard)))
	}
	all := make(chan struct{}, 4000)
	for i := range uint64(1000) {
		o := owners[i%4]
		asked++
		o.J.Append(o.Epoch, []persistence.Write{task(i)}, time.Second, func(out []persistence.Outcome, err error) {
			mu.Lock()
			answered++
			mu.Unlock()
			all <- struct{}{}
		})
	}
	require.NoError(t, s.Close())
	for range asked {
		<-all
	}
	require.Equal(t, asked, answered)
	require.Empty(t, all)
	_, err := owners[0].Try(task(5000))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	_, err = owners[0].J.Acquire(context.Background())
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	led := map[int]bool{}
	for l := range s.Leads() { // closed
		led[l.Shard] = l.Leading
	}
	goleak.VerifyNone(t, before,
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

func TestLeads(t *testing.T) {
	s := open(t, persistence.Options{Shards: 5})
	led := map[int]bool{}
	for len(led) < 5 {
		l := <-s.Leads()
		require.True(t, l.Leading)
		require.False(t, led[l.Shard], "each change once")
		led[l.Shard] = true
	}
	select {
	case l := <-s.Leads():
		t.Fatal("nothing changed", l)
	default:
	}
}

// TestInFlight: a shard takes so many Appends and refuses the next at once.
func TestInFlight(t *testing.T) {
	s := open(t, persistence.Options{Shards: 1, InFlightCount: 4})
	o := persisttest.Own(t, s.Journal(0))
	hold, held := make(chan struct{}), make(chan struct{})
	o.J.Append(o.Epoch, []persistence.Write{task(0)}, time.Second, func([]persistence.Outcome, error) { close(held); <-hold })
	<-held // the shard's answers wait in this callback
	results := make(chan error, 100)
	for i := range uint64(20) {
		o.J.Append(o.Epoch, []persistence.Write{task(i + 1)}, time.Second, func(_ []persistence.Outcome, err error) { results <- err })
	}
	close(hold)
	kinds := map[fault.Kind]int{}
	for range 20 {
		kinds[fault.KindOf(<-results)]++
	}
	require.Equal(t, map[fault.Kind]int{fault.Unknown: 4, fault.Overloaded: 16}, kinds)
}
