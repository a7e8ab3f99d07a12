package task

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of steps.
const (
	StepPromptMax = 64 << 10 // bytes of one template
	MapsMax       = 4        // steps of a task with a map
	PartsMax      = 256      // parts of one map
	RepairMax     = 5
	StepFirst     = "first" // names the answer to prompt or messages
)

// Steps are what a task asks after its prompt, or all that it asks.
type Steps []TaskStep

// Texts are steps of the plain form.
func Texts(texts ...string) Steps {
	s := make(Steps, len(texts))
	for i, t := range texts {
		s[i].Text = t
	}
	return s
}

// TaskStep is one question. In JSON it is a string, sent as it is, or an object with a template.
type TaskStep struct {
	Text string `json:"-"` // the plain form: nothing else is set

	Name        string          `json:"name,omitempty" doc:"By which later steps name its answer; letters, digits and _." maxLength:"64"`
	Prompt      string          `json:"prompt,omitempty" doc:"A template of the user message, see docs/steps.md."`
	System      string          `json:"system,omitempty" doc:"In place of the task's, for this step only."`
	MaxTokens   int             `json:"max_tokens,omitempty" minimum:"0"`
	Temperature *float64        `json:"temperature,omitempty" minimum:"0" maximum:"2"`
	Format      json.RawMessage `json:"response_format,omitempty" doc:"In place of the task's."`
	History     *bool           `json:"history,omitempty" doc:"Whether the conversation so far is sent; true when left out, never for a map."`
	Repair      *int            `json:"repair,omitempty" doc:"In place of the task's." minimum:"0" maximum:"5"`
	Model       string          `json:"model,omitempty" doc:"In place of the task's: which engine the step waits for."`
	HTTP        *HTTPTool       `json:"http,omitempty" doc:"In place of prompt: a request, whose answer's body is the step's output."`
	Wasm        *WasmTool       `json:"wasm,omitempty" doc:"In place of prompt: a function of a WASM module of the operator's."`
	Map         *Map            `json:"map,omitempty" doc:"In place of prompt: asked once for each part of the data."`
	Reduce      *Reduce         `json:"reduce,omitempty" doc:"With map: merges the answers of the parts."`
}

// Map asks the same of every part of the data.
type Map struct {
	Over   string          `json:"over" enum:"data" doc:"What is split: what data_url gives."`
	Split  Split           `json:"split"`
	Prompt string          `json:"prompt" doc:"A template; .part is the part, .index its number from 0."`
	Format json.RawMessage `json:"response_format,omitempty" doc:"Of a part's answer; text when left out."`
	Model  string          `json:"model,omitempty" doc:"Of the parts, in place of the step's."`
}

// Reduce makes one answer of many.
type Reduce struct {
	Prompt string `json:"prompt" doc:"A template; .parts are the answers of the parts, in order."`
	Size   int    `json:"size,omitempty" doc:"Most bytes of answers that one merge is made of; more are merged in levels. 24576 when 0." minimum:"0"`
}

// reduceSize is Reduce.Size where it is 0: what fits in a small model's context.
const reduceSize = 24 << 10

// stepObject is TaskStep without its methods.
type stepObject TaskStep

// plain tells the form.
func (s *TaskStep) plain() bool { return s.Prompt == "" && s.Map == nil && !s.tool() }

// MarshalJSON writes the form that was read. Nothing is escaped for HTML: the encoder around does that if it is to be.
func (s TaskStep) MarshalJSON() ([]byte, error) {
	var v any = s.Text
	if !s.plain() {
		v = stepObject(s)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// UnmarshalJSON takes both forms. A field that it does not know is refused, in a journal too: the step would be another one without it.
func (s *TaskStep) UnmarshalJSON(b []byte) error {
	*s = TaskStep{}
	if len(b) == 0 || b[0] != '{' {
		if err := json.Unmarshal(b, &s.Text); err != nil {
			return fmt.Errorf("a step is a string or an object with a prompt, not %.20s", b)
		}
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*stepObject)(s))
}

// asksFirst tells whether the task asks something before its steps.
func (s *Spec) asksFirst() bool { return s.Prompt != "" || len(s.Messages) > 0 || len(s.Request) > 0 }

// questions is how many answers the task has in the end, a map counting as one.
func (s *Spec) questions() int {
	n := len(s.Steps)
	if s.asksFirst() {
		n++
	}
	return n
}

// step returns the step that question q is, nil for the prompt.
func (s *Spec) step(q int) *TaskStep {
	if s.asksFirst() {
		q--
	}
	if q < 0 || q >= len(s.Steps) {
		return nil
	}
	return &s.Steps[q]
}

// NewForm tells whether there is a step in the form of an object, which programs before it cannot read.
func (s *Spec) NewForm() bool {
	for i := range s.Steps {
		if !s.Steps[i].plain() {
			return true
		}
	}
	return false
}

// size is the bytes that count against PromptMax: all that a client may make long.
func (s *TaskStep) size() int {
	n := len(s.Text) + len(s.Prompt) + len(s.System) + len(s.Format)
	if h := s.HTTP; h != nil {
		n += len(h.URL) + len(h.Body)
		for k, v := range h.Headers {
			n += len(k) + len(v)
		}
	}
	if s.Wasm != nil {
		n += len(s.Wasm.Module) + len(s.Wasm.Function) + len(s.Wasm.Input)
	}
	if s.Map != nil {
		n += len(s.Map.Prompt) + len(s.Map.Format)
	}
	if s.Reduce != nil {
		n += len(s.Reduce.Prompt)
	}
	return n
}

// jsonSize bounds its JSON from above.
func (s *TaskStep) jsonSize() int {
	n := textSize(s.Text) + textSize(s.Name) + textSize(s.Prompt) + textSize(s.System) + textSize(s.Model) + len(s.Format) + 8*sizePart
	if h := s.HTTP; h != nil {
		n += textSize(h.Method) + textSize(h.URL) + len(h.Body) + 2*sizePart + len(h.RetryOn)*sizePart/4
		for k, v := range h.Headers {
			n += textSize(k) + textSize(v) + sizePart
		}
	}
	if w := s.Wasm; w != nil {
		n += textSize(w.Module) + textSize(w.Function) + len(w.Input) + 3*sizePart
	}
	if m := s.Map; m != nil {
		n += textSize(m.Over) + textSize(m.Split.By) + textSize(m.Prompt) + textSize(m.Model) + len(m.Format) + 4*sizePart
	}
	if r := s.Reduce; r != nil {
		n += textSize(r.Prompt) + 2*sizePart
	}
	return n
}

// validateSteps checks each step by itself, and then what its template names against what comes before it.
func (s *Spec) validateSteps() error {
	names := map[string]bool{StepFirst: true}
	maps := 0
	for i := range s.Steps {
		step, field := &s.Steps[i], fmt.Sprintf("steps[%d]", i)
		bad := func(sub, format string, args ...any) error {
			return fault.New(fault.Invalid, "task.validate", field+sub, format, args...)
		}
		if step.plain() {
			if step.Text == "" {
				return bad("", "is empty: give a text, or an object with a prompt, a map, http or wasm")
			}
			continue
		}
		switch {
		case step.Name != "" && !identifier(step.Name):
			return bad(".name", "is %q: use at most 64 letters, digits and _, not a digit first", step.Name)
		case names[step.Name]:
			return bad(".name", "is %q, which another answer has: %q is that to the prompt", step.Name, StepFirst)
		case step.MaxTokens < 0:
			return bad(".max_tokens", "is %d: it cannot be negative", step.MaxTokens)
		case step.Temperature != nil && !(*step.Temperature >= 0 && *step.Temperature <= 2):
			return bad(".temperature", "is %g: use 0 to 2", *step.Temperature)
		case step.Repair != nil && (*step.Repair < 0 || *step.Repair > RepairMax):
			return bad(".repair", "is %d: use 0 to %d", *step.Repair, RepairMax)
		case len(step.Format) > SchemaMax:
			return bad(".response_format", "has %d bytes, the limit is %d", len(step.Format), SchemaMax)
		case !step.tool() && (step.Map == nil) != (step.Reduce == nil):
			return bad("", "needs both map and reduce, or neither")
		case !step.tool() && step.Map != nil && step.Prompt != "":
			return bad(".prompt", "and map exclude each other: give one of them")
		}
		if _, _, err := CompileFormat(step.Format); err != nil {
			return bad(".response_format", "%w", err)
		}
		if err := checkModelName(step.Model, field+".model"); err != nil {
			return err
		}
		if step.Name != "" {
			names[step.Name] = true
		}
		if step.tool() {
			if err := step.validateTool(field); err != nil {
				return err
			}
		}
		if step.Map != nil {
			if maps++; maps > MapsMax {
				return bad(".map", "is one of more than %d", MapsMax)
			}
			if err := step.validateMap(s, field); err != nil {
				return err
			}
		}
	}
	if s.Repair != nil && (*s.Repair < 0 || *s.Repair > RepairMax) {
		return fault.New(fault.Invalid, "task.validate", "repair", "is %d: use 0 to %d", *s.Repair, RepairMax)
	}
	return nil
}

func (s *TaskStep) validateMap(spec *Spec, field string) error {
	bad := func(sub, format string, args ...any) error {
		return fault.New(fault.Invalid, "task.validate", field+sub, format, args...)
	}
	m, r := s.Map, s.Reduce
	switch {
	case m.Over != "data":
		return bad(".map.over", "is %q: use \"data\"", m.Over)
	case spec.DataURL == "":
		return bad(".map.over", "is the data, and the task has no data_url")
	case m.Prompt == "":
		return bad(".map.prompt", "is missing")
	case r.Prompt == "":
		return bad(".reduce.prompt", "is missing")
	case r.Size < 0 || r.Size > PromptMax/2:
		return bad(".reduce.size", "is %d: use at most %d", r.Size, PromptMax/2)
	case s.History != nil && *s.History:
		return bad(".history", "is true: the parts of a map are asked without the conversation")
	case len(m.Format) > SchemaMax:
		return bad(".map.response_format", "has %d bytes, the limit is %d", len(m.Format), SchemaMax)
	}
	if _, _, err := CompileFormat(m.Format); err != nil {
		return bad(".map.response_format", "%w", err)
	}
	if err := checkModelName(m.Model, field+".map.model"); err != nil {
		return err
	}
	return m.Split.validate(field + ".map.split")
}

func identifier(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
