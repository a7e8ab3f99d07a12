package bench

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// warmUp is how much of a timed benchmark goes by before it counts.
func warmUp(d time.Duration) time.Duration { return min(d/5, 2*time.Second) }

// submitBench submits with so many clients, each on its own connection and each waiting for its answer before it sends
// the next. The tasks wait, so the node does nothing else.
func (r *runner) submitBench(clients int) func(context.Context, *node) ([]reading, error) {
	return func(ctx context.Context, n *node) ([]reading, error) {
		m, err := r.closedLoop(ctx, n, clients, "s", r.o.duration)
		if err != nil {
			return nil, err
		}
		return []reading{{figure: figSubmits, value: rate(m.lat.Count, m.took), unit: "requests/s", lat: m.lat, use: m.use}}, nil
	}
}

// loop is what a closed loop measured.
type loop struct {
	took time.Duration
	lat  *Latency
	use  *usage
}

// closedLoop submits waiting tasks for d, after a warm-up that does not count.
func (r *runner) closedLoop(ctx context.Context, n *node, clients int, prefix string, d time.Duration) (*loop, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]*conn, clients)
	for i := range conns {
		c, err := dial(ctx, n.at(i))
		if err != nil {
			return nil, err
		}
		defer c.close()
		conns[i] = c
	}
	warm := time.Now().Add(warmUp(d))
	end := warm.Add(d)
	times := make([][]time.Duration, clients) // of the requests that began after the warm-up and ended before the end
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			var err error
			if times[i], err = c.loop(newTemplate(fmt.Sprintf("%s%d", prefix, i), true), warm, end); err != nil {
				cancel(err) // ends the others too
			}
		})
	}
	m, err := r.meterBetween(ctx, n, warm, end)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	if m.took, m.lat = d, latencyOf(all); m.lat == nil {
		return nil, fmt.Errorf("bench.submit: no request ended within %v: give a longer --duration", d)
	}
	return m, nil
}

// loop submits one task after another until end.
func (c *conn) loop(t template, warm, end time.Time) ([]time.Duration, error) {
	times := make([]time.Duration, 0, 1<<14)
	var body []byte
	for i := 0; ; i++ {
		began := time.Now()
		if !began.Before(end) {
			return times, nil
		}
		body = t.task(body[:0], i)
		if err := c.submit(body); err != nil {
			return nil, err
		}
		if ended := time.Now(); !began.Before(warm) && !ended.After(end) {
			times = append(times, ended.Sub(began))
		}
	}
}

// meterBetween measures processor time from one moment to another.
func (r *runner) meterBetween(ctx context.Context, n *node, from, to time.Time) (*loop, error) {
	if err := waitUntil(ctx, from); err != nil {
		return nil, err
	}
	m, err := startMeter(n.pids()...)
	if err != nil {
		return nil, err
	}
	if err := waitUntil(ctx, to); err != nil {
		return nil, err
	}
	took, use, err := m.stop()
	return &loop{took: took, use: use}, err
}

// waitUntil returns at a moment, or earlier with the reason when ctx ends.
func waitUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bulkBench submits long streams of tasks that wait.
func (r *runner) bulkBench(ctx context.Context, n *node) ([]reading, error) {
	if _, err := bulk(ctx, n, r.o.streams, r.warmTasks(), newTemplate("warm", true).line); err != nil {
		return nil, err
	}
	m, err := startMeter(n.pids()...)
	if err != nil {
		return nil, err
	}
	took, err := bulk(ctx, n, r.o.streams, r.o.tasks, newTemplate("b", true).line)
	if err != nil {
		return nil, err
	}
	_, use, err := m.stop()
	if err != nil {
		return nil, err
	}
	return []reading{{figure: figTasks, value: rate(r.o.tasks, took), unit: "tasks/s", use: use, note: fmt.Sprintf("%d tasks, streams at once: %d", r.o.tasks, r.o.streams)}}, nil
}

// warmTasks is how many tasks go through a node before a bulk measurement.
func (r *runner) warmTasks() int { return min(r.o.tasks/10, 5000) }
