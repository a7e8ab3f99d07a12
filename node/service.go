package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// service is api.Service on this node's actors.
type service struct {
	id           string
	version      string
	started      time.Time
	sys          *actors.System
	store        persistence.Store
	defaultModel string
	timeoutMax   time.Duration // a task may not ask for more
	engines      func() []api.EngineStatus
	now          func() time.Time
}

// Submit appends the first row of all new tasks in as few proposals as there are
// shards. Only a task whose id exists wakes its actor, to tell a repeat from a conflict.
func (s *service) Submit(ctx context.Context, specs []*task.Spec) []api.Submitted {
	out := make([]api.Submitted, len(specs))
	writes := make([]persistence.Write, 0, len(specs))
	at := make([]int, 0, len(specs)) // of each write: its spec
	msgs := make([]*task.Submit, len(specs))
	models := s.models()
	for i, spec := range specs {
		if spec.ID == "" {
			id, err := uuid.NewV7()
			if err != nil {
				out[i].Err = fault.New(fault.Unavailable, "node.submit", "", "no id could be made: %w", err)
				continue
			}
			spec.ID = id.String()
		}
		out[i].ID = spec.ID
		if out[i].Err = spec.Validate(); out[i].Err != nil {
			continue
		}
		if d := time.Duration(spec.Timeout); d > s.timeoutMax {
			out[i].Err = fault.New(fault.Invalid, "task.validate", "timeout", "is %v, more than this node's task.timeout_max", d).WithRemedy("use at most %v", s.timeoutMax)
			continue
		}
		model := spec.Model
		if model == "" {
			model = s.defaultModel
		}
		if out[i].Err = models.check(model); out[i].Err != nil {
			continue
		}
		msgs[i] = &task.Submit{Spec: spec, Model: model}
		_, w, err := s.sys.Tasks.First(spec.ID, msgs[i], s.now)
		if err != nil {
			out[i].Err = err
			continue
		}
		writes, at = append(writes, w), append(at, i)
	}
	for n, err := range s.sys.Router.Create(ctx, writes) {
		i := at[n]
		switch {
		case err == nil:
			out[i].Version, out[i].State = 1, task.Pending
		case fault.KindOf(err) == fault.Conflict:
			out[i] = s.resubmit(ctx, specs[i].ID, msgs[i])
		default:
			out[i].Err = err
		}
	}
	return out
}

func (s *service) resubmit(ctx context.Context, id string, m *task.Submit) api.Submitted {
	v, err := s.sys.Router.Ask(ctx, task.Key(id), m)
	if err != nil {
		return api.Submitted{ID: id, Err: err}
	}
	a := v.(task.Accepted)
	return api.Submitted{ID: id, Version: a.Version, State: a.State, Existed: a.Existed}
}

// served is what the engines say they serve.
type served struct {
	names []string
	any   bool // an engine takes every name, or has not said yet what it serves
}

func (s *service) models() served {
	v := served{names: []string{s.defaultModel, task.AnyModel}}
	for _, e := range s.sys.Engines() {
		if len(e.Models) == 0 {
			v.any = true
		}
		for _, m := range e.Models {
			v.any = v.any || m == "*"
			v.names = append(v.names, m)
		}
	}
	return v
}

func (v served) check(model string) error {
	if v.any || slices.Contains(v.names, model) {
		return nil
	}
	slices.Sort(v.names)
	return fault.New(fault.Invalid, "task.validate", "model", "is %q, which no engine here serves", model).
		WithRemedy("use one of: %s; or leave it out for the default", strings.Join(slices.Compact(v.names), ", "))
}

// Get folds the task's journal; it wakes nothing.
func (s *service) Get(ctx context.Context, id string) (*task.Record, error) {
	o, err := s.sys.Router.OwnerOf(ctx, task.Key(id))
	if err != nil {
		return nil, err
	}
	r, seq, err := s.sys.Tasks.Load(o, id)
	if err != nil {
		return nil, err
	}
	if seq == 0 {
		return nil, fault.New(fault.NotFound, "task", id, "no such task")
	}
	return &r, nil
}

// Cancel asks the task.
func (s *service) Cancel(ctx context.Context, id, reason string) (*task.Record, error) {
	v, err := s.sys.Router.Ask(ctx, task.Key(id), &task.Cancel{Reason: reason})
	if err != nil {
		if fault.KindOf(err) == fault.Conflict {
			if r, gerr := s.Get(ctx, id); gerr == nil {
				return r, err
			}
		}
		return nil, err
	}
	r := v.(task.Record)
	return &r, nil
}

// Events decodes the task's rows. One row is one fact, so a version is a row.
func (s *service) Events(ctx context.Context, id string, after uint64) ([]task.Fact, error) {
	o, err := s.sys.Router.OwnerOf(ctx, task.Key(id))
	if err != nil {
		return nil, err
	}
	facts, err := s.sys.Tasks.History(o, id, after)
	if err != nil {
		return nil, err
	}
	if len(facts) == 0 {
		if _, err := s.Get(ctx, id); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

// Watch follows appends to the task.
func (s *service) Watch(ctx context.Context, id string) (<-chan struct{}, func(), error) {
	o, err := s.sys.Router.OwnerOf(ctx, task.Key(id))
	if err != nil {
		return nil, nil, err
	}
	c, stop := o.Watch(task.Key(id))
	return c, stop, nil
}

// Status gathers what the parts say.
func (s *service) Status(ctx context.Context) api.Status {
	st := api.Status{Node: s.id, Version: s.version, StartedAt: s.started, Shards: s.store.Shards(), Tasks: map[string]int64{}}
	tally, owned, err := s.tally()
	st.Owned = owned
	space := s.store.Space()
	st.DiskFree, st.DiskNeeded, st.DiskFull = space.Free, space.Reserve, space.Refusing
	switch {
	case err != nil:
		st.Reason = err.Error()
	case s.sys.Shards.Err() != nil:
		st.Reason = s.sys.Shards.Err().Error()
	case owned < st.Shards:
		st.Reason = fmt.Sprintf("%d of %d shards are open", owned, st.Shards)
	default:
		st.Ready = true
	}
	for _, state := range []task.State{task.Pending, task.Running, task.Completed, task.Failed, task.Cancelled} {
		st.Tasks[state.String()] = tally.ByState[state]
	}
	for q, n := range tally.Waiting {
		st.Queues = append(st.Queues, api.Queue{Model: q.Model, Priority: q.Priority, Waiting: n})
	}
	slices.SortFunc(st.Queues, func(a, b api.Queue) int {
		if c := strings.Compare(a.Model, b.Model); c != 0 {
			return c
		}
		return a.Priority - b.Priority
	})
	st.Engines = s.engines()
	return st
}

// tally adds up the counters of the shards owned here.
func (s *service) tally() (t task.Tally, owned int, err error) {
	for _, o := range s.sys.Shards.Owners() {
		owned++
		c, e := o.Counters()
		if e != nil {
			err = e
			continue
		}
		t.Add(c)
	}
	return t, owned, err
}

// Backup copies the store.
func (s *service) Backup(ctx context.Context, dir string) error { return s.store.Backup(ctx, dir) }

// engineStatus shows an inference actor's state as the API does.
func engineStatus(e infer.EngineState, restarts int) api.EngineStatus {
	return api.EngineStatus{Name: e.Name, Models: e.Models, Healthy: e.Healthy, Reason: e.Reason, Limit: e.Limit, InFlight: e.InFlight, Restarts: restarts}
}
