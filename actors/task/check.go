package task

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// checkTemplates parses every template, holds what it names against what comes before it, and renders it once with made-up answers:
// what a task would fail of after an hour, its client hears at once.
func (s *Spec) checkTemplates() error {
	if !s.NewForm() {
		return nil
	}
	c := &rehearsal{spec: s, steps: map[string]any{}, vague: map[string]bool{}, order: map[string]int{}}
	for q := range s.questions() {
		if step := s.step(q); step != nil && step.Name != "" {
			c.order[step.Name] = q
		}
	}
	if s.asksFirst() {
		c.order[StepFirst] = 0
	}
	for q := range s.questions() {
		if step := s.step(q); step != nil && !step.plain() {
			field := ""
			for _, t := range step.templates() {
				if t.field != field { // a text of its own; the strings of a body are one
					field, c.used.bytes = t.field, 0
				}
				if err := c.try(q, s.fieldOf(q)+t.field, t.text, t.more); err != nil {
					return err
				}
			}
		}
		c.answered(q)
	}
	return nil
}

// rehearsal is the steps with answers that nobody gave.
type rehearsal struct {
	spec  *Spec
	steps map[string]any
	vague map[string]bool // the step's answer is JSON of which the schema says too little to make one up
	order map[string]int  // question by name
	used  expense         // work of all templates together: a client waits for them
}

// answered makes up an answer to question q.
func (c *rehearsal) answered(q int) {
	name := StepFirst
	step := c.spec.step(q)
	if step != nil {
		name = step.Name
	}
	if name == "" {
		return
	}
	said := map[string]any{"output": sampleText}
	if step != nil && step.tool() {
		said["json"], c.vague[name] = nil, true // whether it is JSON, it says itself
	}
	if format := c.spec.formatAt(place{question: q, part: Part{Level: 1}}); isJSON(format) {
		f, _, _ := CompileFormat(format) // isJSON compiled it
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Schema.Schema))
		v, ok := any(nil), false
		if err == nil {
			v, ok = sample(doc, doc, 0)
		}
		said["json"], c.vague[name] = v, !ok
	}
	c.steps[name] = said
}

// try checks one template of question q.
func (c *rehearsal) try(q int, field, text string, more map[string]any) error {
	bad := func(err error) error {
		return fault.New(fault.Invalid, "task.validate", field, "is no template that could be asked: %w", err)
	}
	names := rootOf(c.spec)
	for _, group := range [][]string{mapRoot, reduceRoot} {
		if _, ok := more[group[0]]; ok {
			names = append(names, group...)
		}
	}
	f, err := parseForm(text, names...)
	if err != nil {
		return bad(err)
	}
	vague := f.any && len(c.vague) > 0
	for _, r := range f.refs {
		at, known := c.order[r.name]
		said, _ := c.steps[r.name].(map[string]any)
		_, json := said["json"]
		switch {
		case !known:
			return bad(fmt.Errorf("it names step %q, which is not there", r.name))
		case at >= q:
			return bad(fmt.Errorf("it names step %q, which comes later", r.name))
		case r.what != "" && r.what != "output" && r.what != "json":
			return bad(fmt.Errorf("it names .steps.%s.%s: use .output or .json", r.name, r.what))
		case r.what == "json" && !json:
			return bad(fmt.Errorf("it names .steps.%s.json, and that step has no response_format of JSON", r.name))
		}
		vague = vague || c.vague[r.name] && r.what != "output"
	}
	if vague {
		return nil
	}
	root, err := (&scene{spec: c.spec}).root(0)
	if err != nil {
		return bad(err)
	}
	root["steps"] = c.steps
	if f.data {
		root["data"] = sampleText
	}
	for k, v := range more {
		root[k] = v
	}
	f.used = &c.used
	if _, err := f.render(root); err != nil && !errors.Is(err, errRange) {
		return bad(err)
	}
	return nil
}
