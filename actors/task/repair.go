package task

import (
	"errors"
	"fmt"
)

// RepairTextMax bounds an answer that is shown to the engine again, in bytes: a longer one is a failed try at once.
const RepairTextMax = 32 << 10

// repairDefault is how often an answer is repaired where nobody says.
const repairDefault = 1

// Repair is an answer that broke its promised form, and how: the engine is shown both, and asked again.
type Repair struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

// messages follow the question that the answer was to.
func (p *Repair) messages() []Message {
	return []Message{{Role: "assistant", Content: p.Text},
		{Role: "user", Content: "That answer does not keep to the form that was asked for: " + p.Error + "\nAnswer the question again, with nothing but JSON that keeps to it."}}
}

// BrokenForm is the error of an answer that does not keep to its form, with the answer.
type BrokenForm struct {
	Text string
	Err  error // the fault that policy reads
}

// Error is the fault's text.
func (e *BrokenForm) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e *BrokenForm) Unwrap() error { return e.Err }

// repairs is how often the next answer may be repaired in all.
func (r *Record) repairs() int {
	at, _ := r.Spec.walk(r.Answers)
	step := r.Spec.step(at.question)
	switch {
	case step != nil && step.tool():
		return 0 // it cannot be told what is wrong
	case step != nil && step.Repair != nil:
		return *step.Repair
	}
	if r.Spec.Repair != nil {
		return *r.Spec.Repair
	}
	return repairDefault
}

// repair says how a failed attempt is repaired: nil where it is not.
func (r *Record) repair(err error) (p *Repair, reason string) {
	e, ok := errors.AsType[*BrokenForm](err)
	if !ok || len(r.Spec.Request) > 0 || e.Text == "" || len(e.Text) > RepairTextMax {
		return nil, ""
	}
	most := r.repairs()
	if r.Repairs >= most {
		return nil, ""
	}
	return &Repair{Text: e.Text}, fmt.Sprintf("the engine is shown its answer and what is wrong with it, and asked again: repair %d of %d, which counts as no try", r.Repairs+1, most)
}
