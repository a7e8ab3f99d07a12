package node

import (
	"context"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// single refuses a change that would make a second canary. Under mu.
func (e *entry) single() error {
	if e.canary == nil {
		return nil
	}
	return fault.New(fault.Conflict, "node.engines", e.name, "version %d is being tried with %d %% of the work", e.canary.version, e.canary.percent).
		WithRemedy("end that first: autoglm model promote %s, or autoglm model rollback %s", e.name, e.name)
}

// try begins to give a part of an entry's work to another model. Under mu.
func (t *table) try(e *entry, cfg EngineConfig, percent int) (*entry, error) {
	if e.live == nil {
		return nil, fault.New(fault.Conflict, "node.engines", e.name, "it does not work, so nothing can be tried beside it").WithRemedy("swap it without --canary")
	}
	return e, t.begin(e, "canary", func(ctx context.Context) error {
		version := t.next(e)
		m, err := t.comeUp(ctx, e, &cfg, version)
		if err != nil {
			return err
		}
		t.mu.Lock()
		c := &canary{cfg: cfg, version: version, live: m, percent: percent, since: t.n.now()}
		p := batch.Part{Engines: m.names(), Of: e.live.names(), Percent: percent}
		t.mu.Unlock()
		t.n.sys.SetPart(p) // before it can take anything
		if err := t.add(m); err != nil {
			t.lift(m)
			m.stop()
			return err
		}
		t.mu.Lock()
		e.canary = c
		t.mu.Unlock()
		return t.changed()
	})
}

// promote begins to give a canary another part of the work, or with 0 the place of the one before.
func (t *table) promote(name string, percent int) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	c := e.canary
	if c == nil {
		return nil, fault.New(fault.Conflict, "node.engines", e.name, "no other model is being tried on node %s", t.n.id).WithRemedy("begin with autoglm model swap %s --canary PERCENT", e.name)
	}
	return e, t.begin(e, "promote", func(context.Context) error {
		if percent > 0 {
			t.mu.Lock()
			c.percent = percent
			p := batch.Part{Engines: c.live.names(), Of: e.live.names(), Percent: percent}
			t.mu.Unlock()
			t.n.sys.SetPart(p)
			return nil
		}
		t.mu.Lock()
		e.canary = nil
		t.mu.Unlock()
		t.lift(c.live)
		return t.follow(e, c.cfg, c.live, c.version, formerKept)
	})
}

// withdraw takes a canary away: it gets nothing from now on, and what it runs ends.
func (t *table) withdraw(e *entry) error {
	t.mu.Lock()
	c := e.canary
	t.mu.Unlock()
	t.remove(c.live)
	t.lift(c.live)
	c.live.stop()
	t.mu.Lock()
	e.canary = nil
	t.mu.Unlock()
	return t.changed()
}

// lift lets an engine have whatever there is.
func (t *table) lift(m *made) { t.n.sys.SetPart(batch.Part{Engines: m.names(), Percent: 100}) }

// names are those of its engines.
func (m *made) names() (all []string) {
	for _, e := range m.engines {
		all = append(all, e.Name())
	}
	return all
}

// shown is a canary as the API has it. Under mu.
func (c *canary) shown(engines []wire.Engine) *wire.CanaryEngine {
	return &wire.CanaryEngine{Version: c.version, Percent: c.percent, Spec: specShown(&c.cfg), Since: c.since, Engines: engines}
}
