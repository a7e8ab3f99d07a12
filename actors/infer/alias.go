package infer

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// WithAliases returns an engine that is also asked for its first model under other names. The engine itself hears of the model's own name only.
func WithAliases(e Engine, aliases []string) Engine {
	if len(aliases) == 0 {
		return e
	}
	return &alias{Engine: e, names: aliases}
}

type alias struct {
	Engine
	names []string
	own   atomic.Pointer[[]string] // what the engine said last: asking it again for each request would double them
}

// Models returns the engine's own first: what a task is asked for that names none.
func (a *alias) Models(ctx context.Context) ([]string, error) {
	own, err := a.Engine.Models(ctx)
	if err != nil {
		return nil, err
	}
	a.own.Store(&own)
	return a.with(own), nil
}

// Known is what the engine's own is, with the aliases.
func (a *alias) Known() []string {
	own := Known(a.Engine)
	if len(own) == 0 {
		return nil
	}
	return a.with(own)
}

func (a *alias) with(own []string) []string {
	all := slices.Clone(own)
	for _, n := range a.names {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// Do asks for the model's own name.
func (a *alias) Do(ctx context.Context, r *Request) (*Response, error) {
	if !slices.Contains(a.names, r.Model) {
		return a.Engine.Do(ctx, r)
	}
	if a.own.Load() == nil {
		if _, err := a.Models(ctx); err != nil {
			return nil, err
		}
	}
	own := *a.own.Load()
	if len(own) == 0 || own[0] == "*" || slices.Contains(own, r.Model) { // it knows the name itself
		return a.Engine.Do(ctx, r)
	}
	q := *r
	q.Model = own[0]
	if r.Raw != nil {
		raw, err := task.RequestFor(r.Raw, q.Model)
		if err != nil {
			return nil, err
		}
		q.Raw = raw
	}
	return a.Engine.Do(ctx, &q)
}

// Health is the engine's own, where it can tell.
func (a *alias) Health(ctx context.Context) error {
	if h, ok := a.Engine.(healthy); ok {
		return h.Health(ctx)
	}
	return nil
}

// CountTokens is the engine's own, where it counts.
func (a *alias) CountTokens(ctx context.Context, model string, ms []Message) (int, error) {
	if c, ok := a.Engine.(TokenCounter); ok {
		return c.CountTokens(ctx, model, ms)
	}
	return 0, fault.New(fault.NotFound, "infer.tokenize", a.Name(), "the engine has no /tokenize")
}
