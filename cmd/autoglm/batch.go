package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	cli.Group(cmd)
	cmd.AddCommand(newBatchCreate(app), newBatchList(app), newBatchGet(app), newBatchWatch(app), newBatchResults(app),
		newBatchSay(app, "cancel", "Cancel a batch", "What has ended by then is kept. The other lines are in the error file."),
		newBatchSay(app, "pause", "Create no more tasks of a batch", "Those that there are go on."),
		newBatchSay(app, "resume", "Let a batch that was paused go on", ""),
		newBatchRetry(app))
	return cmd
}

func newBatchCreate(app *cli.App) *cobra.Command {
	q := client.NewBatch{}
	var metadata []string
	var wait bool
	cmd := &cobra.Command{
		Use: "create FILE|FILE_ID", Short: "Upload a file and make a batch of it", Args: cobra.ExactArgs(1),
		Long: "Uploads the file (- is the standard input), or takes one that was uploaded (file-…), and makes a batch. --wait waits for its end.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Metadata, err = cli.Metadata(metadata); err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			q.InputFileID = args[0]
			if q.InputFileID, err = uploaded(cmd.Context(), app, c, args[0]); err != nil {
				return err
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
	priorityFlag(cmd, &q.Priority, "of lines that name none (default normal)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the batch has ended")
	return cmd
}

// uploaded returns the id of a file, which is uploaded unless it is one of the node's.
func uploaded(ctx context.Context, app *cli.App, c *client.Client, path string) (string, error) {
	if path == "-" {
		return c.UploadFile(ctx, "stdin.jsonl", app.In, nil)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil && strings.HasPrefix(path, "file-"):
		return path, nil
	case err != nil:
		return "", cli.Usage("%v", err)
	case info.IsDir():
		return "", cli.Usage("%s is a directory: name a file of requests, one JSON object a line", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", cli.Usage("%v", err)
	}
	defer f.Close()
	return c.UploadFile(ctx, filepath.Base(path), f, nil)
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
	if b.Counts.Total > 0 && !b.Final() {
		line("left", b.Counts.Total-b.Counts.Completed-b.Counts.Failed)
	}
	if r := b.Rate(time.Now()); r > 0 {
		line("rate", fmt.Sprintf("%.3g lines/s", r))
	}
	line("created", time.Unix(b.CreatedAt, 0).UTC().Format(time.RFC3339)+", "+cli.Ago(time.Unix(b.CreatedAt, 0))+" ago")
	if end := b.EndedAt(); end > 0 {
		line("ended", fmt.Sprintf("%s, after %v", time.Unix(end, 0).UTC().Format(time.RFC3339), time.Duration(end-b.CreatedAt)*time.Second))
	}
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
			where := "input"
			if e.Line > 0 {
				where = fmt.Sprint("line ", e.Line)
			}
			line(where, e.Code+": "+cli.Cut(e.Message, 160))
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
			if err := cli.NotNegative("limit", limit); err != nil {
				return err
			}
			if limit < 1 {
				return cli.Usage("--limit is %d: use at least 1", limit)
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			tab := cli.NewTable("BATCH", "STATUS", "TOTAL>", "COMPLETED>", "FAILED>", "RATE>", "AGE>", "ENDPOINT", "OUTPUT", "ERRORS", "PROBLEM")
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
					tab.Row(b.ID, b.Status, b.Counts.Total, b.Counts.Completed, b.Counts.Failed, rateOf(b), cli.Ago(time.Unix(b.CreatedAt, 0)), b.Endpoint, or(b.OutputFileID), or(b.ErrorFileID), problemOf(b))
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

// rateOf is how fast a batch is, or was; "" while that cannot be told.
func rateOf(b *client.Batch) string {
	if r := b.Rate(time.Now()); r > 0 {
		return fmt.Sprintf("%.3g/s", r)
	}
	return ""
}

func or(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// problemOf is the first error of a batch that was refused.
func problemOf(b *client.Batch) string {
	if b.Errors == nil || len(b.Errors.Data) == 0 {
		return ""
	}
	e := b.Errors.Data[0]
	text := e.Code + ": " + e.Message
	if e.Line > 0 {
		text = fmt.Sprintf("line %d: %s", e.Line, text)
	}
	return cli.Cut(text, 60)
}

// newOfBatch is a command about one batch.
func newOfBatch(app *cli.App, verb, short, long string, do func(context.Context, *client.Client, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short, Long: strings.TrimSpace(short + ". " + long), Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
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

func newBatchGet(app *cli.App) *cobra.Command {
	return newOfBatch(app, "get", "Show a batch", "", func(ctx context.Context, c *client.Client, id string) error {
		b, err := c.Batch(ctx, id)
		if err != nil {
			return err
		}
		return showBatch(app, b)
	})
}

func newBatchSay(app *cli.App, verb, short, long string) *cobra.Command {
	return newOfBatch(app, verb, short, long, func(ctx context.Context, c *client.Client, id string) error {
		b, err := c.SayBatch(ctx, id, verb)
		if err != nil {
			return err
		}
		return showBatch(app, b)
	})
}

func newBatchRetry(app *cli.App) *cobra.Command {
	var q client.RetryBatch
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Make a batch of the lines of another that did not complete", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Makes a batch of the lines of another that did not complete, and prints it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			b, err := c.RetryBatch(cmd.Context(), args[0], q, uuid.NewString())
			if err != nil {
				return err
			}
			return showBatch(app, b)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&q.Window, "window", "", "`time` for the whole new batch; that of the other when not given")
	priorityFlag(cmd, &q.Priority, "(default: that of the other)")
	return cmd
}

func newBatchWatch(app *cli.App) *cobra.Command {
	return newOfBatch(app, "watch", "Follow a batch to its end", "", func(ctx context.Context, c *client.Client, id string) error {
		return watchBatch(ctx, app, c, id)
	})
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
		Long: "Writes the lines that completed to --out (- or nothing is the standard output), and with --errors the others to another file.\n" +
			"While the batch runs, it is what has ended so far. With --out, -o json shows the batch then.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if failed != "" && same(out, failed) {
				return cli.Usage("--out and --errors are the same file: one would overwrite the other")
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			b, err := c.Batch(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			err = saveFile(cmd.Context(), app, c, b.OutputFileID, out)
			if failed != "" { // also when the output is gone: it may have been deleted
				err = errors.Join(err, saveFile(cmd.Context(), app, c, b.ErrorFileID, failed))
			}
			if err == nil && app.JSON() && !same(out, "-") { // else the lines are the output, as JSON they are
				return app.PrintJSON(b)
			}
			return err
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "`file` for the lines that completed")
	cmd.Flags().StringVar(&failed, "errors", "", "`file` for the others")
	return cmd
}

// same tells whether two outputs are one: "" and "-" are the standard output.
func same(a, b string) bool {
	if a == "" {
		a = "-"
	}
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// saveFile writes a file of the node to a path, or to the standard output. One that there is not is empty.
func saveFile(ctx context.Context, app *cli.App, c *client.Client, id *string, path string) (err error) {
	w := app.Out
	if path != "" && path != "-" {
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
