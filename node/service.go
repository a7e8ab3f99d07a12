package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/retention"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/trace"
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
	attempts     int           // tries of a step, where the task names none
	engines      func() []api.EngineStatus
	table        *table
	cluster      string                                            // id; "" when alone
	replicas     int                                               // copies of each shard, where there are nodes for them; 0 when alone
	formed       atomic.Bool                                       // every shard had all its copies once
	http         string                                            // address of the API
	known        func() []knownMember                              // nil when alone
	events       func(context.Context) ([]api.ClusterEvent, error) // nil when alone
	elsewhere    elsewhere
	admit        func(dataURL string) error // nil: all
	batches      *bulk.Batches
	marks        func(context.Context) ([]retention.Mark, error) // up to where sinks are
	overview     overview
	caught       caught
	now          func() time.Time
}

// Submit appends the first row of all new tasks in as few proposals as there are
// shards. Only a task whose id exists wakes its actor, to tell a repeat from a conflict.
func (s *service) Submit(ctx context.Context, specs []*task.Spec) []api.Submitted {
	msgs := make([]*task.Submit, len(specs))
	for i, spec := range specs {
		msgs[i] = &task.Submit{Spec: spec}
	}
	return s.SubmitLines(ctx, msgs)
}

// SubmitLines is Submit of tasks that may be lines of batches, which belong to whom their batch does; else they are the caller's tenant's.
// Their Model is filled in here.
func (s *service) SubmitLines(ctx context.Context, msgs []*task.Submit) []api.Submitted {
	out := make([]api.Submitted, len(msgs))
	writes := make([]persistence.Write, 0, len(msgs))
	at := make([]int, 0, len(msgs)) // of each write: its message
	check := s.checker(ctx)
	whose, admitted, fresh, bytes, freshBytes := tenant.From(ctx), 0, 0, 0, 0
	for i, m := range msgs {
		spec := m.Spec
		given := spec.ID != ""
		if !given {
			id, err := uuid.NewV7()
			if err != nil {
				out[i].Err = fault.New(fault.Unavailable, "node.submit", "", "no id could be made: %w", err)
				continue
			}
			spec.ID = id.String()
		}
		out[i].ID = spec.ID
		if out[i].Err = m.Validate(); out[i].Err != nil {
			continue
		}
		m.Model = spec.ModelOr(s.defaultModel)
		if m.Line == nil { // a line's was judged with its batch: now it becomes a task, and what is wrong with it meanwhile is how that ends
			if out[i].Err = s.judge(ctx, m, check); out[i].Err != nil {
				continue
			}
			if out[i].Err = s.sys.Quota.Admit(ctx, whose, spec.PriorityOr(), 1, spec.Bytes()); out[i].Err != nil {
				if given { // a repeat costs nothing
					if _, there := s.Get(ctx, spec.ID); there == nil {
						out[i] = s.resubmit(ctx, m)
					}
				}
				continue
			}
			admitted++
			bytes += spec.Bytes()
		}
		if m.Trace == "" {
			m.Trace = string(trace.From(ctx))
		}
		_, w, err := s.sys.Tasks.First(whole(ctx, m), m, s.now)
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
			if msgs[i].Line == nil {
				fresh++
				freshBytes += msgs[i].Spec.Bytes()
			}
		case fault.KindOf(err) == fault.Conflict:
			out[i] = s.resubmit(ctx, msgs[i])
		default:
			out[i].Err = err
		}
	}
	s.sys.Quota.Settled(whose, admitted, fresh, bytes, freshBytes)
	return out
}

// judge refuses what a client should hear of before there is a task.
func (s *service) judge(ctx context.Context, m *task.Submit, check *checker) error {
	spec := m.Spec
	if bulk.IsLine(spec.ID) {
		return fault.New(fault.Invalid, "task.validate", "task_id", "is of the form that lines of batches have").WithRemedy("use another")
	}
	if err := s.allRead(spec); err != nil {
		return err
	}
	if err := s.admits(ctx, spec); err != nil {
		return err
	}
	if d := spec.LongestTimeout(); d > s.timeoutMax {
		return fault.New(fault.Invalid, "task.validate", "timeout", "is %v, more than this node's task.timeout_max", d).WithRemedy("use at most %v", s.timeoutMax)
	}
	return check.task(m.Model, spec)
}

// allRead refuses steps of a form that a living node could not read.
func (s *service) allRead(spec *task.Spec) error {
	if spec.NewForm() || spec.OwnLanes() {
		return s.stepsKnown(spec.OwnLanes())
	}
	return nil
}

// stepsKnown refuses steps that are objects, or are tools or name a model, while a living node could not read them.
func (s *service) stepsKnown(own bool) error {
	if own {
		return allKnow(s.members(), knowsLanes, "steps that are tools or name a model")
	}
	return allKnow(s.members(), knowsSteps, "steps that are objects")
}

// admits refuses a new task that could only fail: its file may not be read, or its deadline has passed. One that exists is a repeat,
// whose answer does not depend on when it comes.
func (s *service) admits(ctx context.Context, spec *task.Spec) error {
	var err error
	if spec.Deadline != nil && !spec.Deadline.After(s.now()) {
		err = fault.New(fault.Invalid, "task.validate", "deadline", "is %v, which has passed", spec.Deadline.UTC().Format(time.RFC3339)).
			WithRemedy("give a time to come, or leave it out")
	}
	if err == nil && spec.DataURL != "" && s.admit != nil && s.cluster == "" { // another node's engine may be allowed to read it
		err = s.admit(spec.DataURL)
	}
	if err == nil {
		err = spec.MayRead(tenant.From(ctx))
	}
	if err == nil {
		return nil
	}
	if _, there := s.Get(ctx, spec.ID); fault.KindOf(there) != fault.NotFound {
		return there
	}
	return err
}

// whole is the id of a task's journal.
func whole(ctx context.Context, m *task.Submit) string {
	if m.Line != nil {
		return tenant.Beside(m.Line.Batch, m.Spec.ID)
	}
	return tenant.Own(ctx, m.Spec.ID)
}

func (s *service) resubmit(ctx context.Context, m *task.Submit) api.Submitted {
	id := m.Spec.ID
	v, err := s.sys.Router.Ask(ctx, task.Key(whole(ctx, m)), m)
	if err != nil {
		return api.Submitted{ID: id, Err: err}
	}
	a := v.(task.Accepted)
	return api.Submitted{ID: id, Version: a.Version, State: a.State, Existed: a.Existed}
}

// Get folds the task's journal; it wakes nothing.
func (s *service) Get(ctx context.Context, id string) (*task.Record, error) {
	r, seq, err := s.sys.Tasks.Load(cluster.Reader{Context: ctx, Router: s.sys.Router}, tenant.Own(ctx, id))
	if err != nil {
		return nil, err
	}
	if seq == 0 || r.State == task.None {
		return nil, fault.New(fault.NotFound, "task", id, "no such task")
	}
	return &r, nil
}

// Cancel asks the task.
func (s *service) Cancel(ctx context.Context, id, reason string) (*task.Record, error) {
	v, err := s.sys.Router.Ask(ctx, task.Key(tenant.Own(ctx, id)), &task.Cancel{Reason: reason})
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
	facts, err := s.sys.Tasks.History(cluster.Reader{Context: ctx, Router: s.sys.Router}, tenant.Own(ctx, id), after)
	if err != nil {
		return nil, err
	}
	for i, f := range facts {
		if f.Line != nil {
			l := *f.Line
			l.Batch = tenant.Bare(l.Batch)
			facts[i].Line = &l
		}
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
	c, stop := s.sys.Router.Watch(task.Key(tenant.Own(ctx, id)))
	return c, stop, nil
}

// Status gathers what the parts say.
func (s *service) Status(ctx context.Context) api.Status {
	st := api.Status{Node: s.id, Version: s.version, StartedAt: s.started, Shards: s.store.Shards(), Tasks: map[string]int64{}}
	tally, err := s.tallyAll(ctx)
	st.Owned = len(s.sys.Shards.Owners())
	space := s.store.Space()
	st.DiskFree, st.DiskNeeded, st.DiskFull = space.Free, space.Reserve, space.Refusing
	if st.Ready, st.Reason = s.Ready(); st.Ready && err != nil {
		st.Ready, st.Reason = false, fault.Shown(err)
	}
	st.Partial = err != nil
	whose := tenant.From(ctx)
	own := tally.Of(whose)
	for _, state := range []task.State{task.Pending, task.Running, task.Completed, task.Failed, task.Cancelled} {
		st.Tasks[state.String()] = own[state]
	}
	if whose == tenant.Default { // what all wait for is the operator's to see
		for q, n := range tally.Queues() {
			st.Queues = append(st.Queues, api.Queue{Model: q.Model, Priority: q.Priority, Waiting: n})
		}
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

// Ready tells whether every shard has an owner that this node can name, and the replicas here have caught up once, and what is missing.
func (s *service) Ready() (bool, string) {
	if err := s.sys.Shards.Err(); err != nil {
		return false, fault.Shown(err)
	}
	alive := map[string]bool{}
	for _, p := range s.sys.Router.Alive() {
		alive[p.Name] = true
	}
	open := 0
	for n := range s.store.Shards() {
		if alive[s.sys.Router.Place(n)] { // an owner that gossip lost is none until Raft names another
			open++
		}
	}
	if open < s.store.Shards() {
		return false, fmt.Sprintf("%d of %d shards have an owner", open, s.store.Shards())
	}
	if s.cluster != "" {
		if ok, why := s.caught.ready(); !ok {
			return false, why
		}
	}
	if !s.formed.Load() {
		if want, has := s.copies(); has < want {
			return false, fmt.Sprintf("a shard has %d of %d copies yet", has, want)
		}
		s.formed.Store(true) // later a node may be missing: that is what the copies are for
	}
	return true, ""
}

// copies tells how many voters each shard should have with the nodes that are there, and how many the one with
// the fewest has, as far as this node's replicas know.
func (s *service) copies() (want, has int) {
	want = min(s.replicas, len(s.sys.Router.Alive()))
	has = want
	for _, g := range s.store.Groups() {
		voters := 0
		for _, r := range g.Replicas {
			if r.Voter {
				voters++
			}
		}
		has = min(has, voters)
	}
	return want, has
}

// tally adds up the counters of the shards owned here, for metrics: those of all nodes add up to all.
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

// tallyWithin bounds the look at the counters of all shards.
const tallyWithin = 2 * time.Second

// tallyAll adds up the counters of all shards, wherever their owners are.
func (s *service) tallyAll(ctx context.Context) (t task.Tally, err error) {
	ctx, cancel := context.WithTimeout(ctx, tallyWithin)
	defer cancel()
	type part struct {
		c   map[string]int64
		err error
	}
	parts := make(chan part, s.store.Shards())
	for n := range s.store.Shards() {
		go func() {
			c, err := s.sys.Router.Counters(ctx, n)
			parts <- part{c, err}
		}()
	}
	for range s.store.Shards() {
		p := <-parts
		if p.err != nil {
			err = p.err
			continue
		}
		t.Add(p.c)
	}
	return t, err
}

// Backup copies the store.
func (s *service) Backup(ctx context.Context, dir string) error { return s.store.Backup(ctx, dir) }

// engineStatus shows an inference actor's state as the API does.
func engineStatus(e infer.EngineState, child infer.ChildStatus) api.EngineStatus {
	mean := 0.0
	if e.Answered > 0 {
		mean = e.Took.Seconds() / float64(e.Answered)
	}
	return api.EngineStatus{Name: e.Name, Models: e.Models, Endpoints: e.Endpoints, Healthy: e.Healthy, Reason: e.Reason, Limit: e.Limit, InFlight: e.InFlight, Paused: e.Paused,
		Answered: e.Answered, Failed: e.Failed, Mean: mean, Restarts: child.Restarts, Limits: child.Limits, Circuit: e.Circuit.String()}
}
