package actors

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/fair"
	"github.com/open-autoglm/autoglm/actors/far"
	"github.com/open-autoglm/autoglm/actors/hedge"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/supervise"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Engine is one engine and how much it may be asked at once.
type Engine struct {
	infer.Engine
	Endpoints   []string // of OpenAI's API, that it serves; none: chat
	Concurrency int
	Knee        bool // how much of Concurrency is worth it is found out
	Prefetch    int
}

// Options configure a System. Node, Store, Runner and Meter are needed.
type Options struct {
	Node      string        // kept in each attempt where Self is empty
	Self      string        // name of this node in the cluster, kept in each attempt; empty: it is alone, and Node names it
	Mesh      cluster.Mesh  // to the other nodes; nil: this node is alone. It starts after Start returned
	Peers     cluster.Peers // who is alive, this node included; nil: this node alone
	Rumor     func([]byte)  // see cluster.Options; may be nil
	Store     persistence.Store
	Engines   []Engine
	Policy    task.Policy
	Window    batch.Window
	Fair      fair.Policy
	Rules     batch.Rules
	Hedge     hedge.Rule                          // zero: no attempt is run twice
	Callbacks func(callback.Asker) task.Callbacks // nil: nothing calls back
	Runner    *infer.Runner
	Kinds     []cluster.Kind        // a user's own, beside the task
	IdleAfter time.Duration         // an actor of a user's kind without a message for so long leaves memory; 0: 30 s
	Reconcile time.Duration         // how often queues are compared with the exact counters; 0: 10 s
	Opened    func(*cluster.Owner)  // a shard is owned here, after its queue is open; may be nil
	Closed    func(*cluster.Owner)  // its actors are stopped; may be nil
	Fatal     func(error)           // a vital actor is given up, or a key is missing: the node cannot go on; may be nil
	Keys      *seal.Keys            // see cluster.Options; may be nil
	MaySeal   func() error          // see cluster.Options; may be nil
	MayErase  func(shard int) error // see cluster.Options; may be nil
	Meter     *meter.Meter
	Now       func() time.Time
	Mono      func() time.Duration // what leases are measured by; nil: cluster.Monotonic
	Log       *slog.Logger
}

// System is the running actors of one node.
type System struct {
	Tasks  *entity.Kind[task.Record, task.Fact]
	Router *cluster.Router
	Shards *cluster.Shards
	Quota  *quota.Desk

	opt     Options
	sys     *actor.ActorSystem
	root    *actor.RootContext // its guardian restarts what the node cannot live without
	cures   []*supervise.Strategy
	batcher *actor.PID
	board   *hedge.Board
	engines []*running // by the order in which they were added
	parts   []batch.Part
	ended   bool // no engine comes any more

	held    *task.Held
	watch   watch
	farOnce sync.Once
	far     *far.Far // see reach

	mu        sync.Mutex
	queues    map[*cluster.Owner]*task.Queue
	open      map[*cluster.Owner]bool // those of queues that can be used: the owner is published
	tokens    infer.Estimators
	callbacks late
}

// late lets the task kind exist before the router that callbacks need.
type late struct{ task.Callbacks }

func (l *late) Deliver(id string, r task.Record, try int) {
	if l.Callbacks != nil {
		l.Callbacks.Deliver(id, r, try)
	}
}

// Start builds the whole supervision tree. The shards open as the store gains their
// lead; see Shards.Ready.
func Start(o Options) (*System, error) {
	if o.Self == "" {
		o.Self = o.Node
	}
	if o.Mono == nil {
		o.Mono = cluster.Monotonic()
	}
	s := &System{opt: o, held: task.NewHeld(o.Mono), watch: newWatch(), queues: map[*cluster.Owner]*task.Queue{}, open: map[*cluster.Owner]bool{}, tokens: infer.Estimators{}}
	s.sys = actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(quieter{o.Log.Handler()}) }),
		actor.WithDeadLetterRequestLogging(false)) // a message to an entity that went to sleep is ordinary
	entities, err := s.supervise()
	if err != nil {
		return nil, err
	}
	s.Quota = quota.NewDesk(quota.Options{Alone: o.Mesh == nil, Boot: s.bootOr, Mono: o.Mono, Log: o.Log, Changed: func() { s.sys.Root.Send(s.batcher, batch.Again{}) }})
	if s.board, err = hedge.NewBoard(o.Hedge, o.Now); err != nil {
		return nil, err
	}
	b, err := batch.New(s.batching())
	if err != nil {
		return nil, err
	}
	s.batcher = s.root.Spawn(b)
	o.Policy.Abort = func(u task.UnderWay) { s.far.Abort(u) } // it runs in shards, which open after reach
	s.Tasks = task.NewKind(o.Policy, &s.callbacks, s.observe(task.KindName, s.finished))
	s.Shards, err = cluster.NewShards(cluster.Options{
		Store: o.Store, System: s.sys, Kinds: append([]cluster.Kind{s.Tasks.Register(), quota.Kind()}, o.Kinds...),
		Root: s.root, Guard: supervise.Guard, Strategy: entities, IdleAfter: o.IdleAfter, Keys: o.Keys, MaySeal: o.MaySeal, MayErase: o.MayErase, Fatal: o.Fatal, Now: o.Now, Mono: o.Mono, Log: o.Log,
		Self: o.Self, Mesh: o.Mesh, Peers: o.Peers, Rumor: o.Rumor,
		Newer:     func(what string) { o.Meter.Newer.WithLabelValues(what).Inc() },
		Observers: s.opening, Opened: s.opened, Closed: s.closed,
		Committed: func(n int, took time.Duration) {
			o.Meter.Commit.Observe(took.Seconds())
			o.Meter.CommitGroup.Observe(float64(n))
		},
	})
	if err != nil {
		return nil, err
	}
	s.Router = s.Shards.Router()
	s.reach(s.Router)
	s.Quota.Start(s.Router)
	if o.Callbacks != nil {
		s.callbacks.Callbacks = o.Callbacks(s.Router)
	}
	o.Runner.Learn = s.learn
	for _, e := range o.Engines {
		if err := s.AddEngine(e); err != nil {
			return nil, err
		}
	}
	s.watch.wg.Go(s.look)
	s.watch.wg.Go(s.lookAtPeers)
	return s, nil
}

// batching says what the batcher needs of this system.
func (s *System) batching() batch.Options {
	b := batch.Options{Quota: s.Quota, Window: s.opt.Window, Fair: s.opt.Fair, Rules: s.opt.Rules, Claim: s.claim, Estimate: s.estimate, Resync: s.resync, Parts: s.partsNow, Now: s.opt.Now, Log: s.opt.Log,
		Arrived: func(w *task.Work) { w.Arrive(s.Router, s.held) }}
	own := b.Fair.Weight
	b.Fair.Weight = func(tenant string) float64 {
		if w, ok := s.Quota.Weight(tenant); ok {
			return w
		}
		if own == nil {
			return 1
		}
		return own(tenant)
	}
	if s.board != nil {
		b.Late = s.board.Late
	}
	if s.opt.Mesh != nil {
		b.AskFar = func(models []string) { s.far.Ask(models) }
		if s.board != nil {
			b.LateFar = func(w *task.Work) bool { return s.far.Second(w) }
		}
	}
	return b
}

func (s *System) partsNow() []batch.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.parts)
}

// claim says for whom a claim is: this node, in this life of its process. It runs after credit was given, so after Start.
func (s *System) claim(engine string) *task.Claim {
	return &task.Claim{Node: s.Router.Self(), Boot: s.boot(), Engine: engine}
}

// bootOr is boot for quotas: who is alone need not be told apart.
func (s *System) bootOr() string {
	if b := s.boot(); b != "" || s.opt.Mesh != nil {
		return b
	}
	return s.Router.Self()
}

// boot is this process as the other nodes know it, "" before they can.
func (s *System) boot() string {
	for _, p := range s.Router.Alive() {
		if p.Name == s.Router.Self() {
			return p.Boot
		}
	}
	return ""
}

// reach makes the ways to other nodes' queues, once there is a router: a shard may open before Start has it.
func (s *System) reach(r *cluster.Router) *far.Far {
	s.farOnce.Do(func() {
		s.far = far.New(far.Options{Router: r, Owned: s.queue, All: s.openQueues, Held: s.held, Board: s.board, Now: s.opt.Now, Log: s.opt.Log,
			Visit: func(w *task.Work) { s.sys.Root.Send(s.batcher, &batch.Visit{Work: w}) },
			Ended: func(w *task.Work, a task.Answer, err error, broken bool) {
				if of, ends := infer.Ends(w, s.opt.Meter, err, broken); ends {
					infer.Postman{Router: r, Meter: s.opt.Meter, Log: s.opt.Log}.Bring(w, a, of)
				}
			},
			Ready: func(q batch.Queue, name task.QueueName, at time.Time) {
				s.sys.Root.Send(s.batcher, &batch.Ready{Queue: q, Name: name, At: at})
			}})
	})
	return s.far
}

// supervise makes the two strategies: one bad entity is stopped alone and spares its
// neighbors; batcher, inference actors and shards are restarted whatever befell them,
// and given up, with the node, only when that does not help.
func (s *System) supervise() (entities actor.SupervisorStrategy, err error) {
	count := func(e supervise.Event) {
		s.opt.Meter.Failures.WithLabelValues(e.Kind.String(), e.Action.String()).Inc()
	}
	e, err := supervise.New(supervise.Options{Log: s.opt.Log, Observe: count})
	if err != nil {
		return nil, err
	}
	vital, err := supervise.New(supervise.Options{Vital: true, Log: s.opt.Log, Observe: func(e supervise.Event) {
		count(e)
		if e.Action != supervise.Restart && s.opt.Fatal != nil {
			s.opt.Fatal(fault.New(fault.Unavailable, "actors", e.Child, "a vital actor failed %d times, the last time with: %v", e.Failures, e.Reason))
		}
	}})
	if err != nil {
		return nil, err
	}
	s.cures = []*supervise.Strategy{e, vital}
	s.root = s.sys.Root.WithGuardian(vital)
	return e, nil
}

// opening gives a shard that is about to open its queue.
func (s *System) opening(o *cluster.Owner) map[string][]cluster.Observer {
	reach := s.reach(o.Router())
	q := task.NewQueue(o, func(q *task.Queue, name task.QueueName, at time.Time) {
		s.sys.Root.Send(s.batcher, &batch.Ready{Queue: q, Name: name, At: at})
		reach.Waits(q.Shard(), name, at)
	})
	if err := q.Resume(); err != nil {
		s.opt.Log.Error("the ends of a shard's tasks cannot be read", "shard", o.Shard(), "err", err)
	}
	s.mu.Lock()
	s.queues[o] = q
	s.mu.Unlock()
	return map[string][]cluster.Observer{task.IndexReady: {q.Observe}}
}

func (s *System) opened(o *cluster.Owner) {
	s.mu.Lock()
	s.open[o] = true
	s.mu.Unlock()
	s.sys.Root.Send(s.batcher, &batch.Closed{Queue: s.reach(o.Router()).Queue(o.Shard())}) // it is near from now on
	s.watch.opened()
	if err := s.queue(o).Open(); err != nil {
		s.opt.Log.Error("a shard's queue cannot be read", "shard", o.Shard(), "err", err)
	}
	if s.opt.Opened != nil {
		s.opt.Opened(o)
	}
}

func (s *System) closed(o *cluster.Owner) {
	if s.opt.Closed != nil {
		s.opt.Closed(o)
	}
	s.sys.Root.Send(s.batcher, &batch.Closed{Queue: s.queue(o)})
	s.mu.Lock()
	delete(s.queues, o)
	delete(s.open, o)
	s.mu.Unlock()
}

func (s *System) queue(o *cluster.Owner) *task.Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues[o]
}

func (s *System) openQueues() []*task.Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	qs := make([]*task.Queue, 0, len(s.open))
	for o := range s.open {
		qs = append(qs, s.queues[o])
	}
	return qs
}

// resync runs in a batcher that starts, maybe again.
func (s *System) resync() {
	s.mu.Lock()
	es := slices.Clone(s.engines)
	s.mu.Unlock()
	for _, q := range s.openQueues() {
		q.Announce()
	}
	for _, e := range es {
		s.sys.Root.Send(e.pid, infer.Resync{})
	}
}

// toolCost is what a tool's call counts in tokens: were it free, a tenant with many of them would always be first.
const toolCost = 100

// estimate is the tokens of a work's prompt, and with those that its answer is expected to have.
func (s *System) estimate(w *task.Work) (prompt, all int) {
	ms := w.Record.Conversation()
	if raw := w.Record.Spec.Request; len(raw) > 0 {
		ms = []infer.Message{{Content: string(raw)}} // its quotes and braces count too: near enough to fill a batch
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := w.Record.Lane()
	if l.Endpoint == task.EndpointTool {
		return 0, toolCost
	}
	prompt = s.tokens.Estimate(l.Model, ms)
	return prompt, prompt + s.tokens.Output(l.Model, w.Record.Spec.MaxTokens)
}

func (s *System) learn(model string, ms []infer.Message, promptTokens, outputTokens int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.Observe(model, ms, promptTokens, outputTokens)
}

// observe counts what the entities of a kind do.
func (s *System) observe(kind string, also func(entity.Note)) func(entity.Note) {
	m := s.opt.Meter
	activated, passivated := m.Entity.WithLabelValues(kind, "activated"), m.Entity.WithLabelValues(kind, "passivated")
	committed, awake := m.Entity.WithLabelValues(kind, "committed"), m.Actors.WithLabelValues(kind)
	return func(n entity.Note) {
		switch n.What {
		case entity.Activated:
			activated.Inc()
			awake.Inc()
		case entity.Stopped:
			passivated.Inc()
			awake.Dec()
		case entity.Committed:
			committed.Inc()
		case entity.Skipped:
			m.Newer.WithLabelValues("event").Inc()
		default:
			m.Entity.WithLabelValues(kind, string(n.What)).Inc()
		}
		if also != nil {
			also(n)
		}
	}
}

// finished counts tasks as they become final.
func (s *System) finished(n entity.Note) {
	if n.What != entity.Committed {
		return
	}
	if r, ok := n.State.(task.Record); ok && r.State.Final() && r.UpdatedAt.Equal(r.EndedAt) {
		s.opt.Meter.Finished.WithLabelValues(r.State.String()).Inc()
		s.opt.Meter.Observe(meter.PhaseTotal, r.EndedAt.Sub(r.CreatedAt))
	}
}

// Busy returns how many requests are under way, and answers on their way to tasks.
func (s *System) Busy() (n int) {
	for _, e := range s.Engines() {
		n += e.InFlight + e.Unrecorded
	}
	return n
}

// Drain stops claiming and waits until what runs has ended, or ctx ends.
func (s *System) Drain(ctx context.Context) {
	_ = s.sys.Root.StopFuture(s.batcher).Wait() // only a time-out, and then Stop ends it
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for s.Busy() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// StopEngines ends the inference actors. What still ran is taken over by its owner, once that sees that this
// process is gone, without costing a try. It is safe to call twice.
func (s *System) StopEngines() {
	s.watch.stop()
	s.Quota.Stop()
	s.far.Stop() // ends a roll call under way
	s.watch.wg.Wait()
	for _, c := range s.cures {
		c.Stop()
	}
	s.mu.Lock()
	es := slices.Clone(s.engines)
	s.ended = true
	s.mu.Unlock()
	for _, e := range es {
		_ = s.sys.Root.StopFuture(e.pid).Wait() // only a time-out
	}
}

// Stop ends all actors: engines first, then shards with their entities. It is safe
// to call twice.
func (s *System) Stop() {
	s.StopEngines()
	s.Shards.Stop()
	s.sys.Shutdown()
}

// quieter passes the library's warnings on and drops what it says of its own life.
type quieter struct{ slog.Handler }

func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}
