package infer

import (
	"context"
	"fmt"
	"sync"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// data gets what the task's data_url gives. A task whose steps must all see the same has it fetched once by this node, and by the next
// node only if it is still the same.
func (r *Runner) data(ctx context.Context, w *task.Work) (source.Data, error) {
	spec, pins := w.Record.Spec, w.Record.Pins()
	if err := spec.MayRead(tenant.Of(w.ID)); err != nil { // nobody looked at it before, when it is a line of a batch
		return source.Data{}, fmt.Errorf("data_url: %w", err)
	}
	if pins {
		if d, ok := r.kept.get(w.ID); ok && w.Record.SameData(d.SHA256) == nil && w.Record.Pinned() != "" {
			return d, nil
		}
	}
	began := r.Now()
	d, err := r.Fetch(ctx, spec.DataURL)
	if err != nil {
		return d, fmt.Errorf("data_url: %w", err)
	}
	r.Meter.Observe(meter.PhaseFetch, r.Now().Sub(began))
	if pins {
		if err := w.Record.SameData(d.SHA256); err != nil {
			return d, err
		}
		r.kept.put(w.ID, d)
	}
	return d, nil
}

// keptMax bounds the data kept for the next steps of tasks, in bytes; the oldest goes first, and is fetched again.
const keptMax = 32 << 20

// keptData is the data of tasks that go on.
type keptData struct {
	mu    sync.Mutex
	order []string // ids, oldest first
	by    map[string]source.Data
	bytes int
}

func (k *keptData) get(id string) (source.Data, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, ok := k.by[id]
	return d, ok
}

func (k *keptData) put(id string, d source.Data) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by == nil {
		k.by = map[string]source.Data{}
	}
	if old, ok := k.by[id]; ok {
		k.bytes -= len(old.Text)
	} else {
		k.order = append(k.order, id)
	}
	k.by[id] = d
	for k.bytes += len(d.Text); k.bytes > keptMax && len(k.order) > 1; k.order = k.order[1:] {
		k.bytes -= len(k.by[k.order[0]].Text)
		delete(k.by, k.order[0])
	}
}
