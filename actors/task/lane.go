package task

import (
	"fmt"

	"github.com/open-autoglm/autoglm/actors/tenant"
)

// EndpointTool is where tools are run: an endpoint of nodes, in no API. Its models are ToolHTTP and the modules, see ToolWasm.
const EndpointTool = "tool"

// ToolHTTP is the model of HTTP tools.
const ToolHTTP = "http"

// ToolWasm is the model of a WASM module, by its name or as sha256:HEX.
func ToolWasm(module string) string { return "wasm:" + module }

// Lane is the lot, without a tenant, that the next question waits in: its step's, else the task's.
func (r *Record) Lane() Lot {
	own := Lot{r.Model, r.Spec.EndpointOr(), tenant.Default}
	if !r.Spec.OwnLanes() {
		return own
	}
	at, _ := r.Spec.walk(r.Answers)
	return r.Spec.laneAt(at, own)
}

func (s *Spec) laneAt(at place, own Lot) Lot {
	step := s.step(at.question)
	switch {
	case step == nil:
	case step.HTTP != nil:
		return Lot{ToolHTTP, EndpointTool, own.Tenant}
	case step.Wasm != nil:
		return Lot{ToolWasm(step.Wasm.Module), EndpointTool, own.Tenant}
	case step.Map != nil && at.part.Level == 0 && step.Map.Model != "":
		own.Model = step.Map.Model
	case step.Model != "":
		own.Model = step.Model
	}
	return own
}

// OwnLanes tells whether a step says where it waits: by a model of its own, or as a tool. Programs before it cannot read such steps.
func (s *Spec) OwnLanes() bool {
	for i := range s.Steps {
		if step := &s.Steps[i]; step.Model != "" || step.tool() || step.Map != nil && step.Map.Model != "" {
			return true
		}
	}
	return false
}

// Wanted is a lot that a task needs somebody to serve, and the field that names it.
type Wanted struct {
	Lot
	Field string
}

// Lanes are the lots that the questions of the task will wait in, each once. model is the task's queue; it counts where a question waits there,
// or the task names it.
func (s *Spec) Lanes(model string) (all []Wanted) {
	own := Lot{model, s.EndpointOr(), tenant.Default}
	seen := map[Lot]bool{}
	add := func(l Lot, field string) {
		if !seen[l] {
			seen[l] = true
			all = append(all, Wanted{l, field})
		}
	}
	if s.ModelOr("") != "" || !s.OwnLanes() {
		add(own, "model")
	}
	for q := range s.questions() {
		step, field := s.step(q), "model"
		levels := []int{1}
		if step != nil && step.Map != nil {
			levels = []int{0, 1}
		}
		for _, level := range levels {
			l := s.laneAt(place{question: q, part: Part{Level: level}}, own)
			switch {
			case step == nil || l == own:
			case step.HTTP != nil:
				field = s.fieldOf(q) + ".http"
			case step.Wasm != nil:
				field = s.fieldOf(q) + ".wasm.module"
			case level == 0 && step.Map != nil && step.Map.Model != "":
				field = s.fieldOf(q) + ".map.model"
			default:
				field = s.fieldOf(q) + ".model"
			}
			add(l, field)
		}
	}
	return all
}

// plain is its name in journals, as it was before there were tools.
func (l Lot) plain() string {
	if l.Endpoint == EndpointTool {
		return l.Name()
	}
	return "model " + l.Model
}

// Name says which lot it is, as people read it.
func (l Lot) Name() string {
	switch {
	case l.Endpoint == EndpointTool && l.Model == ToolHTTP:
		return "HTTP tools"
	case l.Endpoint == EndpointTool:
		return fmt.Sprintf("WASM module %q", l.Model[min(len(l.Model), len(ToolWasm(""))):])
	case l.Model == AnyModel:
		return "any model"
	}
	return fmt.Sprintf("model %q", l.Model)
}
