package node

import (
	"context"
	"slices"
	"strings"

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
		if err == nil {
			if err = t.comparable(ctx, e, m); err != nil {
				m.stop()
			}
		}
		if err != nil {
			return err
		}
		t.mu.Lock()
		c := &canary{cfg: cfg, version: version, live: m, percent: percent, since: t.n.now()}
		p := c.part(e.live)
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

// comparable refuses a canary that serves nothing of what the one beside it does: no task would come to it.
func (t *table) comparable(ctx context.Context, e *entry, m *made) error {
	t.mu.Lock()
	old := t.modelsOf(e.live)
	t.mu.Unlock()
	var mine []string
	for _, x := range m.engines {
		all, err := x.Models(ctx)
		if err != nil {
			return err
		}
		mine = append(mine, all...)
	}
	if len(lostModels(old, mine)) < len(old) || len(old) == 0 || slices.Contains(old, "*") {
		return nil
	}
	slices.Sort(mine)
	return fault.New(fault.Invalid, "node.engines", e.name, "it serves %s, and %s serves %s: no task would come to it", strings.Join(slices.Compact(mine), ", "), e.name, strings.Join(old, ", ")).
		WithRemedy("name --model or --alias")
}

// modelsOf is what an engine that takes work serves, sorted.
func (t *table) modelsOf(m *made) (all []string) {
	names := m.names()
	for _, s := range t.n.sys.Engines() {
		if slices.Contains(names, s.Name) {
			all = append(all, s.Models...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// nobodyServes is which of some models no engine of this node serves.
func (t *table) nobodyServes(models []string) []string {
	var now []string
	for _, s := range t.n.sys.Engines() {
		switch x := servingOf(s); {
		case x.tool():
		case len(x.models) == 0: // it may serve any
			return nil
		default:
			now = append(now, x.models...)
		}
	}
	return lostModels(models, now)
}

// lostModels is which of the old models are not among the new ones.
func lostModels(old, now []string) (lost []string) {
	for _, m := range old {
		if m != "*" && !slices.Contains(now, m) && !slices.Contains(now, "*") {
			lost = append(lost, m)
		}
	}
	return lost
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
	return e, t.begin(e, "promote", func(ctx context.Context) error {
		if percent == 0 || percent > c.percent { // less is for one that does badly
			if err := t.works(ctx, c.live); err != nil {
				return fault.New(fault.Unavailable, "node.engines", e.name, "version %d: %w", c.version, err).
					WithRemedy("mend it and promote it again, or take it away: autoglm model rollback %s", e.name)
			}
		}
		if percent > 0 {
			t.mu.Lock()
			c.percent = percent
			p := c.part(e.live)
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

// part is what it may have of the work, beside the engine's own model.
func (c *canary) part(of *made) batch.Part {
	return batch.Part{Engines: c.live.names(), Of: of.names(), Percent: c.percent}
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
