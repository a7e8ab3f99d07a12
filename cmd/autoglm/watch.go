package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newWatch(app *cli.App) *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use: "watch [ID]", Short: "Follow a task, or the whole node", Args: cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "With an id, prints the task's events as they happen, until it has ended and its callback is through.\n" +
			"Without one, shows how the node is, again and again, until Ctrl-C.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return watchTask(cmd.Context(), app, c, args[0])
			}
			if every < 100*time.Millisecond {
				return cli.Usage("--every is %v: use 100ms or more", every)
			}
			return watchNode(cmd.Context(), app, c, every)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().DurationVar(&every, "every", time.Second, "time between two looks at the node")
	return cmd
}

func watchTask(ctx context.Context, app *cli.App, c *client.Client, id string) error {
	var rec task.Record
	err := c.Follow(ctx, id, 0, func(e wire.Event) error {
		next, err := rec.Apply(e.Fact)
		if err != nil {
			return err
		}
		rec = next
		if app.JSON() {
			return app.PrintJSON(e)
		}
		_, err = fmt.Fprintf(app.Out, "%s  %-3d %-15s %s\n", e.At.Local().Format("15:04:05.000"), e.Version, e.Event, eventText(&e, &rec))
		return err
	})
	if err != nil {
		return err
	}
	if rec.State == task.Failed || rec.State == task.Cancelled {
		return endedBadly(id, rec.State, rec.Error)
	}
	return nil
}

// eventText says what an event adds to its name.
func eventText(e *wire.Event, r *task.Record) string {
	switch {
	case e.Event == task.Submitted:
		return cli.Cut(fmt.Sprintf("%q", e.Spec.Prompt), 80)
	case e.Event == task.Claimed:
		return fmt.Sprintf("attempt %d on %s, engine %s", e.Attempt, e.Node, e.Engine)
	case e.Answer != nil:
		return cli.Cut(fmt.Sprintf("%q", e.Answer.Text), 80)
	case e.Error != nil && !r.NotBefore.IsZero() && r.State == task.Pending:
		return fmt.Sprintf("%s; again in %v", cli.Cut(e.Error.Message, 80), r.NotBefore.Sub(e.At).Round(time.Millisecond))
	case e.Error != nil:
		return cli.Cut(e.Error.Message, 120)
	}
	return e.Reason
}

// watchNode is a small top. It outlives a node that is away for a while.
func watchNode(ctx context.Context, app *cli.App, c *client.Client, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var ended int64
	last := time.Time{}
	for {
		st, err := c.Status(ctx)
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return nil // Ctrl-C is how it ends
		case err != nil:
			return err
		case app.JSON():
			err = app.PrintJSON(st)
		case cli.IsTTY(app.Out):
			var b bytes.Buffer
			b.WriteString("\x1b[H\x1b[J") // home, clear
			if err := writeStatus(&b, st); err != nil {
				return err
			}
			_, err = app.Out.Write(b.Bytes())
		default:
			now := st.Tasks["completed"] + st.Tasks["failed"] + st.Tasks["cancelled"]
			rate := ""
			if !last.IsZero() {
				rate = fmt.Sprintf(", %.0f ended/s", float64(now-ended)/time.Since(last).Seconds())
			}
			ended, last = now, time.Now()
			_, err = fmt.Fprintf(app.Out, "%s  pending %d, running %d, completed %d, failed %d, cancelled %d%s\n", last.Format("15:04:05"),
				st.Tasks["pending"], st.Tasks["running"], st.Tasks["completed"], st.Tasks["failed"], st.Tasks["cancelled"], rate)
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
