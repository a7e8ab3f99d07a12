package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// openClients bounds the requests under way at once in an open loop; a node that leaves so many unanswered is named
// too slow for the rate instead of being waited for.
const openClients = 256

// startBench submits at a steady rate, whether or not earlier requests were answered, and then reads from each task's
// history when it was created, claimed and started. Those are the node's own clock, so the client adds nothing to them;
// the time to the acknowledgement is the client's, counted from when the request was due.
func (r *runner) startBench(ctx context.Context, n *node) ([]reading, error) {
	if err := r.warmStart(ctx, n); err != nil {
		return nil, err
	}
	m, err := startMeter(n.pids()...)
	if err != nil {
		return nil, err
	}
	acks, err := openLoop(ctx, n, newTemplate("o", false), r.o.rate, r.o.rateTime)
	if err != nil {
		return nil, err
	}
	_, use, err := m.stop()
	if err != nil {
		return nil, err
	}
	claimed, started, err := startTimes(ctx, n, "o", len(acks))
	if err != nil {
		return nil, err
	}
	note := fmt.Sprintf("%d tasks at %s/s", len(acks), figure(r.o.rate))
	a, c, s := latencyOf(acks), latencyOf(claimed), latencyOf(started)
	return []reading{
		{figure: figStartedP50, value: s.P50, unit: "ms", lat: s, use: use, note: note},
		{figure: figStartedP99, value: s.P99, unit: "ms", lat: s},
		{figure: "submit to claimed, p50", value: c.P50, unit: "ms", lat: c},
		{figure: "submit to claimed, p99", value: c.P99, unit: "ms", lat: c},
		{figure: "due to acknowledged, p99", value: a.P99, unit: "ms", lat: a, note: "the client's clock"},
	}, nil
}

func (r *runner) warmStart(ctx context.Context, n *node) error {
	acks, err := openLoop(ctx, n, newTemplate("w", false), r.o.rate, warmUp(r.o.rateTime))
	if err != nil {
		return err
	}
	return n.until(ctx, func(st *wire.Status) bool { return st.Tasks["completed"] >= int64(len(acks)) })
}

// openLoop submits at perSecond for d and returns, for each task, the time from when its request was due until it was
// acknowledged.
func openLoop(ctx context.Context, n *node, t template, perSecond float64, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	count := max(1, int(perSecond*d.Seconds()))
	times := make([]time.Duration, count)
	free := make(chan *conn, openClients)
	var opened []*conn
	defer func() {
		for _, c := range opened {
			c.close()
		}
	}()
	var wg sync.WaitGroup
	began := time.Now()
	for i := range count {
		due := began.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
		if err := waitUntil(ctx, due); err != nil {
			break
		}
		var c *conn
		select {
		case c = <-free:
		default:
			if len(opened) == openClients {
				cancel(fmt.Errorf("bench.start: %d requests wait for their answers: the node is too slow for %s/s", openClients, figure(perSecond)))
				continue
			}
			var err error
			if c, err = dial(ctx, n.at(len(opened))); err != nil {
				cancel(err)
				continue
			}
			opened = append(opened, c)
		}
		wg.Go(func() {
			if err := c.submit(t.task(nil, i)); err != nil {
				cancel(err)
				return
			}
			times[i] = time.Since(due)
			free <- c // has room for all
		})
	}
	wg.Wait()
	return times, context.Cause(ctx)
}

// startTimes waits until each task has started and returns how long that took, from the histories.
func startTimes(ctx context.Context, n *node, prefix string, count int) (claimed, started []time.Duration, err error) {
	for i := range count {
		var t wire.Task
		for t.State = 0; !t.State.Final(); {
			if err := n.get(ctx, fmt.Sprintf("/v1/tasks/%s-%d?wait=10s", prefix, i), &t); err != nil {
				return nil, nil, err
			}
			if err := ctx.Err(); err != nil {
				return nil, nil, context.Cause(ctx)
			}
		}
		if len(t.Attempts) == 0 || t.Attempts[0].Answer == nil {
			return nil, nil, fmt.Errorf("bench.start: task %s is %v and its first attempt has no answer", t.ID, t.State)
		}
		a := t.Attempts[0]
		claimed = append(claimed, a.ClaimedAt.Sub(t.CreatedAt))
		started = append(started, a.Answer.StartedAt.Sub(t.CreatedAt))
	}
	return claimed, started, nil
}
