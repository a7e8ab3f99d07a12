package actors

import (
	"context"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// running is an engine's inference actor.
type running struct {
	pid    *actor.PID
	status *infer.Status
	idle   <-chan struct{} // closed once it was told to retire and nothing of it is under way
}

// AddEngine lets an engine take work. Its name must be one that no other has.
func (s *System) AddEngine(e Engine) error {
	st := infer.NewStatus(e.Name(), e.Endpoints, infer.Known(e.Engine))
	idle := make(chan struct{})
	w, err := infer.NewWorker(infer.WorkerOptions{
		Engine: e.Engine, Concurrency: e.Concurrency, Prefetch: e.Prefetch, Knee: e.Knee, Idle: idle,
		Batcher: s.batcher, Router: s.Router, Board: s.board, Run: s.opt.Runner, Status: st, Meter: s.opt.Meter, Log: s.opt.Log, Now: s.opt.Now,
	})
	if err != nil {
		return fault.New(fault.Invalid, "actors.engine", e.Name(), "%w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return fault.New(fault.Unavailable, "actors.engine", e.Name(), "this node is stopping")
	case slices.ContainsFunc(s.engines, func(r *running) bool { return r.status.Get().Name == e.Name() }):
		return fault.New(fault.Conflict, "actors.engine", e.Name(), "there is an engine of this name").WithRemedy("give each engine its own name")
	}
	s.engines = append(s.engines, &running{s.root.Spawn(w), st, idle})
	return nil
}

// SetPart holds engines to a part of what they and others are given, from before they are added until it is lifted, or they are.
func (s *System) SetPart(p batch.Part) {
	s.mu.Lock()
	s.parts = slices.DeleteFunc(s.parts, func(x batch.Part) bool { return slices.Equal(x.Engines, p.Engines) })
	if p.Percent < 100 {
		s.parts = append(s.parts, p)
	}
	s.mu.Unlock()
	s.sys.Root.Send(s.batcher, &p)
}

// RemoveEngine takes an engine's credit back and lets what runs there end; what waited for it goes back to its tasks. When ctx ends first, what
// still runs is broken off, and its tasks are tried elsewhere, at no cost of a try. The engine itself may be closed once this returns.
func (s *System) RemoveEngine(ctx context.Context, name string) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.engines, func(r *running) bool { return r.status.Get().Name == name })
	if i < 0 {
		s.mu.Unlock()
		return fault.New(fault.NotFound, "actors.engine", name, "there is no engine of this name")
	}
	r := s.engines[i]
	s.mu.Unlock()

	s.sys.Root.Send(r.pid, infer.Retire{})
	select {
	case <-r.idle:
	case <-ctx.Done():
	}
	_ = s.sys.Root.StopFuture(r.pid).Wait() // only a time-out
	s.mu.Lock()
	s.engines = slices.DeleteFunc(s.engines, func(x *running) bool { return x == r })
	s.mu.Unlock()
	s.opt.Meter.InFlight.DeleteLabelValues(name)
	s.opt.Meter.Limit.DeleteLabelValues(name)
	return nil
}

// Engines returns the state of each engine.
func (s *System) Engines() []infer.EngineState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]infer.EngineState, len(s.engines))
	for i, r := range s.engines {
		out[i] = r.status.Get()
	}
	return out
}
