package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newSink(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sink", Short: "Write results to a directory, a bucket or a database as they come",
		Long: "A sink is a destination that the nodes write each result to, once: a directory, an S3-compatible store, PostgreSQL or SQLite. It goes on\n" +
			"by itself, over restarts and failures of nodes and of the destination. What exactly is promised: docs/sinks.md.",
	}
	cli.Group(cmd)
	cmd.AddCommand(newSinkCreate(app), newSinkList(app),
		newOfSink(app, "get", "Show a sink and how far it is", "", func(ctx context.Context, c *client.Client, name string) error {
			return sinkShown(app)(c.Sink(ctx, name))
		}),
		newOfSink(app, "watch", "Follow a sink", "Prints a line when something has changed, until Ctrl-C.", func(ctx context.Context, c *client.Client, name string) error {
			return watchSink(ctx, app, c, name)
		}),
		newOfSink(app, "pause", "Write nothing to a sink for a while", "", func(ctx context.Context, c *client.Client, name string) error {
			return sinkShown(app)(c.SaySink(ctx, name, "pause"))
		}),
		newOfSink(app, "resume", "Let a sink that was paused go on", "", func(ctx context.Context, c *client.Client, name string) error {
			return sinkShown(app)(c.SaySink(ctx, name, "resume"))
		}),
		newOfSink(app, "delete", "Delete a sink", "What it has written stays.", func(ctx context.Context, c *client.Client, name string) error {
			return c.DeleteSink(ctx, name)
		}))
	return cmd
}

func newSinkCreate(app *cli.App) *cobra.Command {
	var d sink.Definition
	var metadata []string
	var every time.Duration
	var whose string
	cmd := &cobra.Command{
		Use: "create NAME URL", Short: "Create a sink", Args: cobra.ExactArgs(2), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Creates a sink that writes to URL:\n" +
			"  file:///DIR                                     an object a batch; DIR lies below a folder of the setting sink.allowed_dirs\n" +
			"  s3://KEY_ID@BUCKET/PREFIX?endpoint=URL          the same in a bucket; the setting sink.allow names the endpoint's host\n" +
			"  postgres://USER@HOST/DATABASE[?sslmode=…]       a row a result; the setting sink.allow names the host\n" +
			"  sqlite:///FILE                                  the same; FILE lies below a folder of sink.allowed_dirs\n" +
			"A password, or S3's secret access key, is in an environment variable of the nodes, which --password-env names, or in\n" +
			"a file of their folder sink.secrets_dir, which --password-file names.\n" +
			"The same definition again is harmless.",
		Example: "  autoglm sink create answers file:///srv/results --format parquet\n" +
			"  autoglm sink create db postgres://autoglm@db.internal/results --password-env SINK_PG_PASSWORD",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			d.Name, d.URL, d.Every = args[0], args[1], task.Duration(every)
			if d.Metadata, err = cli.Metadata(metadata); err != nil {
				return err
			}
			c, err := app.Client(client.WithTenant(whose))
			if err != nil {
				return err
			}
			return sinkShown(app)(c.CreateSink(cmd.Context(), d))
		},
	}
	app.ClientFlags(cmd)
	tenantFlag(cmd, &whose)
	f := cmd.Flags()
	f.StringVar(&d.Format, "format", "", "of objects: jsonl (the default), csv or `parquet`")
	f.StringVar(&d.Table, "table", "", "`name` of the table in a database (default autoglm_results)")
	f.StringVar(&d.PasswordEnv, "password-env", "", "environment `variable` of the nodes with the password; its name begins with SINK_")
	f.StringVar(&d.PasswordFile, "password-file", "", "`name` of a file with the password, in the folder of the nodes' setting sink.secrets_dir")
	f.IntVar(&d.Rows, "rows", 0, "at most so many results of one object or transaction (default 10000 and 1000)")
	f.DurationVar(&every, "every", 0, "a result waits no longer than this `time` for others (default 10s for objects, 1s for databases)")
	f.StringVar(&d.State, "state", "", "only tasks that ended in this `state`")
	f.StringVar(&d.Model, "model", "", "only tasks submitted for this `model`")
	f.StringArrayVar(&metadata, "metadata", nil, "only tasks with this metadata, as `KEY=VALUE`; may be repeated")
	f.BoolVar(&d.Prompt, "prompt", false, "give the prompt with each result")
	f.StringVar(&d.From, "from", "", "`start` (the default): with all results there are; end: with those that end from now on; or a cursor")
	cli.Complete(cmd, "format", sink.FormatJSONL, sink.FormatCSV, sink.FormatParquet)
	cli.Complete(cmd, "state", "completed", "failed", "cancelled")
	cli.Complete(cmd, "from", sink.FromStart, sink.FromEnd)
	return cmd
}

// newOfSink is a command about one sink.
func newOfSink(app *cli.App, verb, short, long string, do func(context.Context, *client.Client, string) error) *cobra.Command {
	var whose string
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Long: strings.TrimSpace(short + ". " + long), Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client(client.WithTenant(whose))
			if err != nil {
				return err
			}
			return do(cmd.Context(), c, args[0])
		},
	}
	app.ClientFlags(cmd)
	tenantFlag(cmd, &whose)
	return cmd
}

// tenantFlag lets the operator look after another tenant's sinks.
func tenantFlag(cmd *cobra.Command, whose *string) {
	cmd.Flags().StringVar(whose, "tenant", "", "`name` of the tenant whose results they are (default: your own)")
}

func newSinkList(app *cli.App) *cobra.Command {
	var whose string
	cmd := &cobra.Command{
		Use: "list", Short: "List sinks", Long: "Lists the sinks of all tenants. The other commands are about one of the tenant default, unless --tenant names another.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client(client.WithTenant(whose))
			if err != nil {
				return err
			}
			all, err := c.Sinks(cmd.Context())
			if err != nil {
				return err
			}
			tab := cli.NewTable("TENANT", "SINK", "STATUS", "DELIVERED>", "LAG>", "URL", "ERROR")
			for i := range all {
				s := &all[i]
				if app.JSON() {
					if err := app.PrintJSON(s); err != nil {
						return err
					}
					continue
				}
				tab.Row(s.Tenant, s.Name, s.Status, s.Delivered, lag(s), cli.Cut(s.URL, 60), cli.Cut(trouble(s), 80))
			}
			if app.JSON() {
				return nil
			}
			return tab.Write(app.Out)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&whose, "tenant", "", "only those of this `tenant`")
	return cmd
}

func lag(s *wire.Sink) string {
	if s.Waiting == nil {
		return "0s"
	}
	return time.Duration(s.Lag * float64(time.Second)).Round(time.Second).String()
}

func trouble(s *wire.Sink) string {
	if s.Error == nil {
		return ""
	}
	text := s.Error.Message
	if s.Error.Remedy != "" {
		text += " (" + s.Error.Remedy + ")"
	}
	return text
}

// sinkShown prints what a call answers, for people or whole.
func sinkShown(app *cli.App) func(*wire.Sink, error) error {
	return func(s *wire.Sink, err error) error {
		if err != nil {
			return err
		}
		if app.JSON() {
			return app.PrintJSON(s)
		}
		var w strings.Builder
		line := func(name string, v any) { fmt.Fprintf(&w, "%-10s %v\n", name, v) }
		line("sink", s.Name)
		line("tenant", s.Tenant)
		line("url", s.URL)
		line("status", s.Status)
		if s.Format != "" {
			line("format", s.Format)
		} else {
			line("table", s.Table)
		}
		line("batches", fmt.Sprintf("of at most %d results, or every %v", s.Rows, time.Duration(s.Every)))
		line("delivered", fmt.Sprintf("%d results in %d batches", s.Delivered, s.Batches))
		if s.Newest != nil {
			line("newest", "ended "+s.Newest.UTC().Format(time.RFC3339))
		}
		if s.Object != "" {
			line("object", s.Object+"."+s.Format)
		}
		line("lag", lag(s))
		if s.Error != nil {
			line("failing", fmt.Sprintf("since %s, %d times", s.FailingAt.UTC().Format(time.RFC3339), s.Tries))
			line("error", trouble(s))
		}
		_, err = io.WriteString(app.Out, w.String())
		return err
	}
}

// sinkEvery is the time between two looks at a sink that is watched.
const sinkEvery = time.Second

// watchSink prints a line when something has changed.
func watchSink(ctx context.Context, app *cli.App, c *client.Client, name string) error {
	tick := time.NewTicker(sinkEvery)
	defer tick.Stop()
	for last := ""; ; {
		s, err := c.Sink(ctx, name)
		if err != nil {
			return err
		}
		if now := fmt.Sprint(s.Status, s.Delivered, s.Waiting != nil, trouble(s)); now != last {
			last = now
			if app.JSON() {
				err = app.PrintJSON(s)
			} else {
				_, err = fmt.Fprintln(app.Out, strings.TrimRight(fmt.Sprintf("%s  %-8s %10d delivered  lag %-6s %s", time.Now().Format("15:04:05"), s.Status, s.Delivered, lag(s), trouble(s)), " "))
			}
			if err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
