package node

import (
	"context"
	"sync"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// retryAtOnce bounds the tasks that one Retry reads, and writes to, at once.
const retryAtOnce = 32

// Retry makes the other tasks first and then tells the failed ones: what is cut off in between is ended by the next wish, which finds
// those that are there.
func (s *service) Retry(ctx context.Context, ids []string) []api.Submitted {
	out := make([]api.Submitted, len(ids))
	specs := make([]*task.Spec, len(ids))
	each(len(ids), func(i int) {
		out[i].ID = ids[i]
		r, err := s.Get(ctx, ids[i])
		if err == nil {
			specs[i], err = r.Again(ids[i])
		}
		out[i].Err = err
	})
	var wanted []*task.Spec
	var at []int
	for i, spec := range specs {
		if spec != nil {
			wanted, at = append(wanted, spec), append(at, i)
		}
	}
	made := s.Submit(ctx, wanted)
	each(len(made), func(n int) {
		i, m := at[n], made[n]
		if m.Err == nil {
			_, m.Err = s.sys.Router.Ask(ctx, task.Key(tenant.Own(ctx, ids[i])), &task.TriedAgain{As: m.ID})
		}
		if fault.KindOf(m.Err) == fault.Conflict {
			m.Err = fault.New(fault.Conflict, "task.retry", ids[i], "%w", m.Err).WithRemedy("task %s was there before: see what it is", m.ID)
		}
		out[i] = m
	})
	return out
}

// each calls f for 0 to n-1, retryAtOnce at a time.
func each(n int, f func(int)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, retryAtOnce)
	for i := range n {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			f(i)
		})
	}
	wg.Wait()
}
