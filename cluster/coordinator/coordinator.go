package coordinator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a round.
const (
	every        = 500 * time.Millisecond // between two rounds; a change of the members starts one at once
	pause        = 50 * time.Millisecond  // at least, so that a storm of changes does not make a storm of rounds
	reportWait   = time.Second            // for one node's report
	actWait      = 3 * time.Second        // for one action; a change asked of a leader that dies hangs
	appendRetry  = 200 * time.Millisecond // before a row of unknown outcome is appended again
	againAfter   = 2 * time.Second        // before the same action is decided again; doubled each time, up to
	againMax     = 30 * time.Second       // this
	askedAtOnce  = 32                     // nodes asked at the same time
	pendingMax   = 1000                   // events that wait for a row; beyond it the oldest are let go
	rememberActs = 4096                   // actions remembered for againAfter
)

// Owner is what the coordinator needs of shard 0's owner; *cluster.Owner is one.
type Owner interface {
	Epoch() uint64
	Append(w persistence.Write, done func(persistence.Outcome, error))
	Read(key persistence.Key, after uint64) (persistence.Log, error)
}

// Options are what a coordinator works with. All but Settings, Now and Log are needed.
type Options struct {
	Shard0  Owner
	Self    string // name of this node, for the events
	Shards  int
	Members func() []members.Member
	Changed func() (<-chan struct{}, func()) // members.List.Changed

	// NameOf returns the name of a data directory that was seen in gossip before, "" of one that was not. It lets a coordinator that
	// is new in office know a wiped node's old directory, instead of waiting for it like for a dead node's. May be nil.
	NameOf func(node string) string

	// Ask sends a request to the node of a member's name, itself included, and decodes its answer into out, both as JSON.
	Ask func(ctx context.Context, member, op string, in, out any) error

	Settings placement.Settings
	Now      func() time.Time
	Log      *slog.Logger
}

// Round is what the last round saw and decided.
type Round struct {
	Epoch   uint64
	Since   time.Time // this coordinator began
	View    placement.View
	Actions []placement.Action
	Reports map[string]replicas.Report // by node id, of those that answered
}

// Coordinator is one loop under one epoch.
type Coordinator struct {
	opt    Options
	log    *slog.Logger
	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}
	start  sync.Once

	mu   sync.Mutex
	last Round
	err  error

	// Of the loop alone.
	chronicle chronicle
	memory    *memory
	pending   []Event
	acts      map[actKey]*again
}

// actKey knows an action again.
type actKey struct {
	kind    placement.Kind
	shard   int
	node    string
	replica uint64
	version uint64
}

type again struct {
	at   time.Time // not before
	wait time.Duration
}

// New makes a coordinator for the epoch that opt.Shard0 has; a missing option is Invalid.
func New(opt Options) (*Coordinator, error) {
	if opt.Shard0 == nil || opt.Members == nil || opt.Changed == nil || opt.Ask == nil || opt.Shards < 1 {
		return nil, fault.New(fault.Invalid, "coordinator.new", opt.Self, "an option is missing")
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.NameOf == nil {
		opt.NameOf = func(string) string { return "" }
	}
	c := &Coordinator{opt: opt, log: opt.Log, done: make(chan struct{}), memory: newMemory(opt.NameOf), acts: map[actKey]*again{},
		chronicle: chronicle{owner: opt.Shard0}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.last = Round{Epoch: opt.Shard0.Epoch(), Since: opt.Now()}
	return c, nil
}

// Start begins the loop, once.
func (c *Coordinator) Start() {
	c.start.Do(func() { go c.run() })
}

// Stop ends the loop and waits for it and what it asked for. It is safe to call twice, and without Start.
func (c *Coordinator) Stop() {
	c.cancel()
	c.start.Do(func() { close(c.done) })
	<-c.done
}

// Done is closed when the loop has ended: after Stop, or because the coordinator was deposed (see Err).
func (c *Coordinator) Done() <-chan struct{} { return c.done }

// Err returns why the loop ended by itself: Fenced or Conflict when another coordinator is there, Corrupt when its journal
// cannot be read; nil while it runs and after Stop.
func (c *Coordinator) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Last returns what the last round saw. What it refers to does not change any more.
func (c *Coordinator) Last() Round {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *Coordinator) run() {
	defer close(c.done)
	defer c.cancel()
	changed, end := c.opt.Changed()
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	opened, next := false, time.Now()
	c.note(EventCoordinator, fmt.Sprintf("%s coordinates, epoch %d", c.opt.Self, c.last.Epoch))
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-changed: // what changes all the time must not put the round off for ever
			if soon := time.Now().Add(pause); soon.Before(next) {
				next = soon
				timer.Reset(pause)
			}
			continue
		case <-timer.C:
		}
		var err error
		if !opened {
			err = c.chronicle.open()
			opened = err == nil
		}
		wait := every
		if err == nil {
			var busy bool
			if busy, err = c.round(); busy {
				wait = pause
			}
		}
		switch kind := fault.KindOf(err); {
		case c.ctx.Err() != nil:
			return
		case kind == fault.Fenced || kind == fault.Conflict || kind == fault.Corrupt:
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			c.log.Info("coordinator ends", "epoch", c.last.Epoch, "err", err)
			return
		case err != nil:
			c.log.Warn("coordinator cannot write its events, so it decides nothing", "err", err)
		}
		next = time.Now().Add(wait)
		timer.Reset(wait)
	}
}

// note keeps an event for the next row.
func (c *Coordinator) note(kind, text string) {
	c.pending = append(c.pending, Event{At: c.opt.Now().UTC(), Epoch: c.last.Epoch, Kind: kind, Text: text})
	if n := len(c.pending) - pendingMax; n > 0 {
		c.log.Warn("events are let go", "limit", "pendingMax", "max", pendingMax)
		c.pending = c.pending[n:]
	}
}

// round looks, decides, writes down, acts. It is busy when something was done, so that the next step may follow at
// once. Its error means that nothing was done.
func (c *Coordinator) round() (busy bool, err error) {
	living := c.opt.Members()
	for _, text := range c.memory.look(c.opt.Now(), living) {
		c.log.Info("cluster: " + text)
		c.note(EventMember, text)
	}
	reports := c.gather(living)
	now := c.opt.Now()
	view, news := c.memory.view(now, c.opt.Shards, reports, c.opt.Settings)
	for _, text := range news {
		c.log.Warn("cluster: " + text)
		c.note(EventTrouble, text)
	}
	planned := placement.Plan(view)
	actions := c.due(now, planned)
	c.mu.Lock()
	c.last.View, c.last.Actions, c.last.Reports = view, planned, reports
	c.mu.Unlock()
	if len(actions) > eventsRow {
		actions = actions[:eventsRow]
	}
	seen := c.pending[:min(len(c.pending), eventsRow)]
	row := append([]Event(nil), seen...)
	for i := range actions {
		row = append(row, Event{At: now.UTC(), Epoch: c.last.Epoch, Kind: EventDecision, Text: actions[i].String(), Action: &actions[i]})
	}
	if len(row) == 0 {
		return false, nil
	}
	if err := c.write(row); err != nil {
		return false, err
	}
	c.pending = c.pending[len(seen):]
	return c.carryOut(now, actions), nil
}

// write makes a row durable. An unknown outcome is found out by writing the very same row again.
func (c *Coordinator) write(row []Event) error {
	w, err := c.chronicle.row(row)
	if err != nil {
		return err
	}
	type answer struct {
		out persistence.Outcome
		err error
	}
	for {
		got := make(chan answer, 1)
		c.opt.Shard0.Append(w, func(o persistence.Outcome, err error) { got <- answer{o, err} })
		var a answer
		select {
		case a = <-got:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
		switch kind := fault.KindOf(a.err); {
		case a.err == nil && a.out.Err == nil:
			c.chronicle.wrote(w, row)
			return nil
		case a.err == nil:
			return a.out.Err // Conflict: another coordinator wrote; NoSpace: not now
		case kind == fault.Timeout || kind == fault.Unavailable:
			select {
			case <-time.After(appendRetry):
			case <-c.ctx.Done():
				return c.ctx.Err()
			}
		default:
			return a.err
		}
	}
}

// due leaves out what was asked for a moment ago and may be on its way.
func (c *Coordinator) due(now time.Time, actions []placement.Action) (due []placement.Action) {
	current := map[actKey]bool{}
	for _, a := range actions {
		k := keyOf(a)
		current[k] = true
		if x := c.acts[k]; x == nil || !now.Before(x.at) {
			due = append(due, a)
		}
	}
	for k, x := range c.acts {
		if !current[k] && now.Sub(x.at) >= againMax || len(c.acts) > rememberActs {
			delete(c.acts, k)
		}
	}
	return due
}

func keyOf(a placement.Action) actKey {
	return actKey{a.Kind, a.Shard, a.Node, a.Replica, a.Version}
}

// gather asks all living nodes for their reports; those that do not answer in time, or with another data
// directory than gossip says, are missing.
func (c *Coordinator) gather(living []members.Member) map[string]replicas.Report {
	ctx, cancel := context.WithTimeout(c.ctx, reportWait)
	defer cancel()
	var (
		mu  sync.Mutex
		all = map[string]replicas.Report{}
	)
	c.each(len(living), func(i int) {
		m := living[i]
		if m.Node == "" || m.Stopping {
			return
		}
		var r replicas.Report
		if err := c.opt.Ask(ctx, m.Name, replicas.OpReport, struct{}{}, &r); err != nil {
			c.log.Debug("no report", "member", m.Name, "err", err)
			return
		}
		if r.Node != m.Node || r.Shards != c.opt.Shards {
			c.log.Warn("report not used", "member", m.Name, "node", r.Node, "expected", m.Node, "shards", r.Shards)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all[r.Node] = r
	})
	return all
}

// carryOut asks for each action and notes what came of it, and tells whether anything was done.
func (c *Coordinator) carryOut(now time.Time, actions []placement.Action) (busy bool) {
	outcomes := make([]string, len(actions))
	c.each(len(actions), func(i int) {
		if err := c.act(actions[i]); err != nil {
			outcomes[i] = err.Error()
		} else {
			outcomes[i] = done
		}
	})
	for i := range actions {
		a := &actions[i]
		busy = busy || outcomes[i] == done
		k := keyOf(*a)
		x := c.acts[k]
		if x == nil {
			x = &again{wait: againAfter}
			c.acts[k] = x
		}
		x.at, x.wait = now.Add(x.wait), min(2*x.wait, againMax)
		c.log.Info("cluster: "+a.String(), "outcome", outcomes[i])
		c.note(EventOutcome, a.String())
		e := &c.pending[len(c.pending)-1]
		e.Action, e.Outcome = a, outcomes[i]
	}
	return busy
}

// act asks the one node that can do it.
func (c *Coordinator) act(a placement.Action) error {
	ctx, cancel := context.WithTimeout(c.ctx, actWait)
	defer cancel()
	on := c.memory.nodes[a.On]
	if on == nil || on.Name == "" {
		return fault.New(fault.NotFound, "coordinator.act", a.On, "no living member has this node id")
	}
	q := replicas.Ask{Epoch: c.last.Epoch, Shard: a.Shard, Replica: a.Replica}
	op := map[placement.Kind]string{placement.Join: replicas.OpJoin, placement.Drop: replicas.OpDrop, placement.Transfer: replicas.OpTransfer}[a.Kind]
	if change, ok := a.Change(); ok {
		op, q.Change = replicas.OpChange, &change
	}
	var none struct{}
	return c.opt.Ask(ctx, on.Name, op, q, &none)
}

// each runs f for 0 to n-1, askedAtOnce at a time, and waits for all.
func (c *Coordinator) each(n int, f func(int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, askedAtOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}
