package explain

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Step is one journaled event of a task, and the times that it tells of. Seconds are those of the clocks that journaled both ends.
type Step struct {
	Version uint64        `json:"version"`
	At      time.Time     `json:"at"`
	Event   task.Event    `json:"event"`
	Attempt uint32        `json:"attempt,omitempty" doc:"Of a callback: the number of the try."`
	Step    int           `json:"step,omitempty" doc:"Of a task with steps: how many answers there were before the attempt, a map having several."`
	Place   string        `json:"place,omitempty" doc:"Of a task with steps: that step in words, with its name and part."`
	Epoch   uint64        `json:"epoch,omitempty" doc:"Of the shard's owner that claimed the attempt."`
	Node    string        `json:"node,omitempty"`
	Engine  string        `json:"engine,omitempty"`
	Queued  *float64      `json:"queued_seconds,omitempty" doc:"Of a claim: since the task could be claimed."`
	Fetched *float64      `json:"fetched_seconds,omitempty" doc:"Of an answer: from the claim until the request was sent. Waiting for its batch and for a slot, and fetching data_url."`
	Ran     *float64      `json:"ran_seconds,omitempty" doc:"Of an answer: in the engine."`
	Took    *float64      `json:"took_seconds,omitempty" doc:"Of what ended an attempt: since its claim."`
	Prompt  int           `json:"prompt_tokens,omitempty"`
	Output  int           `json:"completion_tokens,omitempty"`
	Until   *time.Time    `json:"until,omitempty" doc:"Of a claim: end of the lease. Of a failed attempt or callback: not again before."`
	Error   *task.Failure `json:"error,omitempty"`
	Reason  string        `json:"reason,omitempty"`
}

// Story is a task's facts, all of them from its first one on, as steps, with the record that they add up to. Pure.
func Story(facts []task.Fact) (steps []Step, r task.Record, err error) {
	var visible, claimed time.Time
	for _, f := range facts {
		next, err := r.Apply(f)
		if err != nil {
			return nil, r, err
		}
		s := Step{Version: next.Version, At: f.At, Event: f.Event, Attempt: f.Attempt, Epoch: f.Epoch, Node: f.Node, Engine: f.Engine, Error: short(f.Error), Reason: f.Reason}
		if !f.Until.IsZero() {
			s.Until = &f.Until
		}
		switch {
		case f.Event == task.Claimed:
			s.Step, s.Place, s.Queued, claimed = len(r.Answers), r.Where(), between(visible, f.At), f.At
		case r.State == task.Running:
			s.Step, s.Place, s.Took = len(r.Answers), r.Where(), between(claimed, f.At)
			if n := len(r.Attempts); n > 0 { // who had it: the event itself does not say
				s.Node, s.Engine = r.Attempts[n-1].Node, r.Attempts[n-1].Engine
			}
		}
		if a := f.Answer; a != nil {
			s.Prompt, s.Output = a.PromptTokens, a.OutputTokens
			if p := a.Second; p != nil {
				s.Node, s.Engine, s.Reason = p.Node, p.Engine, "a second run of the attempt, as it took much longer than others like it at "+s.Node+"/"+s.Engine
			}
			s.Fetched, s.Ran = between(claimed, a.StartedAt), between(a.StartedAt, a.EndedAt)
		}
		if next.State == task.Pending && r.State != task.Pending {
			visible = next.NotBefore
			if next.AtOnce || visible.Before(f.At) {
				visible = f.At
			}
		}
		steps, r = append(steps, s), next
	}
	return steps, r, nil
}

// between is never negative: the two may be of clocks that differ. nil where one end is not known.
func between(from, to time.Time) *float64 {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	s := max(0, to.Sub(from).Seconds())
	return &s
}

// short leaves out what an engine said at length: the task itself has it.
func short(f *task.Failure) *task.Failure {
	if f == nil || f.Body == nil {
		return f
	}
	c := *f
	c.Body = nil
	return &c
}
