package schedule

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	// SchedulesMax is how many schedules a tenant has at most.
	SchedulesMax = 1000

	passesMax = 32 // schedules that a node works for at once; the others' timers come again
)

// Router is what schedules need of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
	Create(ctx context.Context, writes []persistence.Write) []error
	Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
	Newest(ctx context.Context, index string, from []byte, limit int, keep func(cluster.IndexRow) bool) ([]cluster.IndexRow, error)
}

// Options of Schedules. All are needed. Ids are whole.
type Options struct {
	Router Router
	Submit func(ctx context.Context, id string, spec *task.Spec) error // makes a task; the same again is harmless
	Ended  func(ctx context.Context, id string) (bool, error)          // tells whether a task is final
	Check  func(ctx context.Context, spec *task.Spec) error            // refuses, for whom ctx is, a task that could only fail
	Now    func() time.Time
	Log    *slog.Logger
}

// Schedules drives the schedules whose shards this node owns, and is how clients reach all of them. It is safe for many goroutines.
type Schedules struct {
	o    Options
	kind *entity.Kind[State, Fact]

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	running map[string]*running // at most passesMax
}

// running is a schedule that is being worked for here.
type running struct {
	epoch uint64
	again bool // something has changed since it began
}

// New makes the schedules of a node. Kind's registration, then Attach, then messages; Stop ends it.
func New(now func() time.Time, log *slog.Logger) *Schedules {
	s := &Schedules{o: Options{Now: now, Log: log}, running: map[string]*running{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.kind = NewKind(s)
	return s
}

// Kind is to be registered with the cluster.
func (s *Schedules) Kind() cluster.Kind { return s.kind.Register() }

// Attach gives what does not exist yet when kinds are registered. Before it nothing is driven.
func (s *Schedules) Attach(o Options) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.Now, o.Log = s.o.Now, s.o.Log
	s.o = o
}

// Ensure begins to work for a schedule, or, where that is under way, has it look once more.
func (s *Schedules) Ensure(id string, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.running[id]
	switch {
	case s.ctx.Err() != nil || s.o.Router == nil:
		return
	case r != nil:
		r.epoch, r.again = max(r.epoch, epoch), true
		return
	case len(s.running) >= passesMax:
		return // its timer comes again
	}
	s.running[id] = &running{epoch: epoch}
	s.wg.Go(func() { s.work(id, epoch) })
}

func (s *Schedules) work(id string, epoch uint64) {
	for {
		err := s.pass(s.ctx, id, epoch)
		if err != nil && s.ctx.Err() == nil && fault.KindOf(err) != fault.Conflict {
			s.o.Log.Info("a schedule waits; its timer brings it back", "schedule", id, "err", err)
		}
		s.mu.Lock()
		r := s.running[id]
		if !r.again || s.ctx.Err() != nil {
			delete(s.running, id)
			s.mu.Unlock()
			return
		}
		epoch, r.again = r.epoch, false
		s.mu.Unlock()
	}
}

// Stop ends what is under way and returns after it. It is safe to call twice. Schedules go on where they were.
func (s *Schedules) Stop() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.wg.Wait()
}

// Create makes a schedule. The same plan again is harmless, another one under the same name a Conflict.
func (s *Schedules) Create(ctx context.Context, p Plan) (State, error) {
	if err := p.Validate(); err != nil {
		return State{}, err
	}
	if err := s.o.Check(ctx, p.Task); err != nil {
		return State{}, err
	}
	rows, err := s.o.Router.Newest(ctx, tenant.Index(IndexAll, tenant.From(ctx)), nil, SchedulesMax, nil)
	if err != nil {
		return State{}, err
	}
	id := tenant.Own(ctx, p.Name)
	there := false
	for _, r := range rows {
		there = there || string(r.Key) == id
	}
	if now := s.o.Now(); !there && p.End != nil && !p.End.After(now) { // the same plan again is harmless, however late
		return State{}, fault.New(fault.Invalid, "schedule.create", "end", "is %s, which is over: there would be no time", p.End.Format(time.RFC3339)).WithRemedy("use a time after now, or leave it out")
	}
	if !there && len(rows) >= SchedulesMax {
		return State{}, fault.New(fault.Overloaded, "schedule.create", p.Name, "there are %d schedules, which is schedules_max", SchedulesMax).WithRemedy("delete one: autoglm schedule list")
	}
	m := Create{Plan: &p, Life: entity.NewLife()}
	st, w, err := s.kind.First(id, m, s.o.Now)
	if err != nil {
		return State{}, err
	}
	err = s.o.Router.Create(ctx, []persistence.Write{w})[0]
	if fault.KindOf(err) == fault.Conflict { // there is one, or there was
		return state(s.o.Router.Ask(ctx, Key(id), m))
	}
	return st, err
}

// Get folds the schedule's journal; it wakes nothing.
func (s *Schedules) Get(ctx context.Context, name string) (State, error) {
	if !nameForm.MatchString(name) {
		return State{}, noSuch(name)
	}
	st, _, err := s.kind.Load(cluster.Reader{Context: ctx, Router: s.o.Router}, tenant.Own(ctx, name))
	if err == nil && !st.exists() {
		err = noSuch(name)
	}
	return st, err
}

// List returns all schedules of the tenant that ctx is for, by name.
func (s *Schedules) List(ctx context.Context) (all []State, err error) {
	rows, err := s.o.Router.Newest(ctx, tenant.Index(IndexAll, tenant.From(ctx)), nil, SchedulesMax+1, nil)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		st, err := s.Get(ctx, tenant.Bare(string(r.Key)))
		if fault.KindOf(err) == fault.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

// Say sends a schedule Pause, Resume, Fire or Delete.
func (s *Schedules) Say(ctx context.Context, name string, msg any) (State, error) {
	if !nameForm.MatchString(name) {
		return State{}, noSuch(name)
	}
	return state(s.o.Router.Ask(ctx, Key(tenant.Own(ctx, name)), msg))
}

func state(v any, err error) (State, error) {
	if err != nil {
		return State{}, err
	}
	st, ok := v.(State)
	if !ok {
		return State{}, fault.New(fault.Unavailable, "schedule", "", "the answer is a %T", v)
	}
	return st, nil
}
