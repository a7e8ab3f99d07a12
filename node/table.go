package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// table is the node's engines, which may change while it runs. Each change is checked at once, done in a goroutine, and left in its entry: a
// large model takes minutes.
//
//	load      ─► start ─► come up ─► a probe is answered ─► take work
//	swap      ─► the same for the new one, beside the old ─► the old one drains, and is kept for a while as the former
//	canary    ─► the same for the new one, beside the old ─► it takes a part of the work ─► promote: all of it, as a swap ends
//	rollback  ─► the former takes work ─► the current one drains, and is the former now
//	unload    ─► drain ─► stop
//
// Where the new one does not come up, nothing has changed but the entry's Change, which says why.
type table struct {
	n      *Node
	ctx    context.Context // of changes; ends when the node stops
	cancel context.CancelFunc
	wg     sync.WaitGroup // changes under way, and former ones that end

	mu      sync.Mutex
	entries []*entry
	ignored []savedEngine // of the file: the configuration has others of their names
}

// entry is one engine of the table.
type entry struct {
	name       string
	cfg        EngineConfig
	configured bool
	note       string // beside the newest trouble
	version    int
	newest     int   // version that was ever tried
	live       *made // nil: it loads, or did not come up
	former     *former
	canary     *canary // tried beside live
	change     *wire.EngineChange
	lost       []string // by the change that is under way
}

// former is what an entry was before.
type former struct {
	cfg     EngineConfig
	version int
	live    *made // nil: only its definition is left
	until   time.Time
	timer   *time.Timer
}

// canary is what an entry may become. It ends with the process: a node that starts again has the model of before.
type canary struct {
	cfg     EngineConfig
	version int
	live    *made
	percent int
	since   time.Time
}

const (
	enginesMax  = 256              // entries of a table
	formerKept  = 10 * time.Minute // a former engine's processes are
	offerWithin = 5 * time.Second
	probeWithin = time.Minute // of an engine that is up already, and may be busy
	tableFile   = "engines.json"
	changeDone  = "done"
	changeFails = "failed"
	changeRuns  = "running"
)

func newTable(n *Node) *table {
	t := &table{n: n}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// all returns the engines that take work.
func (t *table) all() (es []*made) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if e.live != nil {
			es = append(es, e.live)
		}
		if e.canary != nil {
			es = append(es, e.canary.live)
		}
	}
	return es
}

// stopping ends changes that are under way; no other begins.
func (t *table) stopping() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.wg.Wait()
}

// stop ends all processes.
func (t *table) stop() {
	t.stopping()
	var wg sync.WaitGroup
	for _, e := range t.entries {
		if e.live != nil {
			wg.Go(e.live.stop)
		}
		if e.canary != nil {
			wg.Go(e.canary.live.stop)
		}
		if e.former != nil && e.former.live != nil {
			e.former.timer.Stop()
			wg.Go(e.former.live.stop)
		}
	}
	wg.Wait()
}

// find returns the entry of a name, or the only one whose model has it. Under mu.
func (t *table) find(name string) (*entry, error) {
	var others []*entry
	for _, e := range t.entries {
		if e.name == name {
			return e, nil
		}
		if slices.Contains(e.cfg.Models, name) || slices.Contains(e.cfg.Aliases, name) {
			others = append(others, e)
		}
	}
	switch len(others) {
	case 1:
		return others[0], nil
	case 0:
		return nil, fault.New(fault.NotFound, "node.engines", name, "no engine of node %s has this name", t.n.id).WithRemedy("autoglm model list shows them")
	}
	return nil, fault.New(fault.Conflict, "node.engines", name, "several engines of node %s serve it", t.n.id).WithRemedy("give the engine's name: autoglm model list shows them")
}

// begin notes a change and does it. Under mu; do runs without it, and what it returns is what became of the change.
func (t *table) begin(e *entry, what string, do func(context.Context) error) error {
	switch {
	case t.ctx.Err() != nil:
		return fault.New(fault.Unavailable, "node.engines", e.name, "this node is stopping")
	case e.change != nil && e.change.State == changeRuns:
		return fault.New(fault.Conflict, "node.engines", e.name, "a %s is under way", e.change.What).WithRemedy("wait for it: autoglm model list shows how far it is")
	}
	change := &wire.EngineChange{ID: fmt.Sprintf("%s-%d", what, t.n.now().UnixNano()), What: what, State: changeRuns, At: t.n.now()}
	e.change, e.lost = change, nil
	t.wg.Go(func() {
		err := do(t.ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		done := *change // readers have the one before
		done.State, done.Ended, done.Lost = changeDone, t.n.now(), e.lost
		if err != nil {
			done.State, done.Error = changeFails, fault.Shown(err)
			t.n.log.Error("an engine could not be changed", "engine", e.name, "what", what, "err", err)
		} else {
			t.n.log.Info("an engine was changed", "engine", e.name, "what", what, "version", e.version)
		}
		e.change = &done
	})
	return nil
}

// comeUp makes an engine, and returns it once it has answered a probe. On an error nothing of it is left.
func (t *table) comeUp(ctx context.Context, e *entry, cfg *EngineConfig, version int) (*made, error) {
	if err := t.n.mayStart(cfg); err != nil { // a former one may be of a time when it was allowed
		return nil, err
	}
	m, err := t.n.makeEngine(cfg, engineName(e.name, version))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.n.cfg.Model.LoadTimeout)
	defer cancel()
	if m.pool != nil {
		m.pool.Start()
		err = m.pool.ComeUp(ctx)
	}
	if err == nil {
		err = m.probe(ctx)
	}
	if err == nil {
		return m, nil
	}
	m.stop()
	return nil, err
}

// probe asks each of its engines one thing, as a task would.
func (m *made) probe(ctx context.Context) error {
	for _, e := range m.engines {
		if err := infer.Try(ctx, e.Engine, e.Endpoints); err != nil {
			return fmt.Errorf("it did not answer a probe: %w", err)
		}
	}
	return nil
}

// works tells whether an engine that came up before still does, before more of the work depends on it.
func (t *table) works(ctx context.Context, m *made) error {
	ctx, cancel := context.WithTimeout(ctx, min(probeWithin, t.n.cfg.Model.LoadTimeout))
	defer cancel()
	return m.probe(ctx)
}

// engineName is what an engine is called in attempts and metrics: a second version beside the first needs another name.
func engineName(name string, version int) string {
	if version > 1 {
		return fmt.Sprintf("%s.%d", name, version)
	}
	return name
}

// add lets an engine take work, all of it or nothing.
func (t *table) add(m *made) error {
	for i, x := range m.engines {
		if err := t.n.sys.AddEngine(x); err != nil {
			t.remove(&made{engines: m.engines[:i]})
			return err
		}
	}
	t.offered(m)
	return nil
}

// offered waits until the engines offer what they serve, so that those before them go no earlier: they answered a probe, so it takes no time.
func (t *table) offered(m *made) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(offerWithin)
	defer end.Stop()
	for {
		ready := 0
		for _, s := range t.n.sys.Engines() {
			if s.Healthy && slices.ContainsFunc(m.engines, func(x actors.Engine) bool { return x.Name() == s.Name }) {
				ready++
			}
		}
		if ready == len(m.engines) {
			return
		}
		select {
		case <-tick.C:
		case <-end.C:
			return
		case <-t.ctx.Done():
			return
		}
	}
}

// remove drains an engine: nothing runs there for longer than a task may.
func (t *table) remove(m *made) {
	ctx, cancel := context.WithTimeout(t.ctx, t.n.cfg.Task.TimeoutMax)
	defer cancel()
	var wg sync.WaitGroup
	for _, x := range m.engines {
		wg.Go(func() {
			if err := t.n.sys.RemoveEngine(ctx, x.Name()); err != nil {
				t.n.log.Warn("an engine was not there to be removed", "engine", x.Name(), "err", err)
			}
		})
	}
	wg.Wait()
}

// changed keeps the table and tells the other nodes.
func (t *table) changed() error {
	err := t.save()
	if t.n.joint != nil {
		if err := t.n.joint.tellEngines(); err != nil { // they hear of it with the next word of gossip
			t.n.log.Warn("the other nodes were not told of an engine", "err", err)
		}
	}
	return err
}
