package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newGet(app *cli.App) *cobra.Command {
	var wait time.Duration
	var answer bool
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a task", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Example: "  autoglm get hello\n  autoglm get hello --wait 1m --answer",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			var t *wire.Task
			if wait > 0 {
				t, err = c.Wait(cmd.Context(), args[0], wait)
			} else {
				t, err = c.Get(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			return showTask(app, t, answer)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for the task to end")
	cmd.Flags().BoolVar(&answer, "answer", false, "print the answer alone")
	return cmd
}

// showTask prints a task; one that failed is an error of tasks.
func showTask(app *cli.App, t *wire.Task, answer bool) error {
	var err error
	switch {
	case app.JSON():
		err = app.PrintJSON(t)
	case answer && t.State == task.Completed:
		_, err = fmt.Fprintln(app.Out, t.Answer)
	case answer && !t.State.Final():
		return &cli.TasksError{Text: fmt.Sprintf("task %s is %v: it has no answer yet", t.ID, t.State)}
	case !answer:
		err = writeTask(app, t)
	}
	if err != nil {
		return err
	}
	if t.State == task.Failed || t.State == task.Cancelled {
		return endedBadly(t.ID, t.State, t.Error)
	}
	return nil
}

func endedBadly(id string, state task.State, f *task.Failure) error {
	text := fmt.Sprintf("task %s is %v", id, state)
	if f != nil {
		text += ": " + f.Message
		if f.Remedy != "" {
			text += " (" + f.Remedy + ")"
		}
	}
	return &cli.TasksError{Text: text}
}

func writeTask(app *cli.App, t *wire.Task) error {
	tab := cli.NewTable("task", t.ID)
	row := func(name string, value any) {
		if s := fmt.Sprint(value); s != "" && s != "0" {
			tab.Row(name, s)
		}
	}
	row("state", t.State)
	row("version", t.Version)
	row("model", t.Model)
	row("priority", *t.Priority)
	row("trace", t.TraceID)
	row("created", t.CreatedAt.Format(time.RFC3339Nano))
	if t.EndedAt != nil {
		row("ended", fmt.Sprintf("%s, after %s", t.EndedAt.Format(time.RFC3339Nano), cli.Millis(t.EndedAt.Sub(t.CreatedAt))))
	}
	if t.Waits != nil {
		row("waits until", t.Waits.Format(time.RFC3339))
	}
	for _, a := range t.Attempts {
		text := fmt.Sprintf("on %s, engine %s, %s", a.Node, a.Engine, a.Outcome)
		if !a.EndedAt.IsZero() {
			text += " after " + cli.Millis(a.EndedAt.Sub(a.ClaimedAt))
		}
		if a.Error != nil {
			text += ": " + a.Error.Message
		}
		row(fmt.Sprintf("attempt %d", a.Number), text)
	}
	if t.Usage.TotalTokens > 0 {
		row("tokens", fmt.Sprintf("%d in, %d out", t.Usage.PromptTokens, t.Usage.CompletionTokens))
	}
	for k, v := range t.Metadata {
		row("metadata."+k, v)
	}
	if cb := t.Callback; cb != nil {
		text := fmt.Sprintf("%s after %d tries", cb.State, cb.Tries)
		if cb.NextAt != nil {
			text += ", next at " + cb.NextAt.Format(time.RFC3339)
		}
		if cb.Error != nil {
			text += ": " + cb.Error.Message
		}
		row("callback", text)
	}
	row("retry of", t.RetryOf)
	row("retried as", t.RetriedAs)
	row("prompt", cli.Cut(t.Prompt, 200))
	if t.Error != nil {
		row("error", t.Error.Message)
		row("remedy", t.Error.Remedy)
	}
	if err := tab.Write(app.Out); err != nil {
		return err
	}
	if t.State != task.Completed {
		return nil
	}
	_, err := fmt.Fprintf(app.Out, "answer\n%s\n", strings.TrimRight(t.Answer, "\n"))
	return err
}
