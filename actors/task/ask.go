package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Ask is what an engine is to be asked next, with what the step says of its own.
type Ask struct {
	Messages    []Message
	DataAt      int // the message that the data is put after, -1 for none
	MaxTokens   int
	Temperature *float64
	Format      json.RawMessage
	Part        *Part // of a map, for its answer
	Tool        *Call // in place of all the rest
}

// ErrNeedsData says that the question cannot be made without the data.
var ErrNeedsData = errors.New("the question needs the data")

// Ask makes the next question. data is what data_url gives, nil where nobody fetched it yet.
func (r *Record) Ask(data *string) (Ask, error) { return r.ask(data, true) }

// Conversation returns the messages to send for the step that is next: the prompt, then each answer so far with the step that follows
// it. Templates are as written, since nobody has the data here. A request has none: it is sent as it is.
func (r *Record) Conversation() []Message {
	if len(r.Spec.Request) > 0 {
		return nil
	}
	a, err := r.ask(nil, false)
	if err != nil {
		return nil // only rendering fails
	}
	return a.Messages
}

func (r *Record) ask(data *string, rendered bool) (Ask, error) {
	s := r.Spec
	at, past := s.walk(r.Answers)
	a := Ask{DataAt: -1, MaxTokens: s.MaxTokens, Temperature: s.Temperature, Format: s.formatAt(at)}
	e := &scene{spec: s, past: past, data: data, rendered: rendered}
	step := s.step(at.question)
	if step != nil && step.tool() {
		if rendered {
			c, err := e.call(at.question)
			return Ask{DataAt: -1, Format: a.Format, Tool: c}, err
		}
		return Ask{DataAt: -1}, nil
	}
	lead, rest := s.Messages, []Message(nil)
	if len(lead) > 0 && lead[0].Role == "system" {
		lead, rest = s.Messages[:1], s.Messages[1:]
	} else if lead, rest = nil, s.Messages; s.System != "" {
		lead = []Message{{Role: "system", Content: s.System}}
	}
	if len(s.Messages) == 0 && s.Prompt != "" {
		rest = []Message{{Role: "user", Content: s.Prompt}}
	}
	history := true
	if step != nil && !step.plain() {
		history = step.Map == nil && (step.History == nil || *step.History)
		if step.System != "" {
			lead = []Message{{Role: "system", Content: step.System}}
		}
		if step.MaxTokens > 0 {
			a.MaxTokens = step.MaxTokens
		}
		if step.Temperature != nil {
			a.Temperature = step.Temperature
		}
	}
	a.Messages = slices.Clone(lead)
	if history {
		if s.asksFirst() {
			a.DataAt = len(lead) + questionIn(rest)
			if len(rest) == 0 {
				a.DataAt = 0
			}
			a.Messages = append(a.Messages, rest...)
		}
		for q, o := range past {
			before := s.step(q)
			if before != nil && before.tool() {
				continue // it said nothing to the engine: templates name what it gave
			}
			if before != nil {
				text, err := e.question(place{question: q, part: o.part, merges: o.merged})
				if err != nil {
					return a, err
				}
				a.Messages = append(a.Messages, Message{Role: "user", Content: text})
			}
			a.Messages = append(a.Messages, Message{Role: "assistant", Content: o.answer.Text})
		}
	}
	if step != nil {
		text, err := e.question(at)
		if err != nil {
			return a, err
		}
		a.Messages = append(a.Messages, Message{Role: "user", Content: text})
		if step.Map != nil {
			a.Part = &at.part
			if a.Part.Level == 0 {
				a.Part.Of = e.parts
			}
		}
	}
	if r.Repair != nil && rendered {
		a.Messages = append(a.Messages, r.Repair.messages()...)
	}
	return a, nil
}

// questionIn is the message that data belongs to: the last one of a user, else the first.
func questionIn(ms []Message) int {
	for i := len(ms) - 1; i > 0; i-- {
		if ms[i].Role == "user" {
			return i
		}
	}
	return 0
}

// FormatOr is the form that the next answer was promised in.
func (r *Record) FormatOr() json.RawMessage {
	if len(r.Spec.Request) > 0 {
		return r.Spec.FormatOr()
	}
	at, _ := r.Spec.walk(r.Answers)
	return r.Spec.formatAt(at)
}

func (s *Spec) formatAt(at place) json.RawMessage {
	step := s.step(at.question)
	switch {
	case step == nil || step.plain():
		return s.Format
	case step.tool():
		return step.Format
	case step.Map != nil && at.part.Level == 0:
		return step.Map.Format
	case len(step.Format) > 0:
		return step.Format
	}
	return s.Format
}

// scene renders the templates of one question.
type scene struct {
	spec     *Spec
	past     []outcome
	data     *string
	rendered bool // else templates are as written
	parts    int  // how many the data has, once it was split
}

// rootOf is what templates of steps can name.
func rootOf(s *Spec) []string {
	root := []string{"steps", "prompt", "metadata"}
	if s.DataURL != "" {
		root = append(root, "data")
	}
	return root
}

var mapRoot, reduceRoot = []string{"part", "index", "of"}, []string{"parts"}

// question is the text of what is asked at a place.
func (e *scene) question(at place) (string, error) {
	step := e.spec.step(at.question)
	text := step.Prompt
	switch {
	case step.plain():
		return step.Text, nil
	case step.Map != nil && at.part.Level == 0:
		text = step.Map.Prompt
	case step.Map != nil:
		text = step.Reduce.Prompt
	}
	if !e.rendered {
		return text, nil
	}
	root := map[string]any{}
	switch {
	case step.Map != nil && at.part.Level == 0:
		if e.data == nil {
			return "", ErrNeedsData
		}
		parts, err := step.Map.Split.Of(*e.data)
		if err != nil {
			return "", err
		}
		if e.parts = len(parts); at.part.Index >= len(parts) {
			return "", fault.New(fault.Invalid, "task.step", "data_url", "is empty: there is nothing to map")
		}
		root["part"], root["index"], root["of"] = parts[at.part.Index], at.part.Index, len(parts)
	case step.Map != nil:
		root["parts"] = at.merges
	}
	said, err := e.text(at.question, text, root)
	if err == nil && said == "" {
		err = e.failed(at.question, errors.New("the text is empty"))
	}
	return said, err
}

// text renders one template of a question. more is what it sees beside what all do.
func (e *scene) text(q int, text string, more map[string]any) (string, error) {
	root, err := e.root(q)
	if err != nil {
		return "", e.failed(q, err)
	}
	return e.textOf(q, text, root, more, &expense{})
}

// textOf renders a template with the root of its question, at the cost of used.
func (e *scene) textOf(q int, text string, root, more map[string]any, used *expense) (string, error) {
	f, err := parseForm(text, append(rootOf(e.spec), slices.Sorted(maps.Keys(more))...)...)
	if err != nil {
		return "", e.failed(q, err)
	}
	root = maps.Clone(root)
	if f.data {
		if e.data == nil {
			return "", ErrNeedsData
		}
		root["data"] = *e.data
	}
	maps.Copy(root, more)
	f.used = used
	said, err := f.render(root)
	if err != nil {
		return "", e.failed(q, err)
	}
	return said, nil
}

// failed is final: the same answers render the same.
func (e *scene) failed(q int, err error) error {
	return fault.New(fault.Invalid, "task.step", e.spec.fieldOf(q), "cannot be asked: its template: %w", err).WithRemedy("submit it under a new id with a template that allows for such answers (get, if, with)")
}

// fieldOf names a question as its client wrote it.
func (s *Spec) fieldOf(q int) string {
	if s.asksFirst() {
		q--
	}
	return fmt.Sprintf("steps[%d]", q)
}

// root is what a template sees: the outcomes of the questions before q.
func (e *scene) root(q int) (map[string]any, error) {
	steps := map[string]any{}
	for i := range min(q, len(e.past)) {
		name := StepFirst
		if step := e.spec.step(i); step != nil {
			name = step.Name
		}
		if name == "" {
			continue
		}
		said := map[string]any{"output": e.past[i].answer.Text}
		if step := e.spec.step(i); step != nil && step.tool() {
			if text := e.past[i].answer.Text; json.Valid([]byte(text)) {
				said["json"], _ = jsonValue(text) // it is valid
			}
		} else if isJSON(e.spec.formatAt(place{question: i, part: e.past[i].part})) {
			v, err := jsonValue(e.past[i].answer.Text)
			if err != nil {
				return nil, fmt.Errorf("the answer of %s is no JSON: %w", name, err)
			}
			said["json"] = v
		}
		steps[name] = said
	}
	meta := map[string]any{}
	for k, v := range e.spec.Metadata {
		meta[k] = v
	}
	return map[string]any{"steps": steps, "prompt": e.spec.Prompt, "metadata": meta}, nil
}

func isJSON(format json.RawMessage) bool {
	f, _, err := CompileFormat(format)
	return err == nil && f.Type != "text"
}
