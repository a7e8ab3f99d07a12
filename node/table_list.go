package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	opEngines     = "node.engines"
	enginesWithin = 5 * time.Second // for an answer: what takes longer goes on there by itself
	allNodes      = "all"
)

// list shows the table.
func (t *table) list() []wire.EngineEntry {
	pace := map[string]float64{}
	draining := map[string]bool{}
	for _, e := range t.n.sys.Engines() {
		pace[e.Name], draining[e.Name] = e.Pace.At(t.n.now()), e.Draining
	}
	states := map[string]api.EngineStatus{}
	for _, s := range t.n.engineStatus() {
		states[s.Name] = s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]wire.EngineEntry, 0, len(t.entries))
	for _, e := range t.entries {
		x := e.shown(t.n.id, states)
		for _, g := range x.Engines {
			x.Pace += pace[g.Name]
			if draining[g.Name] {
				x.State = "draining"
			}
		}
		out = append(out, x)
	}
	return out
}

// shown is an entry as the API has it. Under mu.
func (e *entry) shown(node string, states map[string]api.EngineStatus) wire.EngineEntry {
	x := wire.EngineEntry{Node: node, Name: e.name, Source: "loaded", Version: e.version, Spec: specShown(&e.cfg), Models: []string{}, Engines: []wire.Engine{}, Change: e.change, State: "down"}
	why := []string{}
	if e.configured {
		x.Source = "configuration"
	}
	if e.canary != nil {
		engines := []wire.Engine{}
		for _, m := range e.canary.live.engines {
			s := states[m.Name()]
			engines = append(engines, api.EngineOf(s))
			if s.Reason != "" && !s.Healthy {
				why = append(why, fmt.Sprintf("version %d: %s", e.canary.version, s.Reason))
			}
		}
		x.Canary = e.canary.shown(engines)
	}
	if e.former != nil {
		x.Former = &wire.FormerEngine{Version: e.former.version, Spec: specShown(&e.former.cfg), Loaded: e.former.live != nil, Until: e.former.until}
	}
	switch {
	case e.live != nil:
		for _, m := range e.live.engines {
			s := states[m.Name()]
			x.Busy += s.InFlight
			if s.Healthy {
				x.State = "ready"
			} else if s.Reason != "" {
				why = append(why, s.Reason)
			}
			for _, model := range s.Models {
				if !slices.Contains(x.Models, model) {
					x.Models = append(x.Models, model)
				}
			}
			x.Engines = append(x.Engines, api.EngineOf(s))
		}
	case e.change != nil && e.change.State == changeRuns:
		x.State = "loading"
	default:
		x.State = "failed"
	}
	if e.note != "" {
		why = append(why, e.note)
	}
	x.Reason = strings.Join(why, "; ")
	return x
}

// engineAsk is what one node asks of another's table.
type engineAsk struct {
	Do   string          `json:"do"` // list, load, swap, promote, rollback, unload
	Name string          `json:"name,omitempty"`
	Spec wire.EngineSpec `json:"spec,omitzero"`
	// Percent is a canary's part of the work.
	Percent int `json:"percent,omitempty"`
}

// here does it on this node.
func (t *table) here(q engineAsk) ([]wire.EngineEntry, error) {
	var e *entry
	var err error
	switch q.Do {
	case "list":
		return t.list(), nil
	case "load":
		e, err = t.load(q.Name, q.Spec)
	case "swap":
		e, err = t.swap(q.Name, q.Spec, q.Percent, formerKept)
	case "promote":
		e, err = t.promote(q.Name, q.Percent)
	case "rollback":
		e, err = t.rollback(q.Name, formerKept)
	case "unload":
		e, err = t.unload(q.Name)
	default:
		err = fault.New(fault.Invalid, opEngines, q.Do, "is nothing that this node knows").WithRemedy("upgrade it")
	}
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(t.list(), func(x wire.EngineEntry) bool { return x.Name != e.name })
	if len(all) == 0 { // an unload that took no time
		t.mu.Lock()
		defer t.mu.Unlock()
		all = append(all, e.shown(t.n.id, nil))
	}
	return all, nil
}

func (s *service) serveEngines(_ context.Context, from string, body []byte) ([]byte, error) {
	var q engineAsk
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fault.New(fault.Invalid, opEngines, from, "%w", err)
	}
	all, err := s.table.here(q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// enginesOn does it on one node.
func (s *service) enginesOn(ctx context.Context, node string, q engineAsk) (all []wire.EngineEntry, err error) {
	if node == s.id {
		return s.table.here(q)
	}
	body, err := json.Marshal(q)
	if err == nil {
		body, err = s.sys.Router.CallNode(ctx, node, opEngines, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &all)
	}
	return all, err
}

// EngineTable shows the engines of all nodes.
func (s *service) EngineTable(ctx context.Context) (wire.Engines, error) {
	return s.enginesOnAll(ctx, engineAsk{Do: "list"})
}

// ChangeEngine begins a change, on one node or on all: those that have the engine, but for load.
func (s *service) ChangeEngine(ctx context.Context, node, do, name string, spec wire.EngineSpec, percent int) (wire.Engines, error) {
	q := engineAsk{do, name, spec, percent}
	if node == allNodes {
		return s.enginesOnAll(ctx, q)
	}
	if node == "" {
		node = s.id
	}
	ctx, cancel := context.WithTimeout(ctx, enginesWithin)
	defer cancel()
	alive := node == s.id
	for _, p := range s.sys.Router.Alive() {
		alive = alive || p.Name == node
	}
	if !alive {
		return wire.Engines{}, fault.New(fault.NotFound, "node.engines", node, "no living node has this name").WithRemedy("autoglm cluster status lists them")
	}
	all, err := s.enginesOn(ctx, node, q)
	return wire.Engines{Engines: all}, err
}

func (s *service) enginesOnAll(ctx context.Context, q engineAsk) (wire.Engines, error) {
	ctx, cancel := context.WithTimeout(ctx, enginesWithin)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := wire.Engines{Engines: []wire.EngineEntry{}, Silent: map[string]string{}}
	var first error
	for _, node := range s.nodeNames() {
		wg.Go(func() {
			all, err := s.enginesOn(ctx, node, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Silent[node] = fault.Shown(err)
				if first == nil || fault.KindOf(first) == fault.NotFound {
					first = err
				}
			}
			out.Engines = append(out.Engines, all...)
		})
	}
	wg.Wait()
	slices.SortStableFunc(out.Engines, func(a, b wire.EngineEntry) int { return strings.Compare(a.Node, b.Node) })
	if len(out.Engines) > 0 || q.Do == "list" {
		return out, nil
	}
	return out, first // nobody did it
}

// nodeNames are the living nodes, this one first.
func (s *service) nodeNames() []string {
	names := []string{s.id}
	for _, p := range s.sys.Router.Alive() {
		if p.Name != s.id {
			names = append(names, p.Name)
		}
	}
	return names
}
