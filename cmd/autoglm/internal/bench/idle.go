package bench

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// afterLoad is how long nodes have to write down and compact what load left behind before idle looks again.
const afterLoad = 10 * time.Second

// idleBench measures what each node takes while nobody asks anything of it: when new, and after it has drained --tasks.
func (r *runner) idleBench(ctx context.Context, l *local) ([]reading, error) {
	out, err := r.idleNodes(ctx, l, "new")
	if err != nil {
		return nil, err
	}
	n := l.asNode()
	if _, err := r.drain(ctx, n, "d", r.o.tasks); err != nil {
		return nil, err
	}
	if err := waitUntil(ctx, time.Now().Add(min(afterLoad, r.o.idleTime))); err != nil {
		return nil, err
	}
	more, err := r.idleNodes(ctx, l, fmt.Sprintf("after %d tasks", r.o.tasks))
	return append(out, more...), err
}

// idleNodes looks at all nodes for --idle-time.
func (r *runner) idleNodes(ctx context.Context, l *local, when string) ([]reading, error) {
	nodes := l.up()
	meters := make([]meter, len(nodes))
	for i, n := range nodes {
		var err error
		if meters[i], err = startMeter(n.PID); err != nil {
			return nil, err
		}
	}
	if err := waitUntil(ctx, time.Now().Add(r.o.idleTime)); err != nil {
		return nil, err
	}
	var cpu, rss []float64
	for i, n := range nodes {
		_, use, err := meters[i].stop()
		if err != nil {
			return nil, err
		}
		mem, err := memoryOf(n.PID)
		if err != nil {
			return nil, err
		}
		cpu, rss = append(cpu, 100*use.node), append(rss, float64(mem.rss)/megabyte)
	}
	note := func(values []float64) string {
		each := make([]string, len(values))
		for i, v := range values {
			each[i] = nodes[i].Name + " " + figure(v)
		}
		return strings.Join(each, ", ")
	}
	return []reading{
		{figure: "processor time of a node, " + when, value: median(cpu), unit: "% of a core", note: note(cpu)},
		{figure: "memory (RSS) of a node, " + when, value: median(rss), unit: "MB", note: note(rss)},
	}, nil
}
