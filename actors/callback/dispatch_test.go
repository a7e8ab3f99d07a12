package callback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
)

const underWayMax = 32

type told chan *task.Called

func (t told) Ask(_ context.Context, _ persistence.Key, msg any) (any, error) {
	t <- msg.(*task.Called)
	return nil, nil
}

func dispatcher(t *testing.T, a Asker, post func(context.Context, string, *task.Record) error) *Dispatcher {
	d := NewDispatcher(a, underWayMax, underWayMax, post, func(try int, _ error) (time.Duration, bool) { return time.Duration(try) * time.Second, try == 3 },
		meter.New(prometheus.NewRegistry()), time.Now, slog.New(slog.DiscardHandler))
	t.Cleanup(d.Stop)
	return d
}

func TestDispatcherReportsEachTry(t *testing.T) {
	broken := errors.New("broken")
	got := make(told, 1)
	var answer error
	d := dispatcher(t, got, func(context.Context, string, *task.Record) error { return answer })
	for _, c := range []struct {
		answer error
		try    int
		want   task.Called
	}{
		{nil, 1, task.Called{Try: 1}},
		{broken, 2, task.Called{Try: 2, Err: broken, Wait: 2 * time.Second}},
		{broken, 3, task.Called{Try: 3, Err: broken, Wait: 3 * time.Second, GiveUp: true}},
	} {
		answer = c.answer
		d.Deliver(fmt.Sprint("t", c.try), task.Record{}, c.try)
		require.Equal(t, c.want, *<-got)
	}
}

func TestDispatcherDeliversOnceAtATimeAndIsBounded(t *testing.T) {
	hold := make(chan struct{})
	started := make(chan string, 2*underWayMax)
	got := make(told, 2*underWayMax)
	d := dispatcher(t, got, func(_ context.Context, id string, _ *task.Record) error {
		started <- id
		<-hold
		return nil
	})
	for i := range underWayMax + 10 {
		d.Deliver(fmt.Sprint("t", i), task.Record{}, 1)
		d.Deliver(fmt.Sprint("t", i), task.Record{}, 1) // the timer, impatient
	}
	for range underWayMax {
		<-started
	}
	close(hold)
	d.Stop()
	require.Empty(t, started, "neither twice nor beyond the bound")
	require.Len(t, got, underWayMax)
}

// TestADeadReceiverLeavesRoomForOthers: as many callbacks as there is room for wait for a receiver that never answers.
func TestADeadReceiverLeavesRoomForOthers(t *testing.T) {
	to := func(url string) task.Record { return task.Record{Spec: &task.Spec{CallbackURL: url}} }
	for _, c := range []struct{ max, perHost, want int }{{32, 3, 3}, {32, 0, 8}, {2, 0, 1}} {
		dead := make(chan struct{}, 2*underWayMax)
		good := make(chan string, 1)
		d := NewDispatcher(make(told, 1), c.max, c.perHost, func(ctx context.Context, id string, r *task.Record) error {
			if receiver(*r) == "good.example" {
				good <- id
				return nil
			}
			dead <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}, func(int, error) (time.Duration, bool) { return 0, true }, meter.New(prometheus.NewRegistry()), time.Now, slog.New(slog.DiscardHandler))
		for i := range c.max {
			d.Deliver(fmt.Sprint("t", i), to("https://Dead.example/"+fmt.Sprint(i)), 1)
			d.Deliver(fmt.Sprint("t", i), to("https://dead.example/"+fmt.Sprint(i)), 1)
		}
		d.Deliver("good", to("https://good.example/"), 1)
		require.Equal(t, "good", <-good)
		d.Stop()
		require.Len(t, dead, c.want)
		require.Empty(t, d.hosts)
	}
}

func TestStopIsNoTry(t *testing.T) {
	got := make(told, 1)
	began := make(chan struct{})
	d := dispatcher(t, got, func(ctx context.Context, _ string, _ *task.Record) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	})
	d.Deliver("t", task.Record{}, 1)
	<-began
	d.Stop()
	require.Empty(t, got)
	d.Deliver("t", task.Record{}, 1) // after Stop: nothing
	d.Stop()
}
