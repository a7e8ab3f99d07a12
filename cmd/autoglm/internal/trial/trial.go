// Package trial is `autoglm demo`: it runs the shipped tasks through a node in this process, or through a cluster of
// processes, then asks one such engine the same questions one at a time, and compares.
//
//	demo.Tasks ─► HTTP ─► node or cluster ─► batches ─► glm-workers ─► results ─┐
//	          └─► one request at a time ──► one glm-worker ─────────────────────┴─► table, results.jsonl
//
// Both are driven through their HTTP API, as any client would.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/demo"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Options of a run.
type Options struct {
	Config node.Config // engine, data directory; of a cluster, the parent of its nodes' directories
	Nodes  int         // 2 and more: a cluster of so many processes of this program; else one node in this process
	Out    string      // file for the results; empty: none
	Alone  int         // tasks asked one at a time for comparison; less than 1: all
	Log    *slog.Logger
	Node   []node.Option
}

// outcome is what became of one task.
type outcome struct {
	demo.Task
	result wire.Result
	alone  *lone // nil when it was not asked alone
}

// lone is the answer of the engine asked for nothing else meanwhile.
type lone struct {
	answer string
	took   time.Duration
}

func (o *outcome) right() bool { return strings.TrimSpace(o.result.Answer) == o.Expected }

func (o *outcome) latency() time.Duration {
	if o.result.EndedAt == nil {
		return 0
	}
	return o.result.EndedAt.Sub(*o.result.CreatedAt)
}

func (o *outcome) run() time.Duration {
	return time.Duration(o.result.RunSeconds * float64(time.Second))
}

// Run runs the trial. It fails when any task did not complete; a wrong answer is no failure
// of the system, the table counts it.
func Run(ctx context.Context, app *cli.App, o Options) (err error) {
	tasks, err := demo.Load()
	if err != nil {
		return err
	}
	var urls []string
	var stop func() error
	var engine infer.Engine // of the node in this process
	if o.Nodes > 1 {
		urls, stop, err = startCluster(ctx, app, o)
	} else {
		urls, engine, stop, err = startNode(ctx, app, o)
	}
	if err != nil {
		return err
	}
	defer func() {
		if serr := stop(); err == nil {
			err = serr
		}
	}()
	c, err := client.New(urls[0])
	if err != nil {
		return err
	}
	say(app, "Submitting %d tasks of %d kinds to %s and waiting for their answers", len(tasks), len(jobs(tasks)), urls[0])
	outcomes, took, err := through(ctx, app, c, tasks)
	if err != nil {
		return err
	}
	alone := outcomes
	if o.Alone > 0 {
		alone = outcomes[:min(o.Alone, len(outcomes))]
	}
	if engine == nil { // the cluster's are in other processes: one more like them
		var end func() error
		if engine, end, err = oneEngine(ctx, o); err != nil {
			return err
		}
		defer func() {
			if eerr := end(); err == nil {
				err = eerr
			}
		}()
	}
	say(app, "Asking one such engine the same %d questions, one request at a time, for comparison", len(alone))
	aloneTook, err := oneAtATime(ctx, app, engine, alone)
	if err != nil {
		return err
	}
	r := newReport(outcomes, took, len(alone), aloneTook)
	if o.Out != "" {
		if err := writeResults(o.Out, outcomes); err != nil {
			return err
		}
	}
	if err := r.print(app, o); err != nil {
		return err
	}
	if r.Completed < r.Tasks {
		return &cli.TasksError{Text: fmt.Sprintf("%d of %d tasks did not complete", r.Tasks-r.Completed, r.Tasks)}
	}
	return nil
}

func say(app *cli.App, format string, args ...any) { fmt.Fprintf(app.Err, format+" …\n", args...) }

func jobs(tasks []demo.Task) []string {
	var all []string
	for _, t := range tasks {
		all = append(all, t.Job)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var errAllEnded = errors.New("all tasks have ended")

// through submits the tasks and collects their results. took is from the first submit to the
// end of the last task, by the node's clock.
func through(ctx context.Context, app *cli.App, c *client.Client, tasks []demo.Task) (all []outcome, took time.Duration, err error) {
	ours := map[string]int{}
	all = make([]outcome, len(tasks))
	for i, t := range tasks {
		ours[t.Spec.ID], all[i].Task = i, t
	}
	begun := time.Now()
	sum, err := c.SubmitLines(ctx, strings.NewReader(string(demo.Tasks)), nil, func(s wire.Submitted) error {
		if s.Error != nil {
			return fmt.Errorf("line %d: %w", s.Line, s.Error)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	if sum.Existed > 0 {
		fmt.Fprintf(app.Err, "%d of them were in the data directory already: their times are of an earlier run\n", sum.Existed)
	}
	bar := app.NewProgress("answered", int64(len(tasks)))
	last := begun
	_, err = c.Results(ctx, client.Query{}, true, func(r wire.Result) error {
		i, ok := ours[r.ID]
		if !ok {
			return nil // of another run in the same data directory
		}
		delete(ours, r.ID)
		all[i].result = r
		if r.EndedAt != nil && r.EndedAt.After(last) {
			last = *r.EndedAt
		}
		bar.Add(1)
		if len(ours) == 0 {
			return errAllEnded
		}
		return nil
	})
	bar.Done()
	if !errors.Is(err, errAllEnded) {
		return nil, 0, err
	}
	return all, last.Sub(begun), nil
}

// oneAtATime asks e each task's question and waits for the answer before the next. The
// first question is asked twice: the engine is warm, as it was for the node.
func oneAtATime(ctx context.Context, app *cli.App, e infer.Engine, all []outcome) (took time.Duration, err error) {
	if _, err := ask(ctx, e, &all[0]); err != nil {
		return 0, err
	}
	bar := app.NewProgress("answered", int64(len(all)))
	defer bar.Done()
	begun := time.Now()
	for i := range all {
		l, err := ask(ctx, e, &all[i])
		if err != nil {
			return 0, fmt.Errorf("ask %s about %s: %w", e.Name(), all[i].Spec.ID, err)
		}
		all[i].alone = l
		bar.Add(1)
	}
	return time.Since(begun), nil
}

func ask(ctx context.Context, e infer.Engine, o *outcome) (*lone, error) {
	rec := task.Record{Spec: o.Spec}
	var ms []infer.Message
	for _, m := range rec.Conversation() {
		ms = append(ms, infer.Message(m))
	}
	greedy := 0.0
	begun := time.Now()
	res, err := e.Do(ctx, &infer.Request{Model: o.result.Model, Messages: ms, MaxTokens: o.Spec.MaxTokens, Temperature: &greedy, Key: o.Spec.ID + "/alone"})
	if err != nil {
		return nil, err
	}
	return &lone{answer: res.Text, took: time.Since(begun)}, nil
}
