package sink

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// SinksMax is how many sinks a cluster has at most: a driver that works holds a batch, of batchBytes.
const SinksMax = 32

// Router is what sinks need of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
	Create(ctx context.Context, writes []persistence.Write) []error
	Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
	Newest(ctx context.Context, index string, from []byte, limit int, keep func(cluster.IndexRow) bool) ([]cluster.IndexRow, error)
}

// Item is a result as destinations take it.
type Item struct {
	Row  result.Row
	JSON []byte // a line as GET /v1/results has it; only for the format jsonl
}

// Destination takes batches. A repeat of a batch, also of one that was written in part, changes nothing that a reader sees. An error leaves
// it unusable: it is closed and opened anew.
type Destination interface {
	Write(ctx context.Context, object string, batch []Item) error
	Close() error
}

// Options of Sinks. All are needed but Failed.
type Options struct {
	Router Router

	// Results walks the final tasks between two cursors as they ended ("" as upTo: all that are complete by now), until f returns false,
	// and returns the cursor behind the last one given to f. All reads of results are made here, for a sink, under what it may see.
	Results func(ctx context.Context, sink, after, upTo string, f func(id string, r *task.Record) bool) (next string, err error)

	Line   func(id string, r *task.Record, prompt bool) ([]byte, error) // a result as a line of GET /v1/results, without its end
	Check  func(d *Definition) error                                    // refuses a destination that this node may not write to
	Open   func(ctx context.Context, d *Definition, life string) (Destination, error)
	Jitter func() float64 // in [0, 1)
	Failed func()         // a try to write has failed; nil: nobody counts
	Now    func() time.Time
	Log    *slog.Logger
}

// Sinks drives the sinks whose shards this node owns, and is how clients reach all of them. It is safe for many goroutines.
type Sinks struct {
	o    Options
	kind *entity.Kind[State, Fact]

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	running map[string]*running // at most as many as there are sinks
}

// running is a sink that is driven here.
type running struct {
	epoch  uint64
	cancel context.CancelFunc
	news   chan struct{} // it has changed; holds one
}

// New makes the sinks of a node. Kind's registration, then Attach, then messages; Stop ends it.
func New(now func() time.Time, log *slog.Logger) *Sinks {
	s := &Sinks{o: Options{Now: now, Log: log}, running: map[string]*running{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.kind = NewKind(s)
	return s
}

// Kind is to be registered with the cluster.
func (s *Sinks) Kind() cluster.Kind { return s.kind.Register() }

// Attach gives what does not exist yet when kinds are registered. Before it nothing is driven.
func (s *Sinks) Attach(o Options) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.Now, o.Log = s.o.Now, s.o.Log
	s.o = o
}

// Ensure starts a driver for a sink, or tells the one that runs that something has changed.
func (s *Sinks) Ensure(name string, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.o.Router == nil {
		return
	}
	if r := s.running[name]; r != nil {
		if r.epoch < epoch {
			r.cancel() // it is of the owner before; the timer brings the next one
		}
		select {
		case r.news <- struct{}{}:
		default: // one is waiting already
		}
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r := &running{epoch: epoch, cancel: cancel, news: make(chan struct{}, 1)}
	s.running[name] = r
	d := &driver{Options: &s.o, name: name, epoch: epoch, news: r.news}
	s.wg.Go(func() {
		defer cancel()
		err := d.run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, name)
		if err != nil && ctx.Err() == nil {
			s.o.Log.Info("a sink is not driven on by this node for now; its timer brings it back", "sink", name, "err", err)
		}
	})
}

// Stop ends all drivers and returns when they have ended. It is safe to call twice. Sinks go on where they were.
func (s *Sinks) Stop() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.wg.Wait()
}

// Create makes a sink. The same definition again is harmless, another one under the same name a Conflict.
func (s *Sinks) Create(ctx context.Context, d Definition) (State, error) {
	if err := d.Validate(); err != nil {
		return State{}, err
	}
	if err := s.o.Check(&d); err != nil {
		return State{}, err
	}
	id := tenant.Own(ctx, d.Name)
	if err := s.room(ctx, id, &d); err != nil {
		return State{}, err
	}
	m := Create{Def: &d, Life: entity.NewLife()}
	var err error
	switch d.From {
	case FromStart:
	default: // a cursor, and the end is one, too: this also tells whether it is good
		if m.Cursor, err = s.o.Results(ctx, id, d.From, "", func(string, *task.Record) bool { return false }); err != nil {
			return State{}, err
		}
		if d.From != FromEnd {
			m.Cursor = d.From
		}
	}
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

// room refuses one sink too many, and one that shares its table with another tenant's.
func (s *Sinks) room(ctx context.Context, id string, d *Definition) error {
	rows, err := s.o.Router.Newest(ctx, IndexAll, nil, SinksMax, nil)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if string(r.Key) == id {
			return nil
		}
		other, err := s.whole(ctx, string(r.Key))
		switch {
		case fault.KindOf(err) == fault.NotFound: // deleted meanwhile
		case err != nil:
			return err
		case tenant.Of(string(r.Key)) != tenant.Of(id) && other.Def.URL == d.URL && other.Def.Table == d.Table && d.Table != "":
			return fault.New(fault.Conflict, "sink.create", "table", "is that of another tenant's sink: their tasks may have the same ids, and one would hide the other").WithRemedy("name another table")
		}
	}
	if len(rows) >= SinksMax {
		return fault.New(fault.Overloaded, "sink.create", tenant.Bare(id), "there are %d sinks, which is sinks_max", SinksMax).WithRemedy("delete one: autoglm sink list")
	}
	return nil
}

// Get folds the sink's journal; it wakes nothing.
func (s *Sinks) Get(ctx context.Context, name string) (State, error) {
	if !nameForm.MatchString(name) {
		return State{}, noSuch(name)
	}
	return s.whole(ctx, tenant.Own(ctx, name))
}

// whole is Get by a whole id.
func (s *Sinks) whole(ctx context.Context, id string) (State, error) {
	st, _, err := s.kind.Load(cluster.Reader{Context: ctx, Router: s.o.Router}, id)
	if err == nil && !st.exists() {
		err = noSuch(tenant.Bare(id))
	}
	return st, err
}

// Owned is a sink with whose results it takes.
type Owned struct {
	Tenant string
	State
}

// List returns all sinks of a tenant or (whose "") of all, by tenant and name.
func (s *Sinks) List(ctx context.Context, whose string) (all []Owned, err error) {
	rows, err := s.o.Router.Newest(ctx, IndexAll, nil, SinksMax+1, nil)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		owner := tenant.Of(string(r.Key))
		if whose != "" && owner != whose {
			continue
		}
		st, err := s.whole(ctx, string(r.Key))
		if fault.KindOf(err) == fault.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, Owned{owner, st})
	}
	slices.SortStableFunc(all, func(a, b Owned) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Def.Name, b.Def.Name))
	})
	return all, nil
}

// Cursors returns up to where each sink of the cluster has delivered, by its whole id: what is behind must not go away. One that is paused holds its place.
func (s *Sinks) Cursors(ctx context.Context) (map[string]string, error) {
	rows, err := s.o.Router.Newest(ctx, IndexAll, nil, SinksMax+1, nil)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, len(rows))
	for _, r := range rows {
		id := string(r.Key)
		st, err := s.whole(ctx, id)
		switch {
		case fault.KindOf(err) == fault.NotFound: // deleted meanwhile
		case err != nil:
			return nil, err
		default:
			all[id] = st.Cursor
		}
	}
	return all, nil
}

// In walks the sinks of a shard, of all tenants, until f returns false. scan is that of the shard.
func In(scan task.Scan, f func(id string) bool) error {
	return scan(IndexAll, nil, nil, func(key, _ []byte) bool { return f(string(key)) })
}

// Whole is Get by a whole id.
func (s *Sinks) Whole(ctx context.Context, id string) (State, error) { return s.whole(ctx, id) }

// Say sends a sink Pause, Resume or Delete.
func (s *Sinks) Say(ctx context.Context, name string, msg any) (State, error) {
	if !nameForm.MatchString(name) {
		return State{}, noSuch(name)
	}
	return state(s.o.Router.Ask(ctx, Key(tenant.Own(ctx, name)), msg))
}

// lookMax bounds how many results Waiting looks at: a sink may want few of many.
const lookMax = 2000

// Waiting returns when the oldest result ended that a sink wants and does not have; zero: it has all.
func (s *Sinks) Waiting(ctx context.Context, st *State) (oldest time.Time, err error) {
	looked := 0
	_, err = s.o.Results(ctx, tenant.Own(ctx, st.Def.Name), st.Cursor, "", func(_ string, r *task.Record) bool {
		looked++
		if st.Def.wants(r) || looked >= lookMax { // there is so much to look at that it lags in any case
			oldest = r.EndedAt
			return false
		}
		return true
	})
	return oldest, err
}

func state(v any, err error) (State, error) {
	if err != nil {
		return State{}, err
	}
	s, ok := v.(State)
	if !ok {
		return State{}, fault.New(fault.Unavailable, "sink", "", "the answer is a %T", v)
	}
	return s, nil
}
