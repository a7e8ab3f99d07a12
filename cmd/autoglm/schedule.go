package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/schedule"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newSchedule(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Submit a task again and again, at the times of a cron expression",
		Long: "A schedule submits a task at each time that a cron expression names, in a time zone. It goes on over restarts and failures of nodes, and\n" +
			"submits no time twice. What becomes of times that are late, and where clocks are changed: docs/schedules.md.",
	}
	cli.Group(cmd)
	cmd.AddCommand(newScheduleCreate(app), newScheduleList(app),
		newOfSchedule(app, "get", "Show a schedule, its next times and its newest runs", "", func(ctx context.Context, c *client.Client, name string) error {
			return scheduleShown(app)(c.Schedule(ctx, name))
		}),
		newOfSchedule(app, "pause", "Submit nothing for a while", "", func(ctx context.Context, c *client.Client, name string) error {
			return scheduleShown(app)(c.SaySchedule(ctx, name, "pause"))
		}),
		newOfSchedule(app, "resume", "Let a schedule that was paused go on", "Times that passed meanwhile are left out.", func(ctx context.Context, c *client.Client, name string) error {
			return scheduleShown(app)(c.SaySchedule(ctx, name, "resume"))
		}),
		newOfSchedule(app, "run", "Submit a schedule's task now", "Whatever its times, its overlap, and whether it is paused.", func(ctx context.Context, c *client.Client, name string) error {
			return scheduleShown(app)(c.SaySchedule(ctx, name, "run"))
		}),
		newOfSchedule(app, "delete", "Delete a schedule", "Its tasks stay.", func(ctx context.Context, c *client.Client, name string) error {
			return c.DeleteSchedule(ctx, name)
		}))
	return cmd
}

func newScheduleCreate(app *cli.App) *cobra.Command {
	var p schedule.Plan
	var file, prompt, model, start, end string
	var jitter time.Duration
	cmd := &cobra.Command{
		Use: "create NAME CRON", Short: "Create a schedule", Args: cobra.ExactArgs(2), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "CRON is minute, hour, day of month, month and day of week, or @hourly, @daily, @weekly, @monthly, @yearly. The task is given with --prompt, or with\n" +
			"--task as JSON like that of POST /v1/tasks. Shows the next times. The same again is harmless.",
		Example: "  autoglm schedule create nightly '30 2 * * 1-5' --zone Europe/Berlin --prompt 'Summarize the day'\n" +
			"  autoglm schedule create report @hourly --task report.json --overlap queue --catch-up skip",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			p.Name, p.Cron, p.Jitter = args[0], args[1], task.Duration(jitter)
			if p.Task, err = scheduledTask(app, file, prompt, model); err != nil {
				return err
			}
			if p.Start, err = momentFlag("start", start); err != nil {
				return err
			}
			if p.End, err = momentFlag("end", end); err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			return scheduleShown(app)(c.CreateSchedule(cmd.Context(), p))
		},
	}
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&file, "task", "", "`file` with the task as JSON, - for standard input")
	f.StringVarP(&prompt, "prompt", "p", "", "the task's `prompt`, in place of a file")
	f.StringVar(&model, "model", "", "`model` of the task")
	f.StringVar(&p.Zone, "zone", "", "IANA `name` of the zone whose clocks it goes by (default UTC)")
	f.StringVar(&p.Overlap, "overlap", "", "where the task before has not ended: `skip` (the default), allow or queue one")
	f.StringVar(&p.CatchUp, "catch-up", "", "times that passed while no node could submit: `once` (the default) for all, skip, or all")
	f.IntVar(&p.CatchUpMax, "catch-up-max", 0, "with --catch-up all: at most so many (default 100)")
	f.StringVar(&start, "start", "", "no time before this `time` (RFC 3339)")
	f.StringVar(&end, "end", "", "no time after this `time` (RFC 3339)")
	f.DurationVar(&jitter, "jitter", 0, "submit up to so much later, always the same for the same time")
	cli.Complete(cmd, "overlap", schedule.OverlapSkip, schedule.OverlapAllow, schedule.OverlapQueue)
	cli.Complete(cmd, "catch-up", schedule.CatchUpOnce, schedule.CatchUpSkip, schedule.CatchUpAll)
	return cmd
}

// scheduledTask is the task that the flags name.
func scheduledTask(app *cli.App, file, prompt, model string) (*task.Spec, error) {
	s := &task.Spec{Prompt: prompt}
	switch {
	case (file == "") == (prompt == ""):
		return nil, cli.Usage("give --prompt or --task")
	case file != "":
		var b []byte
		var err error
		if file == "-" {
			b, err = io.ReadAll(app.In)
		} else {
			b, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, cli.Usage("--task: %v", err)
		}
		dec := json.NewDecoder(strings.NewReader(string(b)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(s); err != nil {
			return nil, cli.Usage("--task %s is no task as JSON: %v", file, err)
		}
	}
	if model != "" {
		s.Model = model
	}
	return s, nil
}

func momentFlag(name, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, cli.Usage("--%s is %q: use a time like 2026-01-02T15:04:05Z", name, text)
	}
	return &t, nil
}

// newOfSchedule is a command about one schedule.
func newOfSchedule(app *cli.App, verb, short, long string, do func(context.Context, *client.Client, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Long: strings.TrimSpace(short + ". " + long), Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			return do(cmd.Context(), c, args[0])
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func newScheduleList(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List schedules", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			all, err := c.Schedules(cmd.Context())
			if err != nil {
				return err
			}
			tab := cli.NewTable("SCHEDULE", "STATUS", "CRON", "ZONE", "NEXT", "FIRED>", "SKIPPED>", "MISSED>", "FAILED>", "LAST TASK")
			for i := range all {
				s := &all[i]
				if app.JSON() {
					if err := app.PrintJSON(s); err != nil {
						return err
					}
					continue
				}
				next, last := "", ""
				if len(s.Upcoming) > 0 {
					next = relative(s.Upcoming[0], time.Now())
				}
				if n := len(s.Recent); n > 0 {
					last = s.Recent[n-1].Task
				}
				tab.Row(s.Name, s.Status, s.Cron, s.Zone, next, s.Fired, s.Skipped, s.Missed, s.Failed, last)
			}
			if app.JSON() {
				return nil
			}
			return tab.Write(app.Out)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

// scheduleShown prints what a call answers, for people or whole.
func scheduleShown(app *cli.App) func(*wire.Schedule, error) error {
	return func(s *wire.Schedule, err error) error {
		switch {
		case err != nil:
			return err
		case app.JSON():
			return app.PrintJSON(s)
		}
		now := time.Now()
		tab := cli.NewTable("schedule", s.Name)
		tab.Row("status", s.Status)
		tab.Row("cron", fmt.Sprintf("%s, %s", s.Cron, s.Zone))
		policy := "overlap " + s.Overlap + ", catch up " + s.CatchUp
		if s.CatchUpMax > 0 {
			policy += fmt.Sprintf(" up to %d", s.CatchUpMax)
		}
		if s.Jitter > 0 {
			policy += fmt.Sprintf(", jitter %v", time.Duration(s.Jitter))
		}
		tab.Row("policy", policy)
		if s.Task != nil {
			tab.Row("task", cli.Cut(s.Task.Prompt, 100))
		}
		tab.Row("so far", fmt.Sprintf("fired %d, skipped %d, missed %d, failed %d", s.Fired, s.Skipped, s.Missed, s.Failed))
		for i, t := range s.Upcoming {
			name := "next"
			if i > 0 {
				name = ""
			}
			tab.Row(name, fmt.Sprintf("%s, %s", t.Format("Mon 2006-01-02 15:04 -07:00"), relative(t, now)))
		}
		if s.Waiting != nil {
			tab.Row("waiting", s.Waiting.Format(time.RFC3339)+", for the task before to end")
		}
		for i := len(s.Recent) - 1; i >= 0; i-- {
			r := &s.Recent[i]
			text := fmt.Sprintf("%s, %s", r.Task, relative(r.Planned, now))
			if r.ByHand {
				text += ", by hand"
			}
			if r.Error != nil {
				text += ", refused: " + r.Error.Message
			}
			tab.Row("ran", text)
		}
		return tab.Write(app.Out)
	}
}
