package infer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// schemasMax bounds the compiled schemas kept; past it all are dropped at once.
const schemasMax = 256

// Runner does the parts of one attempt: Prepare fetches the data, Ask asks the
// engine, Check holds the answer against its promised form. They are apart because
// only Ask says something about the engine, and only Ask needs its slot. It is safe
// for many goroutines.
type Runner struct {
	Fetch func(ctx context.Context, url string) (source.Data, error)
	Learn func(model string, ms []Message, promptTokens, outputTokens int)
	Meter *meter.Meter
	Now   func() time.Time

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by response_format
	kept    keptData
}

// Prepare makes the request of one attempt: the conversation, with the data of its
// data_url. models is what the engine serves. Errors are of the task or its data,
// never of the engine.
func (r *Runner) Prepare(ctx context.Context, models []string, w *task.Work) (*Request, task.Answer, error) {
	spec := w.Record.Spec
	a := task.Answer{}
	if len(spec.Request) > 0 {
		q := &Request{Model: modelOf(w.Record.Model, models), Endpoint: spec.EndpointOr(), Key: keyOf(w), Trace: w.Record.Trace}
		var err error
		q.Raw, err = task.RequestFor(spec.Request, q.Model)
		return q, a, err
	}
	ask, err := w.Record.Ask(nil)
	if needs := errors.Is(err, task.ErrNeedsData); err != nil && !needs {
		return nil, a, err
	} else if needs || spec.DataURL != "" && ask.DataAt >= 0 {
		d, err := r.data(ctx, w)
		if err != nil {
			return nil, a, err
		}
		a.DataSHA256, a.DataBytes = d.SHA256, d.Bytes
		if ask, err = w.Record.Ask(&d.Text); err != nil {
			return nil, a, err
		}
		if ask.DataAt >= 0 {
			ask.Messages[ask.DataAt].Content = source.Compose(ask.Messages[ask.DataAt].Content, d)
		}
	}
	a.Part = ask.Part
	model := modelOf(w.Record.Lane().Model, models)
	if ask.Tool != nil {
		ask.Tool.Key = task.ToolKey(w.ID, ask.Tool.Question)
		return &Request{Model: model, Tool: ask.Tool, Trace: w.Record.Trace}, a, nil
	}
	return &Request{
		Model: model, Messages: ask.Messages, MaxTokens: ask.MaxTokens, Temperature: greedyUnlessAsked(ask.Temperature), TopP: spec.TopP,
		Seed: spec.Seed, Stop: spec.Stop, Format: ask.Format, Key: keyOf(w), Trace: w.Record.Trace,
	}, a, nil
}

// keyOf names a run for the engine's logs.
func keyOf(w *task.Work) string {
	if w.IsSecond() {
		return fmt.Sprintf("%s/%d.2", w.ID, w.Attempt)
	}
	return fmt.Sprintf("%s/%d", w.ID, w.Attempt)
}

// Ask puts a prepared request to the engine and fills the answer in. Errors are the
// engine's.
func (r *Runner) Ask(ctx context.Context, e Engine, q *Request, w *task.Work, a *task.Answer) error {
	a.StartedAt = r.Now()
	if !w.IsSecond() {
		r.Meter.Observe(meter.PhaseQueue, a.StartedAt.Sub(w.Record.NotBefore))
	}
	res, err := e.Do(ctx, q)
	switch {
	case err != nil && q.Tool != nil:
		return err // it names the tool
	case err != nil:
		return fmt.Errorf("engine %s: %w", e.Name(), err)
	}
	a.EndedAt = r.Now()
	r.Meter.Observe(meter.PhaseRun, a.EndedAt.Sub(a.StartedAt))
	a.Status, a.Body = res.Status, res.Raw
	a.Text, a.FinishReason, a.Model, a.PromptTokens, a.OutputTokens = res.Text, res.FinishReason, res.Model, res.PromptTokens, res.OutputTokens
	if r.Learn != nil && q.Tool == nil {
		r.Learn(w.Record.Lane().Model, q.Messages, res.PromptTokens, res.OutputTokens)
	}
	return nil
}

// modelOf names the model to an engine that serves these.
func modelOf(queue string, models []string) string {
	if queue == task.AnyModel && len(models) > 0 && models[0] != "*" && !slices.Contains(models, queue) {
		return models[0]
	}
	return queue
}

// greedyUnlessAsked makes 0 explicit: engines default to sampling, tasks to the same
// answer each time.
func greedyUnlessAsked(t *float64) *float64 {
	if t != nil {
		return t
	}
	return new(float64)
}

// Check holds an answer against the promised form. An engine that cannot keep to a
// form may do so at another try, so the kind is Malformed, which is retried.
func (r *Runner) Check(format json.RawMessage, a *task.Answer) error {
	if len(format) == 0 {
		return nil
	}
	schema, object, err := r.schema(format)
	if err != nil || schema == nil && !object {
		return err
	}
	bad := func(err error) error {
		f := fault.New(fault.Malformed, "infer.check", "", "the answer does not keep to response_format: %w", err)
		if a.FinishReason == "length" {
			return f.WithRemedy("it was cut off: raise max_tokens") // nothing to repair
		}
		return &task.BrokenForm{Text: a.Text, Err: f.WithRemedy("use an engine with structured output, or a simpler schema")}
	}
	for _, text := range a.Contents() {
		if err := checkText(schema, text); err != nil {
			return bad(err)
		}
	}
	return nil
}

// checkText holds one text against a schema; without one it must be a JSON object.
func checkText(schema *jsonschema.Schema, text string) error {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	if schema != nil {
		return schema.Validate(doc)
	}
	if _, ok := doc.(map[string]any); !ok {
		return fmt.Errorf("it is no JSON object")
	}
	return nil
}

func (r *Runner) schema(format json.RawMessage) (s *jsonschema.Schema, object bool, err error) {
	r.mu.Lock()
	s, ok := r.schemas[string(format)]
	r.mu.Unlock()
	if ok && s != nil {
		return s, false, nil
	}
	f, s, err := task.CompileFormat(format)
	if err != nil || s == nil {
		return nil, f.Type == "json_object", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.schemas == nil || len(r.schemas) >= schemasMax {
		r.schemas = map[string]*jsonschema.Schema{}
	}
	r.schemas[string(format)] = s
	return s, false, nil
}
