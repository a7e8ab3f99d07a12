package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

const (
	listTries = 20 // pages fetched for a figure of listing
	idleTime  = 5 * time.Second
	megabyte  = 1e6
)

// waitingBench fills a node with tasks that may not start for decades, and looks what they cost: memory, a restart after
// a clean stop and after a kill, submits and lists with them in place. After each restart the node has to have them all.
func (r *runner) waitingBench(ctx context.Context, dir string) ([]reading, error) {
	n, err := newNode(r.binary, filepath.Join(dir, "node"), "--engine", "echo")
	if err != nil {
		return nil, err
	}
	defer n.kill()
	empty, err := n.start(ctx)
	if err != nil {
		return nil, err
	}
	var out []reading
	for _, step := range []func(context.Context, *node) ([]reading, error){
		r.fill, r.idle, r.submitOver, listOver, r.restart(figRestartTerm, (*node).stop), r.restart(figRestartKill, func(n *node) time.Duration { n.kill(); return 0 }),
	} {
		more, err := step(ctx, n)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return append(out, reading{figure: "start of an empty node", value: empty.Seconds(), unit: "s"}), nil
}

// fill loads the backlog and measures the memory then.
func (r *runner) fill(ctx context.Context, n *node) ([]reading, error) {
	before, err := memoryOf(n.pid())
	if err != nil {
		return nil, err
	}
	m, err := startMeter(n.pid())
	if err != nil {
		return nil, err
	}
	took, err := bulk(ctx, n, r.o.streams, r.o.waiting, newTemplate("k", true).line)
	if err != nil {
		return nil, err
	}
	_, use, err := m.stop()
	if err != nil {
		return nil, err
	}
	after, err := memoryOf(n.pid())
	if err != nil {
		return nil, err
	}
	return []reading{
		{figure: "loading the backlog", value: rate(r.o.waiting, took), unit: "tasks/s", use: use, note: fmt.Sprintf("%d tasks", r.o.waiting)},
		{figure: figRSS, value: float64(after.rss) / megabyte, unit: "MB", note: fmt.Sprintf("%s MB when empty", figure(float64(before.rss)/megabyte))},
		{figure: "memory at most (VmHWM)", value: float64(after.peak) / megabyte, unit: "MB"},
	}, nil
}

// idle measures what the node takes when nobody asks anything of it.
func (r *runner) idle(ctx context.Context, n *node) ([]reading, error) {
	m, err := startMeter(n.pid())
	if err != nil {
		return nil, err
	}
	if err := waitUntil(ctx, time.Now().Add(min(r.o.duration, idleTime))); err != nil {
		return nil, err
	}
	_, use, err := m.stop()
	if err != nil {
		return nil, err
	}
	return []reading{{figure: "idle with the backlog", value: use.node, unit: "cores"}}, nil
}

// submitOver measures one client's submits with the backlog in place.
func (r *runner) submitOver(ctx context.Context, n *node) ([]reading, error) {
	m, err := r.closedLoop(ctx, n, 1, "x", r.o.duration)
	if err != nil {
		return nil, err
	}
	return []reading{{figure: "submits with the backlog, 1 client", value: rate(m.lat.Count, m.took), unit: "requests/s", lat: m.lat, use: m.use}}, nil
}

// listOver measures the first page of all tasks and of the pending ones.
func listOver(ctx context.Context, n *node) (out []reading, err error) {
	for _, q := range []struct{ figure, path string }{
		{"list the newest 100, p50", "/v1/tasks?limit=100"},
		{"list 100 pending, p50", "/v1/tasks?limit=100&state=pending"},
	} {
		times := make([]time.Duration, 0, listTries)
		for range listTries {
			var page wire.List
			began := time.Now()
			if err := n.get(ctx, q.path, &page); err != nil {
				return nil, err
			}
			times = append(times, time.Since(began))
		}
		lat := latencyOf(times)
		out = append(out, reading{figure: q.figure, value: lat.P50, unit: "ms", lat: lat})
	}
	return out, nil
}

// restart ends the node in one way, starts it on the same data, and checks that it has every task.
func (r *runner) restart(figureName string, end func(*node) time.Duration) func(context.Context, *node) ([]reading, error) {
	return func(ctx context.Context, n *node) ([]reading, error) {
		before, err := n.status(ctx)
		if err != nil {
			return nil, err
		}
		stopping := end(n)
		took, err := n.start(ctx)
		if err != nil {
			return nil, err
		}
		after, err := n.status(ctx)
		if err != nil {
			return nil, err
		}
		if b, a := before.Tasks["pending"], after.Tasks["pending"]; a != b {
			return nil, fmt.Errorf("bench.waiting: %d tasks waited before the %s and %d after it", b, figureName, a)
		}
		mem, err := memoryOf(n.pid())
		if err != nil {
			return nil, err
		}
		note := fmt.Sprintf("from start to ready; then %s MB", figure(float64(mem.rss)/megabyte))
		if stopping > 0 {
			note += fmt.Sprintf("; stopping took %s s", figure(stopping.Seconds()))
		}
		return []reading{{figure: figureName, value: took.Seconds(), unit: "s", note: note}}, nil
	}
}
