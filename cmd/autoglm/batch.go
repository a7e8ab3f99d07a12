package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
)

const batchPageMax = 100 // what the API gives at once

func newBatch(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "batch", Short: "Run files of requests, as in OpenAI's Batch API",
		Long: "A batch is a file of requests, one JSON object a line, each with custom_id, method, url and body. Its answers are a file, too.\n" +
			"Any client of OpenAI's API can do the same: see docs/openai.md.",
	}
	cmd.AddCommand(newBatchCreate(app), newBatchList(app), newBatchGet(app), newBatchWatch(app), newBatchResults(app),
		newBatchSay(app, "cancel", "Cancel a batch", "What has ended by then is kept. The other lines are in the error file."),
		newBatchSay(app, "pause", "Create no more tasks of a batch", "Those that there are go on."),
		newBatchSay(app, "resume", "Let a batch that was paused go on", ""),
		newBatchSay(app, "retry", "Make a batch of the lines of another that did not complete", "Prints the new batch."))
	return cmd
}

func newBatchCreate(app *cli.App) *cobra.Command {
	q := client.NewBatch{}
	var metadata []string
	var wait bool
	var priority int
	cmd := &cobra.Command{
		Use: "create FILE|FILE_ID", Short: "Upload a file and make a batch of it", Args: cobra.ExactArgs(1),
		Long: "Uploads the file, or takes one that was uploaded (file-…), and makes a batch. --wait waits for its end.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Metadata, err = cli.Metadata(metadata); err != nil {
				return err
			}
			if cmd.Flags().Changed("priority") {
				q.Priority = &priority
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			q.InputFileID = args[0]
			if _, err := os.Stat(args[0]); err == nil || !strings.HasPrefix(args[0], "file-") {
				if q.InputFileID, err = c.UploadFile(cmd.Context(), args[0], nil); err != nil {
					return err
				}
			}
			b, err := c.CreateBatch(cmd.Context(), q, uuid.NewString())
			if err != nil {
				return err
			}
			if !wait {
				return showBatch(app, b)
			}
			return watchBatch(cmd.Context(), app, c, b.ID)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&q.Endpoint, "endpoint", task.EndpointChat, "`path` that the requests are for; /v1/tasks for tasks in the form of autoglm submit")
	cmd.Flags().StringVar(&q.Window, "window", "24h", "`time` for the whole batch; what has not ended by then expires")
	cmd.Flags().StringArrayVar(&metadata, "metadata", nil, "kept with the batch, as `KEY=VALUE`; may be repeated")
	cmd.Flags().BoolVar(&q.MixedModels, "mixed-models", false, "the requests may name several models")
	cmd.Flags().StringVar(&q.CallbackURL, "callback-url", "", "`URL` that hears of the batch's end")
	cmd.Flags().IntVar(&priority, "priority", task.PriorityDefault, "`n`, from 0 (first) to 9 (last)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the batch has ended")
	return cmd
}

// showBatch prints a batch for people, or whole.
func showBatch(app *cli.App, b *client.Batch) error {
	if app.JSON() {
		_, err := fmt.Fprintln(app.Out, string(b.Raw))
		return err
	}
	var w strings.Builder
	line := func(name string, v any) { fmt.Fprintf(&w, "%-10s %v\n", name, v) }
	line("batch", b.ID)
	status := b.Status
	if b.Paused {
		status += " (paused)"
	}
	line("status", status)
	line("endpoint", b.Endpoint)
	line("lines", fmt.Sprintf("%d: %d completed, %d failed", b.Counts.Total, b.Counts.Completed, b.Counts.Failed))
	line("created", time.Unix(b.CreatedAt, 0).UTC().Format(time.RFC3339))
	line("expires", time.Unix(b.ExpiresAt, 0).UTC().Format(time.RFC3339))
	line("input", b.InputFileID)
	if b.OutputFileID != nil {
		line("output", *b.OutputFileID)
	}
	if b.ErrorFileID != nil {
		line("errors", *b.ErrorFileID)
	}
	if b.Errors != nil {
		for _, e := range b.Errors.Data {
			line(fmt.Sprint("line ", e.Line), e.Code+": "+cli.Cut(e.Message, 160))
		}
	}
	_, err := io.WriteString(app.Out, w.String())
	return err
}

func newBatchList(app *cli.App) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List batches, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			tab := cli.NewTable("BATCH", "STATUS", "TOTAL>", "COMPLETED>", "FAILED>", "CREATED", "ENDPOINT")
			after, more := "", true
			for left := limit; left > 0 && more; {
				var page []client.Batch
				if page, more, err = c.Batches(cmd.Context(), after, min(left, batchPageMax)); err != nil {
					return err
				}
				for i := range page {
					b := &page[i]
					after = b.ID
					if app.JSON() {
						fmt.Fprintln(app.Out, string(b.Raw))
						continue
					}
					tab.Row(b.ID, b.Status, b.Counts.Total, b.Counts.Completed, b.Counts.Failed, cli.Ago(time.Unix(b.CreatedAt, 0)), b.Endpoint)
				}
				left -= len(page)
				more = more && len(page) > 0
			}
			if app.JSON() {
				return nil
			}
			if err := tab.Write(app.Out); err != nil {
				return err
			}
			if more {
				fmt.Fprintf(app.Err, "there are more: see --limit\n")
			}
			return nil
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 20, "`number` of batches")
	return cmd
}

func newBatchGet(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a batch", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			b, err := c.Batch(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return showBatch(app, b)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func newBatchSay(app *cli.App, verb, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short, Long: strings.TrimSpace(short + ". " + long), Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			b, err := c.SayBatch(cmd.Context(), args[0], verb, uuid.NewString())
			if err != nil {
				return err
			}
			return showBatch(app, b)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func newBatchWatch(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch ID", Short: "Follow a batch to its end", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			return watchBatch(cmd.Context(), app, c, args[0])
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

// batchEvery is the time between two looks at a batch that is watched.
const batchEvery = 500 * time.Millisecond

// watchBatch shows how far a batch is until it has ended, and then the batch. One that did not complete all its lines is an error.
func watchBatch(ctx context.Context, app *cli.App, c *client.Client, id string) error {
	var p *cli.Progress
	var shown int64
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	for {
		b, err := c.Batch(ctx, id)
		if err != nil {
			return err
		}
		if p == nil && b.Counts.Total > 0 {
			p = app.NewProgress("ended", b.Counts.Total)
		}
		if p != nil {
			p.Add(int(b.Counts.Completed + b.Counts.Failed - shown))
			shown = b.Counts.Completed + b.Counts.Failed
		}
		if b.Final() {
			if p != nil {
				p.Done()
			}
			if err := showBatch(app, b); err != nil {
				return err
			}
			if b.Status != "completed" || b.Counts.Failed > 0 {
				return &cli.TasksError{Text: fmt.Sprintf("batch %s is %s: %d of %d lines completed", b.ID, b.Status, b.Counts.Completed, b.Counts.Total)}
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func newBatchResults(app *cli.App) *cobra.Command {
	var out, failed string
	cmd := &cobra.Command{
		Use: "results ID", Short: "Download the output of a batch", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Writes the lines that completed to --out (standard output when it is not given), and with --errors the others to another file.\n" +
			"While the batch runs, it is what has ended so far.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			b, err := c.Batch(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := saveFile(cmd.Context(), app, c, b.OutputFileID, out); err != nil {
				return err
			}
			if failed == "" {
				return nil
			}
			return saveFile(cmd.Context(), app, c, b.ErrorFileID, failed)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "`file` for the lines that completed")
	cmd.Flags().StringVar(&failed, "errors", "", "`file` for the others")
	return cmd
}

// saveFile writes a file of the node to a path, or to the standard output. One that there is not is empty.
func saveFile(ctx context.Context, app *cli.App, c *client.Client, id *string, path string) (err error) {
	w := app.Out
	if path != "" {
		f, err := os.Create(path)
		if err != nil {
			return cli.Usage("%v", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	if id == nil {
		return nil
	}
	return c.FileContent(ctx, *id, w)
}
