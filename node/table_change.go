package node

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// engineForm is what an engine that is loaded may be called.
var engineForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$`)

// configOf checks what somebody asks for over the API. An environment variable would go to whatever URL they name, so only those that are meant
// for it may.
func configOf(name string, s wire.EngineSpec) (EngineConfig, error) {
	c := EngineConfig{Name: name, URL: s.URL, Path: s.Path, Models: s.Models, Aliases: s.Aliases, Endpoints: s.Endpoints, GPU: s.GPU, Workers: s.Workers,
		Slots: s.Slots, Ctx: s.Ctx, Concurrency: s.Concurrency, Prefetch: s.Prefetch, APIKeyEnv: s.APIKeyEnv, Preset: s.Preset, Command: s.Command, Env: s.Env}
	var w wrong
	if l := s.Limits; l != nil {
		c.Limits = &LimitsConfig{CPU: l.CPU, IOWeight: l.IOWeight, Nice: l.Nice}
		if l.Memory != "" {
			if err := c.Limits.Memory.UnmarshalText([]byte(l.Memory)); err != nil {
				w.add(invalidConfig("limits.memory", l.Memory, "write it like 512MiB or 8GiB"))
			}
		}
	}
	w.when(!engineForm.MatchString(name), "name", name, "use 1 to 63 letters, digits, _ and -, beginning with a letter or digit")
	w.when(s.Path != "" && !filepath.IsAbs(s.Path), "path", s.Path, "give an absolute path on the node's machine")
	switch {
	case runsCommand(s):
		w.when(s.URL != "", "url", s.URL, "leave it out: the engine is what the command starts")
		c.URL = EngineCommand
		if cmd, err := c.command(); err == nil && cmd.NamesModel() && len(c.Models) == 0 {
			c.Models = []string{name}
		}
	case s.Path == "" && s.URL == "":
		w.add(invalidConfig("path", "missing, and so are url, preset and command", "say what to load: --path FILE, --url URL, --preset or --command"))
	case s.Path != "" && s.URL != "":
		w.add(invalidConfig("path", "not the only one of path and url", "give one of them, or a preset or command"))
	case s.Path != "":
		c.URL = EngineEmbedded
		if len(c.Models) == 0 {
			c.Models = []string{name}
		}
	case s.URL == EngineNone || s.URL == EngineEmbedded || s.URL == EngineCommand:
		w.add(invalidConfig("url", s.URL, "name a GGUF file as path, a URL, or a preset or command"))
	}
	w.when(s.APIKeyEnv != "" && !strings.HasPrefix(s.APIKeyEnv, "ENGINE_"), "api_key_env", s.APIKeyEnv, "use a variable whose name begins with ENGINE_: an engine that is loaded sees no other")
	if len(w) == 0 {
		c.check(&w, "")
	}
	if len(w) == 0 {
		return c, nil
	}
	return c, fault.New(fault.Invalid, "node.engines", name, "%w", errors.Join(w...))
}

func specOf(c *EngineConfig) wire.EngineSpec {
	s := wire.EngineSpec{Path: c.Path, URL: c.URL, Models: c.Models, Aliases: c.Aliases, Endpoints: c.Endpoints, GPU: c.GPU, Workers: c.Workers,
		Slots: c.Slots, Ctx: c.Ctx, Concurrency: c.Concurrency, Prefetch: c.Prefetch, APIKeyEnv: c.APIKeyEnv, Preset: c.Preset, Command: c.Command, Env: c.Env}
	if l := c.Limits; l != nil {
		s.Limits = &wire.EngineLimits{CPU: l.CPU, IOWeight: l.IOWeight, Nice: l.Nice}
		if l.Memory > 0 {
			s.Limits.Memory = l.Memory.String()
		}
	}
	if c.URL == EngineEmbedded && c.Path != "" || c.URL == EngineCommand {
		s.URL = ""
	}
	return s
}

// over is a spec with what another one says differently.
func over(s, more wire.EngineSpec) wire.EngineSpec {
	switch {
	case runsCommand(more):
		s.Path, s.URL = cmp.Or(more.Path, s.Path), more.URL
		s.Preset, s.Command = more.Preset, more.Command
	case more.URL == "" && runsCommand(s): // the same program with another path
		s.Path = cmp.Or(more.Path, s.Path)
	case more.Path != "" || more.URL != "":
		s.Path, s.URL = more.Path, more.URL
		s.Preset, s.Command, s.Env = "", nil, nil
	}
	if len(more.Env) > 0 {
		s.Env = more.Env
	}
	if s.Path == "" && !runsCommand(s) { // no processes here
		s.GPU, s.Workers, s.Slots, s.Ctx, s.Limits = "", 0, 0, 0, nil
	}
	if more.Limits != nil {
		s.Limits = more.Limits
	}
	list := func(old, new []string) []string {
		if len(new) > 0 {
			return new
		}
		return old
	}
	s.Models, s.Aliases, s.Endpoints = list(s.Models, more.Models), list(s.Aliases, more.Aliases), list(s.Endpoints, more.Endpoints)
	s.GPU, s.APIKeyEnv = cmp.Or(more.GPU, s.GPU), cmp.Or(more.APIKeyEnv, s.APIKeyEnv)
	s.Workers, s.Slots, s.Ctx = cmp.Or(more.Workers, s.Workers), cmp.Or(more.Slots, s.Slots), cmp.Or(more.Ctx, s.Ctx)
	s.Concurrency, s.Prefetch = cmp.Or(more.Concurrency, s.Concurrency), cmp.Or(more.Prefetch, s.Prefetch)
	return s
}

// load begins to load an engine. One that did not come up may be loaded again.
func (t *table) load(name string, s wire.EngineSpec) (*entry, error) {
	cfg, err := configOf(name, s)
	if err == nil {
		err = t.n.mayStart(&cfg)
	}
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.entries, func(e *entry) bool { return e.name == name })
	switch {
	case i >= 0 && (t.entries[i].live != nil || t.entries[i].configured):
		return nil, fault.New(fault.Conflict, "node.engines", name, "node %s has an engine of this name", t.n.id).WithRemedy("put another model in its place with autoglm model swap, or choose another name")
	case i < 0 && len(t.entries) >= enginesMax:
		return nil, fault.New(fault.Overloaded, "node.engines", name, "node %s has %d engines, which is the limit", t.n.id, enginesMax)
	case i < 0:
		t.entries = append(t.entries, &entry{name: name})
		i = len(t.entries) - 1
	}
	e := t.entries[i]
	if err := t.begin(e, "load", func(ctx context.Context) error { return t.doLoad(ctx, e, cfg) }); err != nil {
		return nil, err
	}
	e.cfg = cfg
	return e, nil
}

func (t *table) doLoad(ctx context.Context, e *entry, cfg EngineConfig) error {
	m, err := t.comeUp(ctx, e, &cfg, 1)
	if err == nil {
		if err = t.add(m); err != nil {
			m.stop()
		}
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	e.live, e.version, e.newest = m, 1, 1
	t.forget(e)
	t.mu.Unlock()
	return t.changed()
}

// swap begins to put another model in an engine's place, or, with a percent, beside it.
func (t *table) swap(name string, more wire.EngineSpec, percent int, keep time.Duration) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	if err := e.single(); err != nil {
		return nil, err
	}
	old := specOf(&e.cfg)
	if e.cfg.URL == EngineEmbedded && len(old.Models) == 0 && e.live != nil { // of model.path: under the name that it has
		old.Models = e.live.ids()
	}
	cfg, err := configOf(e.name, over(old, more))
	if err == nil {
		err = t.n.mayStart(&cfg)
	}
	if err != nil {
		return nil, err
	}
	cfg.Timeout = e.cfg.Timeout
	if percent > 0 {
		return t.try(e, cfg, percent)
	}
	return e, t.begin(e, "swap", func(ctx context.Context) error { return t.replace(ctx, e, cfg, nil, 0, keep) })
}

// rollback begins to bring the former model back.
func (t *table) rollback(name string, keep time.Duration) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	if e.canary != nil {
		return e, t.begin(e, "rollback", func(context.Context) error { return t.withdraw(e) })
	}
	f := e.former
	if f == nil {
		return nil, fault.New(fault.Conflict, "node.engines", e.name, "it was never another model on node %s", t.n.id).WithRemedy("name a file: autoglm model swap %s --path FILE.gguf", e.name)
	}
	return e, t.begin(e, "rollback", func(ctx context.Context) error {
		t.mu.Lock()
		m := f.live
		t.mu.Unlock()
		var err error
		if m != nil {
			err = t.works(ctx, m)
		}
		t.mu.Lock()
		m = f.live // it may end until now, and is loaded again then
		if m != nil && err != nil {
			t.mu.Unlock()
			return fault.New(fault.Unavailable, "node.engines", e.name, "version %d: %w", f.version, err).
				WithRemedy("mend it and roll back again, or name another model: autoglm model swap %s", e.name)
		}
		if m != nil {
			f.timer.Stop()
			f.live = nil
		}
		t.mu.Unlock()
		return t.replace(ctx, e, f.cfg, m, f.version, keep)
	})
}

// replace puts an engine in the place of an entry's: one that is up, m, or one that it makes.
func (t *table) replace(ctx context.Context, e *entry, cfg EngineConfig, m *made, version int, keep time.Duration) error {
	var err error
	if m == nil {
		version = t.next(e)
		if m, err = t.comeUp(ctx, e, &cfg, version); err != nil {
			return err
		}
	}
	if err = t.add(m); err != nil {
		m.stop()
		return err
	}
	return t.follow(e, cfg, m, version, keep)
}

// next is the version of a model that an entry never had. Not under mu.
func (t *table) next(e *entry) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.newest = max(e.newest, e.version) + 1
	return e.newest
}

// follow makes an engine that takes work an entry's own, and the one before the former.
func (t *table) follow(e *entry, cfg EngineConfig, m *made, version int, keep time.Duration) error {
	t.mu.Lock()
	old, before := &former{cfg: e.cfg, version: e.version, live: e.live}, e.former
	e.cfg, e.version, e.live, e.former = cfg, version, m, nil
	if e.configured {
		e.note = "until this node starts again: its configuration names another model"
	}
	t.mu.Unlock()
	if before != nil {
		t.drop(before)
	}
	if old.live != nil {
		models := t.modelsOf(old.live)
		t.remove(old.live) // what it runs ends
		lost := t.nobodyServes(models)
		t.mu.Lock()
		e.lost = lost
		t.mu.Unlock()
	}
	t.keep(e, old, keep)
	return t.changed()
}

// keep remembers what an entry was, with its processes for a while.
func (t *table) keep(e *entry, f *former, keep time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.former = f
	if f.live == nil {
		return
	}
	f.until = t.n.now().Add(keep)
	f.timer = time.AfterFunc(keep, func() {
		t.mu.Lock()
		if t.ctx.Err() == nil {
			t.wg.Go(func() { t.drop(f) })
		}
		t.mu.Unlock()
	})
}

// drop ends a former engine's processes.
func (t *table) drop(f *former) {
	t.mu.Lock()
	m := f.live
	f.live, f.until = nil, time.Time{}
	if f.timer != nil {
		f.timer.Stop()
	}
	t.mu.Unlock()
	if m != nil {
		m.stop()
	}
}

// unload begins to take an engine away.
func (t *table) unload(name string) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return e, t.begin(e, "unload", func(context.Context) error {
		t.mu.Lock()
		m, f, tried := e.live, e.former, e.canary
		t.mu.Unlock()
		if tried != nil {
			_ = t.withdraw(e) // only that the others were not told, which they are below
		}
		if m != nil {
			t.remove(m)
		}
		t.mu.Lock()
		t.entries = slices.DeleteFunc(t.entries, func(x *entry) bool { return x == e })
		t.forget(e)
		t.mu.Unlock()
		if m != nil {
			m.stop()
		}
		if f != nil {
			t.drop(f)
		}
		return t.changed()
	})
}
