package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newTask(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{Use: "task", Short: "Find out about a task: explain"}
	cli.Group(cmd)
	cmd.AddCommand(newExplain(app))
	return cmd
}

func newExplain(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain ID", Short: "Say what happened to a task, and why it is not further", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Shows every event in a task's journal with the time that each part took, and says what the task waits for now: its time, an engine, the end\n" +
			"of an attempt, its callback.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			x, err := c.Explain(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case app.JSON():
				return app.PrintJSON(x)
			}
			return writeExplanation(app, x)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func writeExplanation(app *cli.App, x *wire.Explanation) error {
	head := cli.NewTable("task", x.ID)
	head.Row("state", x.State)
	head.Row("model", x.Model)
	head.Row("priority", x.Priority)
	head.Row("created", fmt.Sprintf("%s, %s ago", x.CreatedAt.Local().Format(time.RFC3339), span(x.Now.Sub(x.CreatedAt))))
	head.Row("why", x.Why.Text)
	if u := x.Why.Until; u != nil {
		head.Row("until", fmt.Sprintf("%s, %s", u.Local().Format(time.RFC3339), relative(*u, x.Now)))
	}
	if err := head.Write(app.Out); err != nil {
		return err
	}
	tab := cli.NewTable("TIME", "AFTER>", "EVENT", "ATTEMPT>", "EPOCH>", "NODE/ENGINE", "QUEUED>", "FETCHED>", "RAN>", "TOKENS>", "DETAIL")
	for i := range x.Events {
		e := &x.Events[i]
		attempt, epoch, where, tokens := "", "", e.Node, ""
		if e.Attempt > 0 {
			attempt = fmt.Sprint(e.Attempt)
		}
		if e.Epoch > 0 {
			epoch = fmt.Sprint(e.Epoch)
		}
		if e.Engine != "" {
			where += "/" + e.Engine
		}
		if e.Prompt+e.Output > 0 {
			tokens = fmt.Sprintf("%d+%d", e.Prompt, e.Output)
		}
		tab.Row(e.At.Local().Format("15:04:05.000"), "+"+span(e.At.Sub(x.CreatedAt)), e.Event, attempt, epoch, where, seconds(e.Queued), seconds(e.Fetched), seconds(e.Ran), tokens, detail(e))
	}
	fmt.Fprintln(app.Out)
	return tab.Write(app.Out)
}

// detail is what the other columns do not say of an event.
func detail(e *explain.Step) string {
	var parts []string
	if e.Place != "" {
		parts = append(parts, e.Place)
	}
	if f := e.Error; f != nil {
		text := f.Kind
		if f.Status != 0 {
			text += fmt.Sprintf(" (HTTP %d)", f.Status)
		}
		parts = append(parts, text+": "+cli.Cut(f.Message, 120))
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if e.Took != nil && e.Ran == nil {
		parts = append(parts, "after "+seconds(e.Took))
	}
	if e.Until != nil && e.Until.After(e.At) { // a repair waits for nothing
		what := "not again for "
		if e.Event == task.Claimed {
			what = "lease of "
		}
		parts = append(parts, what+span(e.Until.Sub(e.At)))
	}
	return strings.Join(parts, "; ")
}

func seconds(s *float64) string {
	if s == nil {
		return ""
	}
	return span(time.Duration(*s * float64(time.Second)))
}

// span writes a duration with as many figures as a person reads.
func span(d time.Duration) string {
	switch {
	case d < 100*time.Second:
		return cli.Millis(d)
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// relative says how far a time is from now.
func relative(t, now time.Time) string {
	if t.Before(now) {
		return span(now.Sub(t)) + " ago"
	}
	return "in " + span(t.Sub(now))
}
