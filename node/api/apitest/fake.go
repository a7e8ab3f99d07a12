// Package apitest has a Service in memory, for tests of the HTTP layer, of its client and of
// the commands. It keeps records with task.Record.Apply, so what it says about a task is what
// a node would say; nothing runs by itself unless AutoAnswer is set.
package apitest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Fake is a Service in memory. Its methods may be called from any goroutine; its exported
// fields are set before the first call.
type Fake struct {
	// AutoAnswer, when set, completes each task within Submit, with what it returns.
	AutoAnswer func(*task.Spec) string
	// BeforeSubmit, when set, may refuse a whole Submit, or hold it up.
	BeforeSubmit func(specs []*task.Spec) error
	// Now is the clock; time.Now when nil.
	Now func() time.Time

	mu       sync.Mutex
	tasks    map[string]*entry
	order    []string // ids as created
	ended    []string // ids as they became final
	watchers map[string]map[chan struct{}]bool
	notReady string
	unowned  int
	submits  int
}

type entry struct {
	rec   task.Record
	facts []task.Fact
}

var _ api.Service = (*Fake)(nil)

// New returns a Fake without tasks that is ready.
func New() *Fake {
	return &Fake{tasks: map[string]*entry{}, watchers: map[string]map[chan struct{}]bool{}}
}

// Echo is an AutoAnswer: the prompt comes back.
func Echo(s *task.Spec) string { return s.Prompt }

func (f *Fake) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now().UTC().Round(0)
}

// Submit implements api.Service.
func (f *Fake) Submit(_ context.Context, specs []*task.Spec) []api.Submitted {
	out := make([]api.Submitted, len(specs))
	if f.BeforeSubmit != nil {
		if err := f.BeforeSubmit(specs); err != nil {
			for i := range out {
				out[i] = api.Submitted{ID: specs[i].ID, Err: err}
			}
			return out
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.submits++
	for i, s := range specs {
		out[i] = f.submit(s)
	}
	return out
}

// Delete implements api.Service.
func (f *Fake) Delete(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.tasks[id]
	switch {
	case !ok:
		return fault.New(fault.NotFound, "fake.delete", id, "no such task")
	case !e.rec.State.Final():
		return fault.New(fault.Conflict, "fake.delete", id, "it is %v", e.rec.State)
	}
	delete(f.tasks, id)
	is := func(other string) bool { return other == id }
	f.order, f.ended = slices.DeleteFunc(f.order, is), slices.DeleteFunc(f.ended, is)
	return nil
}

func (f *Fake) submit(s *task.Spec) api.Submitted {
	if s.ID == "" {
		s.ID = uuid.Must(uuid.NewV7()).String()
	}
	if err := s.Validate(); err != nil {
		return api.Submitted{ID: s.ID, Err: err}
	}
	if e, ok := f.tasks[s.ID]; ok {
		if e.rec.Spec.Hash() != s.Hash() {
			err := fault.New(fault.Conflict, "fake.submit", s.ID, "exists with another body")
			return api.Submitted{ID: s.ID, Err: err.WithRemedy("choose another task_id")}
		}
		return api.Submitted{ID: s.ID, Version: e.rec.Version, State: e.rec.State, Existed: true}
	}
	f.tasks[s.ID] = &entry{}
	f.order = append(f.order, s.ID)
	f.apply(s.ID, task.Fact{Event: task.Submitted, At: f.now(), Spec: s})
	e := f.tasks[s.ID]
	out := api.Submitted{ID: s.ID, Version: e.rec.Version, State: e.rec.State}
	if f.AutoAnswer != nil {
		f.claim(s.ID)
		f.answer(s.ID, f.AutoAnswer(s))
	}
	return out
}

// apply journals a fact; it panics on one that the lifecycle refuses: the test is wrong.
func (f *Fake) apply(id string, fact task.Fact) {
	e := f.tasks[id]
	next, err := e.rec.Apply(fact)
	if err != nil {
		panic(fmt.Errorf("apitest: %s: %w", id, err))
	}
	if next.State.Final() && !e.rec.State.Final() {
		f.ended = append(f.ended, id)
	}
	e.rec, e.facts = next, append(e.facts, fact)
	for c := range f.watchers[id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Apply journals a fact of a task, as the runtime would.
func (f *Fake) Apply(id string, fact task.Fact) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fact.At.IsZero() {
		fact.At = f.now()
	}
	f.apply(id, fact)
}

// Claim starts an attempt.
func (f *Fake) Claim(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claim(id)
}

func (f *Fake) claim(id string) {
	now := f.now()
	f.apply(id, task.Fact{Event: task.Claimed, At: now, Attempt: f.tasks[id].rec.Attempt + 1, Epoch: 1, Node: "n1", Engine: "fake",
		Until: now.Add(time.Minute)})
}

// Answer ends a running attempt of the last step.
func (f *Fake) Answer(id, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer(id, text)
}

func (f *Fake) answer(id, text string) {
	now := f.now()
	e := f.tasks[id]
	answer := &task.Answer{Text: text, FinishReason: "stop", Model: "fake", PromptTokens: 3, OutputTokens: 2, StartedAt: now, EndedAt: now}
	event := task.Answered
	if !e.rec.Ends(answer) {
		event = task.StepDone
	}
	f.apply(id, task.Fact{Event: event, At: now, Attempt: e.rec.Attempt, Answer: answer})
}

// Refuse fails a running task for good.
func (f *Fake) Refuse(id, message string) {
	f.Apply(id, task.Fact{Event: task.Refused, Error: &task.Failure{Kind: fault.Invalid.String(), Message: message}})
}

// SetReady makes the node ready when reason is "", and not ready otherwise.
func (f *Fake) SetReady(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notReady = reason
}

// Submits returns how often Submit got through: how many chunks came.
func (f *Fake) Submits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.submits
}

// Len returns how many tasks there are.
func (f *Fake) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tasks)
}

func (f *Fake) find(id string) (*entry, error) {
	if e, ok := f.tasks[id]; ok {
		return e, nil
	}
	return nil, fault.New(fault.NotFound, "fake.get", id, "no such task")
}

// Get implements api.Service.
func (f *Fake) Get(_ context.Context, id string) (*task.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.find(id)
	if err != nil {
		return nil, err
	}
	rec := e.rec
	return &rec, nil
}

// Cancel implements api.Service.
func (f *Fake) Cancel(_ context.Context, id, reason string) (*task.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.find(id)
	if err != nil {
		return nil, err
	}
	if !e.rec.State.Final() {
		f.apply(id, task.Fact{Event: task.CancelAsked, At: f.now(), Reason: reason})
		rec := e.rec
		return &rec, nil
	}
	rec := e.rec
	return &rec, fault.New(fault.Conflict, "fake.cancel", id, "is %v already", rec.State)
}

// Events implements api.Service.
func (f *Fake) Events(_ context.Context, id string, after uint64) ([]task.Fact, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.find(id)
	if err != nil {
		return nil, err
	}
	if after >= uint64(len(e.facts)) {
		return nil, nil
	}
	return slices.Clone(e.facts[after:]), nil
}

// Retry implements api.Service.
func (f *Fake) Retry(_ context.Context, ids []string) []api.Submitted {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]api.Submitted, len(ids))
	for i, id := range ids {
		out[i].ID = id
		e, err := f.find(id)
		var s *task.Spec
		if err == nil {
			s, err = e.rec.Again(id)
		}
		if err != nil {
			out[i].Err = err
			continue
		}
		if out[i] = f.submit(s); e.rec.RetriedAs == "" {
			f.apply(id, task.Fact{Event: task.Retried, At: f.now(), As: s.ID})
		}
	}
	return out
}

// Explain implements api.Service: there is one node, whose engine serves all.
func (f *Fake) Explain(_ context.Context, id string) (api.Explained, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.find(id)
	if err != nil {
		return api.Explained{}, err
	}
	steps, rec, err := explain.Story(e.facts)
	nodes := []explain.Node{{Name: "n1", Engines: []explain.Engine{{Name: "fake", Models: []string{"*"}, Endpoints: task.Endpoints(), Healthy: true, Limit: 1}}}}
	return api.Explained{Record: &rec, Steps: steps, Why: explain.Explain(explain.Scene{Now: f.now(), Record: &rec, Attempts: 4, Nodes: nodes})}, err
}

// Watch implements api.Service.
func (f *Fake) Watch(_ context.Context, id string) (<-chan struct{}, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(id); err != nil {
		return nil, nil, err
	}
	c := make(chan struct{}, 1)
	if f.watchers[id] == nil {
		f.watchers[id] = map[chan struct{}]bool{}
	}
	f.watchers[id][c] = true
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers[id], c)
	}, nil
}

// List implements api.Service; its cursor is an offset.
func (f *Fake) List(_ context.Context, q api.Query) ([]api.Item, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, err := offset(q.Cursor)
	if err != nil {
		return nil, "", err
	}
	ids := slices.Clone(f.order)
	switch {
	case q.State == task.None:
		slices.Reverse(ids)
	case q.State.Final():
		ids = slices.Clone(f.ended)
	}
	var page []api.Item
	for i := from; i < len(ids); i++ {
		rec := f.tasks[ids[i]].rec
		if !listed(q, &rec) {
			continue
		}
		if len(page) == q.Limit {
			return page, strconv.Itoa(i), nil
		}
		page = append(page, api.Item{ID: ids[i], Record: &rec})
	}
	return page, "", nil
}

func listed(q api.Query, r *task.Record) bool {
	if q.State != task.None && r.State != q.State || q.Model != "" && r.Spec.Model != q.Model {
		return false
	}
	if q.ErrorKind != "" && (r.Error == nil || r.Error.Kind != q.ErrorKind) || q.Open && r.RetriedAs != "" || r.EndedAt.Before(q.Since) {
		return false
	}
	for k, v := range q.Metadata {
		if r.Spec.Metadata[k] != v {
			return false
		}
	}
	return true
}

// Results implements api.Service; its cursor is an offset.
func (f *Fake) Results(_ context.Context, cursor string, each func(api.Item) bool) (string, error) {
	if cursor == wire.CursorEnd {
		f.mu.Lock()
		defer f.mu.Unlock()
		return strconv.Itoa(len(f.ended)), nil
	}
	i, err := offset(cursor)
	if err != nil {
		return "", err
	}
	for more := true; more; i++ {
		f.mu.Lock()
		if i >= len(f.ended) {
			f.mu.Unlock()
			break
		}
		rec := f.tasks[f.ended[i]].rec
		id := f.ended[i]
		f.mu.Unlock()
		more = each(api.Item{ID: id, Record: &rec})
	}
	return strconv.Itoa(i), nil
}

// BatchResults implements api.Service: a task is a line of the batch that its metadata names.
func (f *Fake) BatchResults(ctx context.Context, batch, cursor string, each func(api.Item) bool) (string, error) {
	if batch == "" {
		return cursor, fault.New(fault.NotFound, "fake.results", batch, "no such batch")
	}
	return f.Results(ctx, cursor, func(it api.Item) bool {
		return it.Record.Spec.Metadata["batch_id"] != batch || each(it)
	})
}

func offset(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	i, err := strconv.Atoi(cursor)
	if err != nil || i < 0 {
		return 0, fault.New(fault.Invalid, "fake.list", "cursor", "%q is no cursor", cursor)
	}
	return i, nil
}

// Status implements api.Service.
func (f *Fake) Status(context.Context) api.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := api.Status{Ready: f.notReady == "", Reason: f.notReady, Node: "n1", Version: "test", Shards: 1, Owned: 1,
		Tasks: map[string]int64{}, Engines: []api.EngineStatus{{Name: "fake", Models: []string{"*"}, Healthy: true, Limit: 1}},
		DiskFree: 10 << 30, DiskNeeded: 1 << 30}
	waiting := map[api.Queue]int64{}
	for _, e := range f.tasks {
		st.Tasks[e.rec.State.String()]++
		if e.rec.State == task.Pending {
			waiting[api.Queue{Model: e.rec.Spec.Model, Priority: e.rec.Spec.PriorityOr()}]++
		}
	}
	for q, n := range waiting {
		q.Waiting = n
		st.Queues = append(st.Queues, q)
	}
	return st
}

// Backup implements api.Service: it makes dir with a file in it.
func (f *Fake) Backup(_ context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		if os.IsExist(err) {
			return fault.New(fault.Conflict, "fake.backup", dir, "exists already")
		}
		return fault.New(fault.Unknown, "fake.backup", dir, "%w", err)
	}
	return os.WriteFile(filepath.Join(dir, "backup"), nil, 0o600)
}

// Ready implements api.Service.
func (f *Fake) Ready() (bool, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.notReady == "", f.notReady
}

// SetUnowned makes so many shards have no owner, as Cluster tells.
func (f *Fake) SetUnowned(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unowned = n
}

// Cluster implements api.Service.
func (f *Fake) Cluster(context.Context) api.Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	lead := &api.Lead{Node: "n1", Term: 2, Epoch: 3, Since: time.Unix(0, 0).UTC()}
	return api.Cluster{Node: "n1", Coordinator: lead,
		Members:    []api.Member{{Member: members.Member{Name: "n1"}, Alive: true, Owned: 1, Replicas: 1}},
		Shards:     []api.Shard{{Lead: lead, Version: 1, Replicas: []api.Replica{{Node: "n1", ID: 1, Voter: true, Applied: 7, Alive: true}}}},
		Redundancy: api.Redundancy{Whole: f.unowned == 0, Copies: 1, Fewest: 1, Fragile: 1, Unowned: f.unowned, Text: "1 shards, 1 copy each: no node may be lost"}}
}

// ClusterEvents implements api.Service.
func (f *Fake) ClusterEvents(context.Context) ([]api.ClusterEvent, error) {
	return []api.ClusterEvent{{At: time.Unix(0, 0).UTC(), Epoch: 3, What: "joined", Shard: -1, Node: "n1", Text: "n1 joined"}}, nil
}

// Drain implements api.Service: there is n1 alone.
func (f *Fake) Drain(_ context.Context, node string, _, _ bool) error {
	if node != "n1" {
		return fault.New(fault.NotFound, "fake.drain", node, "no such node")
	}
	return nil
}
