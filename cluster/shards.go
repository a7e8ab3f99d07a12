package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Options configure Shards. Store, System and Kinds are needed, the rest has defaults.
type Options struct {
	Store     persistence.Store
	System    *actor.ActorSystem
	Kinds     []Kind
	Root      *actor.RootContext                   // spawns the shard actors under its guardian; nil: the system's own
	Guard     func(actor.Producer) actor.Producer  // wraps the shard actors' producer; nil: nothing
	Strategy  actor.SupervisorStrategy             // of the entities; nil: protoactor's default
	Observers func(*Owner) map[string][]Observer   // by index name, asked before a shard opens
	Opened    func(*Owner)                         // a shard is owned: wake what must not wait for a message
	Closed    func(*Owner)                         // its actors are stopped
	Committed func(writes int, took time.Duration) // one group append ended, for metrics
	IdleAfter time.Duration                        // an entity without a message for so long is asked to sleep; default idleAfter
	Tick      time.Duration                        // between looks at timers and alarms; default shardTick
	Self      string                               // name of this node; default "local"
	Mesh      Mesh                                 // to the other nodes; nil: this node is alone
	Peers     Peers                                // who is alive; nil: this node alone
	Rumor     func([]byte)                         // gossips which shards were opened here; may be nil; must not block
	Newer     func(what string)                    // another node sent what only a newer version knows, a "message"; may be nil
	Keys      *seal.Keys                           // what is written is sealed with; nil: it is clear
	Fatal     func(error)                          // this node lacks a key that a shard of its own needs: others must own it; may be nil
	MayErase  func(shard int) error                // asked before a journal is erased: an error while a replica may run a program that does not know that; nil: yes
	MaySeal   func() error                         // asked before a shard is first sealed with a key: an error while other nodes could not open it; nil: yes
	Now       func() time.Time                     // default time.Now
	Mono      func() time.Duration                 // what waits and leases are measured by; default Monotonic
	Log       *slog.Logger                         // default slog.Default
}

// Shards opens and closes this node's shards as Raft's leadership comes and goes.
type Shards struct {
	opt    Options
	router *Router
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	owned map[int]*owned
	fail  error
	ready chan struct{} // closed when all shards were owned for the first time
}

type owned struct {
	o        *Owner
	stopTick context.CancelFunc
	ticked   chan struct{}
}

// NewShards starts following the store's leadership. Stop ends it.
func NewShards(opt Options) (*Shards, error) {
	if opt.Store == nil || opt.System == nil {
		return nil, errors.New("cluster.NewShards: Store and System are needed")
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Mono == nil {
		opt.Mono = Monotonic()
	}
	if opt.IdleAfter == 0 {
		opt.IdleAfter = idleAfter
	}
	if opt.Tick == 0 {
		opt.Tick = shardTick
	}
	if opt.Root == nil {
		opt.Root = opt.System.Root
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Self == "" {
		opt.Self = "local"
	}
	if opt.Peers == nil {
		opt.Peers = alone{Peer{Name: opt.Self, Node: opt.Store.Node(), Boot: uuid.NewString(), Engines: 1}}
	}
	if opt.Rumor == nil {
		opt.Rumor = func([]byte) {}
	}
	if opt.Newer == nil {
		opt.Newer = func(string) {}
	}
	s := &Shards{opt: opt, router: newRouter(opt.Store.Shards(), &opt), done: make(chan struct{}), owned: map[int]*owned{}, ready: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.follow()
	return s, nil
}

// Router returns the node's router.
func (s *Shards) Router() *Router { return s.router }

// Ready is closed when this node has owned all shards once: on one node alone,
// when it can serve.
func (s *Shards) Ready() <-chan struct{} { return s.ready }

// Owners returns the shards owned now, in no order.
func (s *Shards) Owners() []*Owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Owner, 0, len(s.owned))
	for _, w := range s.owned {
		all = append(all, w.o)
	}
	return all
}

// follow opens shards side by side and closes them as their lead is lost. One
// goroutine for each change of a shard, in order: the last one wins.
func (s *Shards) follow() {
	defer close(s.done)
	var wg sync.WaitGroup
	turn := map[int]chan struct{}{} // of a shard: closed when its previous change is carried out
	quit := map[int]context.CancelFunc{}
	for lead := range s.opt.Store.Leads() {
		if s.ctx.Err() != nil {
			continue // drain until the store closes the channel
		}
		if !s.router.dir.learn(lead.Shard, lead.Node, lead.Term) && !lead.Leading && lead.Node == "" {
			s.router.dir.forget(lead.Shard, s.opt.Store.Node())
		}
		before, mine := turn[lead.Shard], make(chan struct{})
		turn[lead.Shard] = mine
		if stop := quit[lead.Shard]; stop != nil {
			stop() // an opening that is under way is out of date
		}
		ctx, cancel := context.WithCancel(s.ctx)
		quit[lead.Shard] = cancel
		wg.Go(func() {
			defer close(mine)
			if before != nil {
				<-before
			}
			if !lead.Leading {
				s.close(lead.Shard)
				return
			}
			if err := s.open(ctx, lead); err != nil && ctx.Err() == nil {
				s.opt.Log.Error("shard cannot be opened", "shard", lead.Shard, "err", err)
				s.mu.Lock()
				s.fail = err
				s.mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, stop := range quit {
		stop()
	}
}

// Places returns, as gossip carries it, which node is believed to own each shard.
func (s *Shards) Places() []byte { return s.router.dir.encode() }

// Merge takes in what Places or Options.Rumor gave on another node.
func (s *Shards) Merge(b []byte) { s.router.dir.merge(b) }

// Err returns why a shard could not be opened, or nil.
func (s *Shards) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

func (s *Shards) open(ctx context.Context, lead persistence.Lead) error {
	n := lead.Shard
	s.close(n) // a lead won again starts a new epoch with new actors
	j := s.opt.Store.Journal(n)
	epoch, err := acquire(ctx, j)
	if err != nil {
		return err
	}
	if err := keepPrint(ctx, j, epoch, s.opt.Keys, s.opt.MaySeal); err != nil {
		if fault.KindOf(err) == fault.Refused && s.opt.Fatal != nil {
			s.opt.Fatal(err)
		}
		return err
	}
	o := &Owner{shard: n, epoch: epoch, journal: j, keys: s.opt.Keys, sys: s.opt.System, router: s.router, now: s.opt.Now, mono: s.opt.Mono, mayErase: s.opt.MayErase, term: lead.Term, since: s.opt.Now(), gone: make(chan struct{})}
	if s.opt.Mesh != nil {
		o.confirms = &confirmer{journal: j, shard: n, epoch: epoch}
	}
	o.appender = &appender{journal: j, epoch: epoch, keys: s.opt.Keys, applied: o.applied, observe: s.opt.Committed, now: s.opt.Now}
	t := &timers{next: s.opt.Now()} // look at once for what fell due while nobody owned the shard
	if s.opt.Observers != nil {
		o.observers = s.opt.Observers(o)
	}
	if o.observers == nil {
		o.observers = map[string][]Observer{}
	}
	o.observers[TimerIndex] = append(o.observers[TimerIndex], t.observe)
	kinds := map[string]Kind{}
	for _, k := range s.opt.Kinds {
		kinds[k.Name()] = k
	}
	opts := []actor.PropsOption{actor.WithDispatcher(Dispatcher)}
	if s.opt.Strategy != nil {
		opts = append(opts, actor.WithSupervisor(s.opt.Strategy))
	}
	producer := func() actor.Actor {
		return &shard{o: o, kinds: kinds, log: s.opt.Log, timers: t, idle: s.opt.IdleAfter, awake: map[persistence.Key]*entity{}, byPID: map[string]persistence.Key{}}
	}
	if s.opt.Guard != nil {
		producer = s.opt.Guard(producer)
	}
	o.pid = s.opt.Root.Spawn(actor.PropsFromProducer(producer, opts...))
	tctx, stop := context.WithCancel(context.Background())
	w := &owned{o: o, stopTick: stop, ticked: make(chan struct{})}
	go w.tick(tctx, s.opt.System, s.opt.Tick)
	s.mu.Lock()
	if ctx.Err() != nil { // stopped, or the lead has moved on: whoever closes the shards did not see this one
		s.mu.Unlock()
		stop()
		<-w.ticked
		_ = s.opt.System.Root.StopFuture(o.pid).Wait()
		return ctx.Err()
	}
	s.owned[n] = w
	all := len(s.owned) == s.opt.Store.Shards()
	s.mu.Unlock()
	s.router.set(n, o)
	s.opt.Rumor(appendPlace(nil, n, lead.Term, s.opt.Store.Node()))
	if s.opt.Opened != nil {
		s.opt.Opened(o)
	}
	if all {
		s.mu.Lock()
		select {
		case <-s.ready:
		default:
			close(s.ready)
		}
		s.mu.Unlock()
	}
	return nil
}

func (w *owned) tick(ctx context.Context, sys *actor.ActorSystem, every time.Duration) {
	defer close(w.ticked)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			sys.Root.Send(w.o.pid, tick{})
		}
	}
}

// close stops a shard's actors. What they still append is refused.
func (s *Shards) close(n int) {
	s.mu.Lock()
	w := s.owned[n]
	delete(s.owned, n)
	s.mu.Unlock()
	if w == nil {
		return
	}
	s.router.set(n, nil)
	w.o.closed.Store(true)
	w.stopTick()
	<-w.ticked
	close(w.o.gone)
	w.o.appender.close(fault.New(fault.Fenced, "cluster.append", "", "this node no longer owns shard %d", n))
	_ = s.opt.System.Root.StopFuture(w.o.pid).Wait() // its only error is a time-out, and nothing here can hurry an actor
	if s.opt.Closed != nil {
		s.opt.Closed(w.o)
	}
}

// Stop closes all shards. The store's Close ends the following goroutine; Stop
// does not wait for it. It is safe to call twice.
func (s *Shards) Stop() {
	s.cancel()
	for _, o := range s.Owners() {
		s.close(o.shard)
	}
}

// Wait returns after the store closed its Leads and the last change was carried out.
func (s *Shards) Wait() { <-s.done }
