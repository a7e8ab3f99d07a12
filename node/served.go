package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// served is what engines say they serve: one entry an engine.
type served []serving

type serving struct {
	models    []string // empty: it has not said yet, so it may serve any
	endpoints []string // empty: a program that knew only chat
}

func (e serving) model(name string) bool {
	return len(e.models) == 0 || name == task.AnyModel || slices.Contains(e.models, name) || slices.Contains(e.models, "*")
}

func (e serving) endpoint(name string) bool {
	if len(e.endpoints) == 0 {
		return name == task.EndpointChat
	}
	return slices.Contains(e.endpoints, name)
}

// tool tells whether it runs tools, and answers no questions.
func (e serving) tool() bool { return slices.Contains(e.endpoints, task.EndpointTool) }

// check says whether an engine serves the model at the endpoint, and what to do where none does. A chat with the default
// model waits for an engine that does. field is what names the model.
func (v served) check(field, model, endpoint, def string) error {
	if endpoint == task.EndpointTool {
		return v.checkTool(field, model)
	}
	known := false
	for _, e := range v {
		if e.tool() && len(e.models) > 0 || !e.model(model) {
			continue
		}
		if known = true; e.endpoint(endpoint) {
			return nil
		}
	}
	waits := model == task.AnyModel || model == def
	switch {
	case !known && !waits:
		return fault.New(fault.Invalid, "task.validate", field, "is %q, which no engine here serves", model).
			WithRemedy("use one of: %s; or leave it out for the default", strings.Join(v.models(def), ", "))
	case !known && endpoint == task.EndpointChat:
		return nil
	}
	return fault.New(fault.Invalid, "task.validate", "endpoint", "is %q, which no engine here serves for model %q", endpoint, model).
		WithRemedy("use one of: %s", strings.Join(v.endpoints(), ", "))
}

// checkTool says whether a node runs such tools.
func (v served) checkTool(field, model string) error {
	var modules []string
	for _, e := range v {
		if !e.tool() {
			continue
		}
		if e.model(model) {
			return nil
		}
		for _, m := range e.models {
			if name, ok := strings.CutPrefix(m, task.ToolWasm("")); ok && name != "" && !strings.HasPrefix(name, "sha256:") {
				modules = append(modules, name)
			}
		}
	}
	l := task.Lot{Model: model, Endpoint: task.EndpointTool}
	err := fault.New(fault.Invalid, "task.validate", field, "needs %s, which no node here runs", l.Name())
	slices.Sort(modules)
	switch modules = slices.Compact(modules); {
	case model == task.ToolHTTP:
		return err.WithRemedy("set tools.http_concurrency of a node")
	case len(modules) > 0:
		return err.WithRemedy("use one of: %s; or put the module into tools.wasm_dir of the nodes", strings.Join(modules, ", "))
	}
	return err.WithRemedy("put the module into tools.wasm_dir of the nodes")
}

// models returns all names, sorted.
func (v served) models(def string) []string {
	names := []string{task.AnyModel}
	if def != "" {
		names = append(names, def)
	}
	for _, e := range v {
		if e.tool() {
			continue
		}
		for _, m := range e.models {
			if m != "*" {
				names = append(names, m)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (v served) endpoints() []string {
	var names []string
	for _, e := range task.Endpoints() {
		if slices.ContainsFunc(v, func(x serving) bool { return x.endpoint(e) }) {
			names = append(names, e)
		}
	}
	return names
}

// servedHere is what this node's engines say.
func (s *service) servedHere() (v served) {
	for _, e := range s.sys.Engines() {
		v = append(v, servingOf(e))
	}
	return v
}

func servingOf(e infer.EngineState) serving { return serving{e.Models, e.Endpoints} }

// checker checks many tasks; the other nodes are asked at most once, when an answer needs them.
type checker struct {
	ctx   context.Context
	s     *service
	known served
	asked bool
}

func (s *service) checker(ctx context.Context) *checker {
	return &checker{ctx: ctx, s: s, known: s.servedHere()}
}

// task checks every lot that the questions of a task will wait in.
func (c *checker) task(model string, spec *task.Spec) error {
	for _, w := range spec.Lanes(model) {
		if err := c.serves(w.Field, w.Model, w.Endpoint); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) serves(field, model, endpoint string) error {
	err := c.known.check(field, model, endpoint, c.s.defaultModel)
	if err == nil || c.asked {
		return err
	}
	c.known, c.asked = append(c.known, c.s.elsewhere.of(c.ctx, c.s)...), true // only now: it takes a round trip to every node
	return c.known.check(field, model, endpoint, c.s.defaultModel)
}

// CheckModel says whether an engine of the cluster serves a model; "" is the default.
func (s *service) CheckModel(ctx context.Context, model string) error {
	if model == "" {
		model = s.defaultModel
	}
	return s.checker(ctx).serves("model", model, task.EndpointChat)
}

// CheckEndpoint says whether an engine of the cluster serves a model at an endpoint; model "" is any.
func (s *service) CheckEndpoint(ctx context.Context, endpoint, model string) error {
	if model == "" {
		model = task.AnyModel
	}
	return s.checker(ctx).serves("model", model, endpoint)
}

// elsewhere remembers what the engines of other nodes serve.
type elsewhere struct {
	mu    sync.Mutex
	at    time.Time
	known served
}

// of returns what the others serve, asked for at most every factsFresh.
func (e *elsewhere) of(ctx context.Context, s *service) served {
	e.mu.Lock()
	defer e.mu.Unlock()
	var others []cluster.Peer
	for _, p := range s.sys.Router.Alive() {
		if p.Name != s.id && p.Engines > 0 {
			others = append(others, p)
		}
	}
	if len(others) == 0 {
		return nil
	}
	if now := s.now(); now.Sub(e.at) > factsFresh {
		e.at, e.known = now, nil
		for _, t := range s.ask(ctx, others) {
			if t.err != nil { // it may serve anything
				e.known = append(e.known, serving{endpoints: append(task.Endpoints(), task.EndpointTool)})
			}
			for _, x := range t.Engines {
				e.known = append(e.known, serving{x.Models, x.Endpoints})
			}
		}
	}
	return e.known
}
