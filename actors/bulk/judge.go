package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	problemsMax = 100  // kept of an input
	modelsMax   = 1000 // different models of one input
	judgeRead   = 4096 // lines between two looks at whether anybody still wants to know
)

// judge reads an input line by line and says what is wrong with it. It takes constant memory.
type judge struct {
	h        *Header
	ids      *unique
	served   func(endpoint, model string) error // asked once for each model
	steps    func(own bool) error               // refuses steps that are objects, or have a model of their own, while not all nodes know them; nil: all do
	lanes    map[task.Lot]error                 // of steps that wait elsewhere
	timeout  time.Duration                      // no line may ask for more
	models   map[string]bool                    // seen; of those true the lines are good
	model    string                             // of the first good line
	total    uint64
	blank    uint64 // the first of blank lines that only more blank ones have followed; 1-based, 0: none
	problems []Problem
}

func newJudge(h *Header, dir string, timeout time.Duration, served func(endpoint, model string) error) *judge {
	return &judge{h: h, timeout: timeout, ids: newUnique(dir, uniqueMax, problemsMax), served: served, models: map[string]bool{}, lanes: map[task.Lot]error{}}
}

func (j *judge) found(p Problem) {
	if len(j.problems) < problemsMax {
		j.problems = append(j.problems, p)
	}
}

// line takes the next line, or why it could not be read.
func (j *judge) line(number uint64, b []byte, bad error) error {
	if bad == nil && blank(b) {
		if j.blank == 0 {
			j.blank = number + 1
		}
		return nil
	}
	if j.blank > 0 {
		j.found(Problem{Code: codeJSON, Message: "This line is blank.", Line: j.blank})
		j.blank = 0
	}
	j.total++
	if bad != nil {
		j.found(Problem{Code: codeTooLarge, Message: fmt.Sprintf("This line has more than %d bytes.", LineMax), Line: number + 1})
		return nil
	}
	l, p := decode(b, j.h.Endpoint)
	if p == nil && l.timeout > j.timeout {
		p = &Problem{Code: codeInvalid, Param: "body.timeout", Message: fmt.Sprintf("'timeout' is %v: this cluster allows %v at most.", l.timeout, j.timeout)}
	}
	if p == nil && l.newForm && j.steps != nil {
		if err := j.steps(len(l.lanes) > 0); err != nil {
			p = &Problem{Code: codeInvalid, Param: "body.steps", Message: fault.Sentence(err)}
		}
	}
	if p == nil {
		var err error
		if p, err = j.judgeModel(l.model); err == nil && p == nil {
			p, err = j.judgeLanes(&l)
		}
		if err != nil {
			return err
		}
	}
	if p != nil {
		p.Line = number + 1
		j.found(*p)
		return nil
	}
	return j.ids.add(l.CustomID, number)
}

// judgeModel holds a line's model against those of the lines before, and against the engines.
func (j *judge) judgeModel(model string) (*Problem, error) {
	if len(j.models) == 0 {
		j.model = model
	}
	if model != j.model && !j.h.MixedModels {
		return &Problem{Code: codeModel, Param: "body.model", Message: fmt.Sprintf("The model of this request, %.100q, does not match the one of the requests before, "+
			"%.100q. All requests of a batch are for one model, unless the batch has mixed_models.", model, j.model)}, nil
	}
	good, seen := j.models[model]
	if !seen {
		if len(j.models) >= modelsMax {
			return &Problem{Code: codeModel, Param: "body.model", Message: fmt.Sprintf("This batch names more than %d models.", modelsMax)}, nil
		}
		err := j.served(j.h.Endpoint, model)
		if fault.KindOf(err).Retryable() { // nobody could tell
			return nil, err
		}
		good = err == nil
		j.models[model] = good
		if !good {
			return &Problem{Code: codeNoModel, Param: "body.model", Message: fmt.Sprintf("The model %.100q is not available. %s", model, fault.Sentence(err))}, nil
		}
	}
	if !good {
		return &Problem{Code: codeNoModel, Param: "body.model", Message: fmt.Sprintf("The model %.100q is not available.", model)}, nil
	}
	return nil, nil
}

// judgeLanes holds the models and tools of a line's steps against the engines.
func (j *judge) judgeLanes(l *Line) (*Problem, error) {
	for _, w := range l.lanes {
		if w.Model == l.model && w.Endpoint == task.EndpointChat {
			continue // it was judged as the line's
		}
		err, seen := j.lanes[w.Lot]
		if !seen {
			if len(j.lanes) >= modelsMax {
				return &Problem{Code: codeModel, Param: "body." + w.Field, Message: fmt.Sprintf("The steps of this batch name more than %d models and tools.", modelsMax)}, nil
			}
			if err = j.served(w.Endpoint, w.Model); fault.KindOf(err).Retryable() { // nobody could tell
				return nil, err
			}
			j.lanes[w.Lot] = err
		}
		if err != nil {
			return &Problem{Code: codeNoModel, Param: "body." + w.Field, Message: fmt.Sprintf("A step needs %s, which is not available: %s.", w.Name(), fault.RemedyOf(err))}, nil
		}
	}
	return nil, nil
}

// verdict is called after the last line.
func (j *judge) verdict() (Fact, error) {
	twice, err := j.ids.repeats()
	if err != nil {
		return Fact{}, err
	}
	for _, r := range twice {
		j.problems = append(j.problems, Problem{Code: codeTwice, Param: "custom_id", Line: r.line + 1,
			Message: fmt.Sprintf("The custom_id of this line is the one of line %d: each must be unique.", r.first+1)})
	}
	slices.SortStableFunc(j.problems, func(a, b Problem) int { return compare(a.Line, b.Line) })
	j.problems = j.problems[:min(len(j.problems), problemsMax)]
	if j.total == 0 {
		j.problems = []Problem{{Code: codeEmpty, Message: "The input file has no requests."}}
	}
	if len(j.problems) > 0 {
		return Fact{Event: Rejected, Errors: j.problems}, nil
	}
	model := j.model
	if len(j.models) > 1 {
		model = ""
	}
	return Fact{Event: Accepted, Total: j.total, Model: model}, nil
}

// served refuses what no engine serves. A task of this system's own goes where chats go.
func (o *Options) served(ctx context.Context, endpoint, model string) error {
	if endpoint == EndpointTasks {
		endpoint = task.EndpointChat
	}
	return o.Served(ctx, endpoint, model)
}

// gone tells whether a file cannot be read, and will never be.
func gone(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.NotFound || kind == fault.Corrupt
}

func inputGone(err error) []Problem {
	return []Problem{{Code: codeInput, Param: "input_file_id", Message: fmt.Sprintf("The input file cannot be read. %s", fault.Sentence(err))}}
}

// validate judges the input.
func (d *driver) validate(ctx context.Context, s State) error {
	left := s.ExpiresAt.Sub(d.Now())
	if left <= 0 {
		_, err := d.report(ctx, Fact{Event: TimedOut}, nil)
		return err
	}
	within, cancel := context.WithTimeout(ctx, min(left, 24*time.Hour))
	defer cancel()
	f, err := d.verdict(within, s)
	switch {
	case gone(err):
		f = Fact{Event: Rejected, Errors: inputGone(err)}
	case err != nil || f.Event == 0:
		return err
	}
	if f.Event == Rejected {
		f.URLs = d.urls(s)
	}
	_, err = d.report(ctx, f, nil)
	return err
}

// verdict reads the whole input. It is nothing when the batch has changed meanwhile.
func (d *driver) verdict(ctx context.Context, s State) (Fact, error) {
	r, _, err := d.Files.Open(ctx, s.Header.InputFile, 0)
	if err != nil {
		return Fact{}, err
	}
	defer r.Close()
	j := newJudge(s.Header, d.Dir, d.TimeoutMax, func(endpoint, model string) error { return d.served(ctx, endpoint, model) })
	j.steps = d.Steps
	defer j.ids.close()
	in := newLines(r, 0, 0, LineMax)
	for n := uint64(0); ; n++ {
		if n%judgeRead == 0 {
			if ctx.Err() != nil {
				return Fact{}, context.Cause(ctx)
			}
			select {
			case <-d.news:
				if now, err := d.get(ctx); err != nil || now.Phase != Validating {
					return Fact{}, err
				}
			default:
			}
		}
		b, err := in.next()
		if errors.Is(err, io.EOF) {
			return j.verdict()
		}
		if err != nil && !errors.Is(err, errLineLong) {
			return Fact{}, err
		}
		if err := j.line(n, b, err); err != nil {
			return Fact{}, err
		}
	}
}
