package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// rejectedShown bounds the reasons of refused lines that are told, each with the first of its lines; the summary counts all.
const rejectedShown = 20

// submitOptions are the flags of submit.
type submitOptions struct {
	prompt, id, system, model string
	dataURL, callbackURL      string
	priority                  *task.Priority // nil: not given
	retry, tokens             int            // 0: not given
	timeout                   time.Duration
	metadata                  []string
	steps                     string // file

	wait    bool
	waitMax time.Duration
	out     string
}

func newSubmit(app *cli.App) *cobra.Command {
	var o submitOptions
	cmd := &cobra.Command{
		Use: "submit [FILE | -]", Short: "Submit tasks: a JSONL file, standard input, or one prompt", Args: cobra.MaximumNArgs(1),
		Long: "Submits one task a line of FILE (- is standard input), however many, or one task with --prompt. A task is submitted\n" +
			"once it is on the node's disk. Submitting the same ids again is harmless, so that a broken run can be repeated.\n" +
			"The flags that describe a task are laid over each line.\n\n" +
			"With --wait, waits for the tasks to end and writes their results as JSONL to --out (about 40 bytes of memory a task).",
		Example: "  autoglm submit --prompt 'Convert to ISO 8601: 3 March 2026' --wait\n" +
			"  autoglm submit tasks.jsonl --wait --out results.jsonl\n  make-tasks | autoglm submit - --priority 7 --metadata job=night",
		RunE: func(cmd *cobra.Command, args []string) error {
			alone := o.prompt != "" || o.steps != ""
			if (len(args) == 1) == alone {
				return cli.Usage("give a FILE, - for standard input, or --prompt or --steps")
			}
			edit, err := o.edit()
			if err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if o.wait && o.waitMax > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, o.waitMax)
				defer cancel()
			}
			if alone {
				return o.one(ctx, app, c)
			}
			if o.id != "" || o.system != "" {
				return cli.Usage("--id and --system go with --prompt only")
			}
			return o.many(ctx, app, c, args[0], edit)
		},
	}
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.prompt, "prompt", "p", "", "submit one task with this `text`")
	f.StringVar(&o.id, "id", "", "task_id of that task (default: a new one)")
	f.StringVar(&o.system, "system", "", "system message of that task")
	f.StringVar(&o.steps, "steps", "", "JSON `file` with the array of steps of that task; with objects only, --prompt may be left out")
	f.StringVar(&o.model, "model", "", "which model")
	f.StringVar(&o.dataURL, "data-url", "", "http(s) or file `URL` of data put after the prompt")
	f.StringVar(&o.callbackURL, "callback-url", "", "`URL` that gets a signed POST at the end")
	priorityFlag(cmd, &o.priority, "(default normal)")
	f.IntVar(&o.retry, "retry", 0, "tries in all (default: the node's)")
	f.IntVar(&o.tokens, "max-tokens", 0, "most tokens of one answer")
	f.DurationVar(&o.timeout, "timeout", 0, "of one attempt (default: the node's)")
	f.StringArrayVar(&o.metadata, "metadata", nil, "metadata of each task, as `KEY=VALUE`; may be repeated")
	f.BoolVarP(&o.wait, "wait", "w", false, "wait for the tasks to end")
	f.DurationVar(&o.waitMax, "wait-timeout", 0, "longest wait with --wait (default: for ever)")
	f.StringVar(&o.out, "out", "", "`file` for the results of --wait (default: standard output)")
	return cmd
}

// edit returns what lays the flags over a task's fields; nil when none is given.
func (o *submitOptions) edit() (func(map[string]json.RawMessage), error) {
	fields := map[string]any{}
	set := func(name, value string) {
		if value != "" {
			fields[name] = value
		}
	}
	set("model", o.model)
	set("data_url", o.dataURL)
	set("callback_url", o.callbackURL)
	if o.priority != nil {
		fields["priority"] = *o.priority
	}
	if o.tokens > 0 {
		fields["max_tokens"] = o.tokens
	}
	if o.timeout > 0 {
		fields["timeout"] = o.timeout.String()
	}
	meta, err := cli.Metadata(o.metadata)
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 && o.retry == 0 && len(meta) == 0 {
		return nil, nil
	}
	laid := map[string]json.RawMessage{}
	for name, v := range fields {
		if laid[name], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return func(m map[string]json.RawMessage) {
		for name, v := range laid {
			m[name] = v
		}
		if o.retry != 0 {
			merge(m, "retry", map[string]any{"attempts": o.retry})
		}
		for k, v := range meta {
			merge(m, "metadata", map[string]any{k: v})
		}
	}, nil
}

// merge lays values over the object in a field. A field that is no object stays for the
// server to refuse.
func merge(m map[string]json.RawMessage, field string, values map[string]any) {
	obj := map[string]any{}
	if raw, ok := m[field]; ok && string(raw) != "null" && json.Unmarshal(raw, &obj) != nil {
		return
	}
	for k, v := range values {
		obj[k] = v
	}
	if b, err := json.Marshal(obj); err == nil {
		m[field] = b
	}
}

// one submits --prompt.
func (o *submitOptions) one(ctx context.Context, app *cli.App, c *client.Client) error {
	meta, err := cli.Metadata(o.metadata)
	if err != nil {
		return err
	}
	spec := &task.Spec{ID: o.id, Prompt: o.prompt, System: o.system, Model: o.model, DataURL: o.dataURL, CallbackURL: o.callbackURL,
		MaxTokens: o.tokens, Timeout: task.Duration(o.timeout), Metadata: meta}
	if o.steps != "" {
		b, err := os.ReadFile(o.steps)
		if err != nil {
			return cli.Usage("%w", err)
		}
		if err := json.Unmarshal(b, &spec.Steps); err != nil {
			return cli.Usage("--steps %s: %w", o.steps, err)
		}
	}
	spec.Priority = o.priority
	if o.retry != 0 {
		spec.Retry = &task.Retry{Attempts: o.retry}
	}
	sub, err := c.Submit(ctx, spec) // gives it an id here, before the first try
	if err != nil {
		return &cli.TaskError{ID: spec.ID, Err: err, Next: afterSubmit(spec.ID, err)}
	}
	if !o.wait {
		if app.JSON() {
			return app.PrintJSON(sub)
		}
		_, err = fmt.Fprintln(app.Out, spec.ID)
		return err
	}
	t, err := c.Wait(ctx, spec.ID, 0)
	if err != nil {
		return &cli.TaskError{ID: spec.ID, Err: err, Next: "it is accepted and goes on; wait for it with: autoglm get " + spec.ID + " --wait 1m"}
	}
	return showTask(app, t, true)
}

// afterSubmit says what is known of a task whose submit failed. A submit without an answer may have worked all the same.
func afterSubmit(id string, err error) string {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.TooLarge, fault.Refused, fault.Conflict:
		return "it was not accepted"
	case fault.Overloaded, fault.NoSpace: // said by the node before it took anything
		var p *wire.Problem
		if errors.As(err, &p) {
			return "it was not accepted: the same command, later, is harmless"
		}
	}
	return "it may have been accepted or not; the same command with --id " + id + " makes no second one, and autoglm get " + id + " shows it"
}

// many submits a file or standard input.
func (o *submitOptions) many(ctx context.Context, app *cli.App, c *client.Client, path string, edit func(map[string]json.RawMessage)) error {
	in := app.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return cli.Usage("%w", err)
		}
		defer file.Close()
		in = file
	}
	waiting := &waitSet{}
	from := ""
	if o.wait { // what ends from now on is enough, unless a line names a task that exists
		var err error
		if from, err = c.Results(ctx, client.Query{Cursor: wire.CursorEnd}, false, func(wire.Result) error { return nil }); err != nil {
			return err
		}
	}
	bar := app.NewProgress("submitted", 0)
	var refused refusals
	sum, err := c.SubmitLines(ctx, in, edit, func(s wire.Submitted) error {
		bar.Add(1)
		switch {
		case s.Error != nil:
			if refused.add(s.Error.Error()) {
				fmt.Fprintf(app.Err, "%s: %v\n", lineName(s), s.Error)
			}
		case o.wait:
			waiting.add(s.ID)
		}
		return nil
	})
	bar.Done()
	refused.tell(app.Err)
	if err != nil {
		fmt.Fprintf(app.Err, "%d tasks were answered as accepted before that; others may have been accepted without an answer: submitting the same file again does no harm, and adds those that are missing, if its lines carry a task_id\n", sum.Accepted)
		return err
	}
	if !o.wait && app.JSON() {
		if err := app.PrintJSON(sum); err != nil {
			return err
		}
	} else if !app.JSON() {
		fmt.Fprintf(app.Err, "%d accepted, %d existed, %d rejected\n", sum.Accepted, sum.Existed, sum.Rejected)
	}
	var ended tally
	if o.wait && waiting.len() > 0 {
		if sum.Existed > 0 {
			from = ""
		}
		if ended, err = o.collect(ctx, app, c, from, waiting); err != nil {
			return err
		}
	}
	if !o.wait {
		return rejectedOnly(sum)
	}
	return ended.check(sum.Rejected)
}

// refusals counts refused lines by reason. Zero is none.
type refusals struct {
	reasons []string // the first rejectedShown
	lines   map[string]int
	others  int
}

// add counts a line, and tells whether its reason is a new one that should be told.
func (r *refusals) add(reason string) bool {
	if r.lines == nil {
		r.lines = map[string]int{}
	}
	switch {
	case r.lines[reason] > 0:
		r.lines[reason]++
		return false
	case len(r.reasons) == rejectedShown:
		r.others++
		return false
	}
	r.reasons, r.lines[reason] = append(r.reasons, reason), 1
	return true
}

// tell says how many more lines each reason had.
func (r *refusals) tell(w io.Writer) {
	for _, reason := range r.reasons {
		if n := r.lines[reason] - 1; n > 0 {
			fmt.Fprintf(w, "and %d more: %s\n", n, reason)
		}
	}
	if r.others > 0 {
		fmt.Fprintf(w, "and %d more lines were rejected\n", r.others)
	}
}

// lineName says which line an answer belongs to. The id may have been made here: nobody else could name it.
func lineName(s wire.Submitted) string {
	if s.ID == "" {
		return fmt.Sprintf("line %d", s.Line)
	}
	return fmt.Sprintf("line %d, task %s", s.Line, s.ID)
}

// tally counts how tasks ended.
type tally struct{ completed, failed, cancelled int64 }

func (t tally) check(rejected int64) error {
	if t.failed+t.cancelled+rejected == 0 {
		return nil
	}
	return &cli.TasksError{Text: fmt.Sprintf("%d completed, %d failed, %d cancelled, %d rejected", t.completed, t.failed, t.cancelled, rejected)}
}

// rejectedOnly judges a submit that waits for nothing: how tasks end is not known.
func rejectedOnly(sum wire.Summary) error {
	if sum.Rejected == 0 {
		return nil
	}
	return &cli.TasksError{Text: fmt.Sprintf("%d of %d tasks were rejected", sum.Rejected, sum.Accepted+sum.Existed+sum.Rejected)}
}

// collect writes the results of the tasks in waiting, which ended after the cursor
// from, until it is empty.
func (o *submitOptions) collect(ctx context.Context, app *cli.App, c *client.Client, from string, waiting *waitSet) (t tally, err error) {
	w := app.Out
	if o.out != "" {
		file, err := os.Create(o.out)
		if err != nil {
			return t, err
		}
		defer func() {
			if cerr := file.Close(); err == nil {
				err = cerr
			}
		}()
		w = file
	}
	bar := app.NewProgress("ended", int64(waiting.len()))
	defer bar.Done()
	_, err = c.Results(ctx, client.Query{Cursor: from}, true, func(r wire.Result) error {
		if !waiting.remove(r.ID) {
			return nil
		}
		switch r.State {
		case task.Completed:
			t.completed++
		case task.Failed:
			t.failed++
		default:
			t.cancelled++
		}
		bar.Add(1)
		r.Cursor = "" // of a stream that holds other tasks too
		if err := writeLine(w, r); err != nil {
			return err
		}
		if waiting.len() == 0 {
			return io.EOF
		}
		return nil
	})
	if err == io.EOF {
		err = nil
	}
	return t, err
}

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
