package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Owner is one shard as owned by this node under one epoch. Its actors reach the
// shard's memory, timers and neighbors through it. It is safe for many goroutines.
type Owner struct {
	shard    int
	epoch    uint64
	journal  persistence.Journal
	appender *appender
	keys     *seal.Keys // nil: nothing is sealed here
	sys      *actor.ActorSystem
	router   *Router
	pid      *actor.PID // of the shard actor, set before the owner is published
	now      func() time.Time
	mono     func() time.Duration

	observers map[string][]Observer // by index name; fixed before the owner is published
	alarms    alarms
	watchers  watchers
	active    atomic.Int64
	closed    atomic.Bool
	mayErase  func(int) error // of the shard; nil: always
	term      uint64
	since     time.Time
	gone      chan struct{} // closed when this node owns the shard no more
	floor     atomic.Int64  // newest that Now returned, Unix nanoseconds
	behind    struct {      // while the clock is behind floor
		mu    sync.Mutex
		read  time.Time // what the clock said
		floor int64     // what floor became by that
	}
	confirms *confirmer // nil where nobody else can own the shard
	hands    inHand
}

// Observer hears of index rows after they are durable, before the writer does. It
// is called from many goroutines and must not block.
type Observer func(rows []persistence.Index)

// Shard returns the shard's number.
func (o *Owner) Shard() int { return o.shard }

// Epoch returns the epoch that fences earlier owners; outside effects carry it.
func (o *Owner) Epoch() uint64 { return o.epoch }

// Term returns the Raft term in which this node won the shard's lead.
func (o *Owner) Term() uint64 { return o.term }

// Since returns when this owner opened.
func (o *Owner) Since() time.Time { return o.since }

// Now returns the shard's time: the injected one, but never less than before, nor than NotBefore. So what is ordered by time stays
// in order when a clock is set back, or when the shard moves to a node whose clock is behind. Until the clock has caught up
// the shard's time goes on at half its pace: it must not stand still, for tasks wait by it.
func (o *Owner) Now() time.Time {
	t := o.now()
	for n := t.UnixNano(); ; {
		switch floor := o.floor.Load(); {
		case n < floor:
			return o.ahead()
		case o.floor.CompareAndSwap(floor, n):
			return t
		}
	}
}

// ahead is Now while the clock is behind.
func (o *Owner) ahead() time.Time {
	o.behind.mu.Lock()
	defer o.behind.mu.Unlock()
	t := o.now() // under the lock: readings in any other order would count an interval twice
	floor := o.floor.Load()
	passed := time.Duration(0)
	if floor == o.behind.floor { // nothing else has set it since the last look
		passed = max(0, t.Sub(o.behind.read)) // by the monotonic clock, where t has one
	}
	next := max(floor, t.UnixNano(), floor+int64(passed/2))
	if !o.floor.CompareAndSwap(floor, next) {
		return time.Unix(0, o.floor.Load()) // set further on just now
	}
	o.behind.floor, o.behind.read = next, t
	return time.Unix(0, next)
}

// Wall returns the injected time as it is: for what a client gave as a time of day.
func (o *Owner) Wall() time.Time { return o.now() }

// Local returns by this node's clock when the shard's time will be t: for who waits by a clock of its own.
func (o *Owner) Local(t time.Time) time.Time { return o.now().Add(t.Sub(o.Now())) }

// NotBefore makes Now start at t. It is for who finds, as the shard opens, what an earlier owner wrote by a clock that was
// ahead.
func (o *Owner) NotBefore(t time.Time) {
	for n := t.UnixNano(); ; {
		if floor := o.floor.Load(); n <= floor || o.floor.CompareAndSwap(floor, n) {
			return
		}
	}
}

// Router reaches any entity of the cluster.
func (o *Owner) Router() *Router { return o.router }

// Active returns how many entities are awake.
func (o *Owner) Active() int64 { return o.active.Load() }

// Append makes one write durable together with those of other actors of the shard
// and calls done once. A Fenced error means that this owner's time is over.
func (o *Owner) Append(w persistence.Write, done func(persistence.Outcome, error)) {
	o.appender.add(w, done)
}

// MayErase is nil when all replicas of the shard know how a journal is erased: one that does not could not go on.
func (o *Owner) MayErase() error {
	if o.mayErase == nil {
		return nil
	}
	return o.mayErase(o.shard)
}

// Begin says that a message is in hand whose behavior reads the clock; see Settled.
func (o *Owner) Begin() *InHand { return o.hands.begin(o.Now) }

// Settled returns a time before which nothing is under way any more: an index ordered by the shard's time is complete before it, for
// rows of messages that were in hand by Begin. In whole microseconds, as keys are.
func (o *Owner) Settled() time.Time {
	t := o.Now() // first: what is taken in hand after it begins then or later, whatever the clock does
	if began, some := o.hands.oldest(); some && began.Before(t) {
		t = began
	}
	return t.Truncate(time.Microsecond)
}

// Read returns a journal as it stands; see persistence.Journal.
func (o *Owner) Read(key persistence.Key, after uint64) (persistence.Log, error) {
	l, err := o.journal.Read(key, after)
	if err == nil {
		err = o.keys.Log(key, &l)
	}
	if err != nil {
		return persistence.Log{}, err
	}
	return l, nil
}

// Scan walks an index; see persistence.Journal.
func (o *Owner) Scan(index string, from, to []byte, f func(key, value []byte) bool) error {
	var bad error
	err := o.journal.Scan(index, from, to, func(key, value []byte) bool {
		if value, bad = o.keys.Value(index, key, value); bad != nil {
			return false
		}
		return f(key, value)
	})
	if err == nil {
		err = bad
	}
	return err
}

// Counters returns the shard's counters.
func (o *Owner) Counters() (map[string]int64, error) { return o.journal.Counters() }

// Watch returns a channel that gets a value after each append to key, merged when
// the reader is slow, and a function that ends it.
func (o *Owner) Watch(key persistence.Key) (<-chan struct{}, func()) { return o.watchers.add(key) }

// Tell posts a message to an entity of this shard and does not wait. After the
// shard is closed it is refused; one that is on its way just then is never
// answered, so whoever waits for an answer needs a time limit.
func (o *Owner) Tell(e *Envelope) {
	if o.closed.Load() {
		e.Answer(nil, fault.New(fault.Fenced, "cluster.tell", e.Key.String(), "shard %d is closed", o.shard))
		return
	}
	o.sys.Root.Send(o.pid, e)
}

// ask is Tell and waits for the answer until ctx ends or the shard is closed.
func (o *Owner) ask(ctx context.Context, key persistence.Key, msg any) (any, error) {
	v, _, err := o.send(ctx, &Envelope{Key: key, Msg: msg})
	return v, err
}

// send is ask with an envelope, whose Reply it sets; it returns the entity's version beside the answer.
func (o *Owner) send(ctx context.Context, e *Envelope) (any, uint64, error) {
	type answer struct {
		v       any
		version uint64
		err     error
	}
	c := make(chan answer, 1) // Reply is called at most once
	e.Reply = func(v any, err error) { c <- answer{v, e.Version, err} }
	o.Tell(e)
	select {
	case a := <-c:
		return a.v, a.version, a.err
	case <-o.gone:
	case <-ctx.Done():
	}
	select {
	case a := <-c: // it was answered in the same moment
		return a.v, a.version, a.err
	default:
	}
	if ctx.Err() != nil {
		return nil, 0, fault.New(fault.Timeout, "cluster.ask", e.Key.String(), "%w", context.Cause(ctx))
	}
	return nil, 0, fault.New(fault.Fenced, "cluster.ask", e.Key.String(), "shard %d moved before the answer", o.shard)
}

// create appends the first rows of journals and waits until ctx ends. An error for each that is not durable
// for sure.
func (o *Owner) create(ctx context.Context, writes []persistence.Write) []error {
	if len(writes) == 0 {
		return nil
	}
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(writes)) // room for all: a late append never blocks
	done := make([]func(persistence.Outcome, error), len(writes))
	for i := range writes {
		done[i] = func(_ persistence.Outcome, err error) { results <- result{i, err} }
	}
	o.appender.addAll(writes, done)
	errs := make([]error, len(writes))
	answered := make([]bool, len(writes))
	for range writes {
		select {
		case res := <-results:
			errs[res.i], answered[res.i] = res.err, true
		case <-ctx.Done():
			err := fault.New(fault.Timeout, "cluster.create", "", "%w", context.Cause(ctx))
			for i := range errs {
				if !answered[i] {
					errs[i] = err // it may be durable all the same: the same write may be sent again
				}
			}
			return errs
		}
	}
	return errs
}

// applied runs after each durable group: observers first, then watchers. index has the index rows of each write, in clear.
func (o *Owner) applied(writes []persistence.Write, index [][]persistence.Index, out []persistence.Outcome) {
	for name, obs := range o.observers {
		var rows []persistence.Index
		for i := range writes {
			if out[i].Err != nil {
				continue
			}
			for _, r := range index[i] {
				if r.Name == name {
					rows = append(rows, r)
				}
			}
		}
		if len(rows) > 0 {
			for _, f := range obs {
				f(rows)
			}
		}
	}
	o.watchers.changed(writes)
}

// Envelope is one message on its way to an entity. Reply is called at most once,
// from any goroutine, must not block, and may be nil.
type Envelope struct {
	Key   persistence.Key
	Msg   any
	Reply func(answer any, err error)

	ID      string // of the request, the same in each retry; "": the sender gave none
	Sum     uint64 // of the message as it was sent: the same ID with another Sum is another message
	Version uint64 // of the entity, which sets it before it answers

	answered atomic.Bool
}

// Answer calls Reply where there is one, and only the first time: a crash after an
// answer must not give a second one.
func (e *Envelope) Answer(v any, err error) {
	if e.Reply != nil && e.answered.CompareAndSwap(false, true) {
		e.Reply(v, err)
	}
}

// Wake is the message of a timer or an alarm that is due.
type Wake struct{}

// Kind supplies the actors of one kind of entity. An entity gets *Envelope
// messages and asks its parent for sleep with Passivate.
type Kind interface {
	Name() string
	Props(o *Owner, id string) *actor.Props
	Types() *Types // of the messages and answers that may come from other nodes; nil: none
}

// Passivate is sent by an entity to its shard: stop me, unless you sent more than
// I have seen.
type Passivate struct {
	Key  persistence.Key
	Seen uint64 // envelopes received in this incarnation's actor
}

// Idle is sent by a shard to an entity that had no message for a while: sleep if
// you can.
type Idle struct{}

// watchers tells readers that a journal grew.
type watchers struct {
	n  atomic.Int64 // watchers in all, so that an append without any costs nothing
	mu sync.Mutex
	by map[persistence.Key]map[chan struct{}]struct{}
}

func (w *watchers) add(k persistence.Key) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[persistence.Key]map[chan struct{}]struct{}{}
	}
	if w.by[k] == nil {
		w.by[k] = map[chan struct{}]struct{}{}
	}
	w.by[k][c] = struct{}{}
	w.n.Add(1)
	var once sync.Once
	return c, func() {
		once.Do(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.n.Add(-1)
			if delete(w.by[k], c); len(w.by[k]) == 0 {
				delete(w.by, k)
			}
		})
	}
}

func (w *watchers) changed(writes []persistence.Write) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range writes {
		for c := range w.by[writes[i].Key] {
			select {
			case c <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}

// acquire raises the epoch until it works or ctx ends.
func acquire(ctx context.Context, j persistence.Journal) (uint64, error) {
	for {
		try, cancel := context.WithTimeout(ctx, appendTimeout)
		epoch, err := j.Acquire(try)
		cancel()
		if err == nil {
			return epoch, nil
		}
		if !fault.KindOf(err).Retryable() {
			return 0, err
		}
		if !Sleep(ctx, appendRetryWait) {
			return 0, err
		}
	}
}
