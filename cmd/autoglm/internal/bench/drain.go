package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// drainBench submits tasks in bulk while an engine that answers at once works them off, and stops the clock when
// the node counts all of them completed. The clock's grain is pollEvery.
func (r *runner) drainBench(ctx context.Context, n *node) ([]reading, error) {
	if _, err := r.drain(ctx, n, "warm", r.warmTasks()); err != nil {
		return nil, err
	}
	m, err := startMeter(n.pids()...)
	if err != nil {
		return nil, err
	}
	submitted, err := r.drain(ctx, n, "d", r.o.tasks)
	if err != nil {
		return nil, err
	}
	took, use, err := m.stop()
	if err != nil {
		return nil, err
	}
	note := fmt.Sprintf("%d tasks; the last was submitted after %s s of %s s", r.o.tasks, figure(submitted.Seconds()), figure(took.Seconds()))
	return []reading{{figure: figTasks, value: rate(r.o.tasks, took), unit: "tasks/s", use: use, note: note}}, nil
}

// drain submits count tasks and returns once all are completed; took is how long the submitting took.
func (r *runner) drain(ctx context.Context, n *node, prefix string, count int) (took time.Duration, err error) {
	before, err := n.status(ctx)
	if err != nil {
		return 0, err
	}
	goal := before.Tasks["completed"] + int64(count)
	if took, err = bulk(ctx, n, r.o.streams, count, newTemplate(prefix, false).line); err != nil {
		return took, err
	}
	var lost int64
	err = n.until(ctx, func(st *wire.Status) bool {
		lost = st.Tasks["failed"] + st.Tasks["cancelled"]
		return lost > 0 || st.Tasks["completed"] >= goal
	})
	if err == nil && lost > 0 {
		err = fmt.Errorf("bench.drain: %d tasks failed on an engine that only echoes", lost)
	}
	return took, err
}
