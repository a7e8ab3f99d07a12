package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// exportFlags are what an export is to be like.
type exportFlags struct {
	format, out, cursor string
	follow, escape      bool
}

func newExport(app *cli.App) *cobra.Command {
	var f filterFlags
	var e exportFlags
	var batch string
	var prompt bool
	cmd := &cobra.Command{
		Use: "export", Short: "Write results to a file as JSONL, CSV or Parquet", Args: cobra.NoArgs,
		Long: "Writes the results of ended tasks, or of the lines of one batch (--batch), to a file of flat columns, or with jsonl as GET /v1/results has\n" +
			"them. A file is written beside its place and gets its name when it is whole. With --follow it grows: lines are appended, where it ends is kept\n" +
			"in FILE.cursor, and the same command goes on there after a restart, with nothing twice; a Parquet file cannot grow.\n" +
			"Columns: " + strings.Join(result.Columns(), ", ") + ".",
		Example: "  autoglm export --out answers.parquet --state completed\n  autoglm export --batch batch_… --out answers.csv\n  autoglm export --follow --out results.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			q.Batch, q.Prompt, q.Cursor = batch, prompt, e.cursor
			if q.State != task.None && !q.State.Final() {
				return cli.Usage("--state is %q: use completed, failed or cancelled", f.state)
			}
			if err := e.check(); err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			if e.follow && e.out != "" {
				return e.grow(cmd.Context(), app, c, q)
			}
			return e.whole(cmd.Context(), app, c, q)
		},
	}
	app.ClientFlags(cmd)
	f.add(cmd, "completed", "failed", "cancelled")
	cmd.Flags().StringVar(&batch, "batch", "", "only the lines of this batch, by its `ID`; lines that never became tasks are in `autoglm batch results --errors`")
	cmd.Flags().StringVar(&e.format, "format", "", "jsonl, csv or `parquet` (default: by the name of --out, else jsonl)")
	cmd.Flags().StringVar(&e.out, "out", "", "write to this `file` (default, and -: standard output)")
	cmd.Flags().BoolVarP(&e.follow, "follow", "f", false, "go on with tasks that end later, until Ctrl-C")
	cmd.Flags().StringVar(&e.cursor, "cursor", "", "go on after this `cursor`: one of GET /v1/results, or that a former export told")
	cmd.Flags().BoolVar(&prompt, "prompt", false, "give what was asked, too")
	cmd.Flags().BoolVar(&e.escape, "escape-formulas", false, "in CSV, put an apostrophe before texts that a spreadsheet would run as formulas (those that begin with\n=, +, -, @, a tab or a carriage return): answers may come from strangers. Without it nothing is altered")
	cli.Complete(cmd, "format", formats...)
	return cmd
}

var formats = []string{"jsonl", "csv", "parquet"}

// check fills in the format.
func (e *exportFlags) check() error {
	if e.out == "-" {
		e.out = ""
	}
	if e.format == "" {
		e.format = "jsonl"
		if ext := strings.TrimPrefix(filepath.Ext(e.out), "."); e.out != "" {
			e.format = map[string]string{"jsonl": "jsonl", "ndjson": "jsonl", "csv": "csv", "parquet": "parquet", "pq": "parquet"}[strings.ToLower(ext)]
			if e.format == "" {
				return cli.Usage("--out %s: its ending names no format: give --format jsonl, csv or parquet", e.out)
			}
		}
	}
	switch {
	case e.format != "jsonl" && e.format != "csv" && e.format != "parquet":
		return cli.Usage("--format is %q: use jsonl, csv or parquet", e.format)
	case e.escape && e.format != "csv":
		return cli.Usage("--escape-formulas is for CSV")
	case e.follow && e.format == "parquet":
		return cli.Usage("a Parquet file cannot grow: follow with --format jsonl or csv, or let a sink write one file after the other (autoglm sink create --help)")
	}
	return nil
}

// encoder writes results in a format.
type encoder struct {
	write func(*wire.Result) error
	flush func() error // of what is buffered
	end   func() error // once, after the last
}

// encode makes an encoder; begin: the file has nothing in it yet.
func (e *exportFlags) encode(w io.Writer, begin bool) (encoder, error) {
	nothing := func() error { return nil }
	switch e.format {
	case "csv":
		c := result.NewCSV(w)
		c.EscapeFormulas = e.escape
		var err error
		if begin {
			err = c.Header()
		}
		return encoder{func(r *wire.Result) error { row := rowOf(r); return c.Write(&row) }, c.Flush, c.Flush}, err
	case "parquet":
		p := result.NewParquet(w)
		return encoder{func(r *wire.Result) error { row := rowOf(r); return p.Write(&row) }, nothing, p.Close}, nil
	}
	return encoder{func(r *wire.Result) error {
		line := *r
		line.Cursor = ""
		b, err := marshalLine(&line)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}, nothing, nothing}, nil
}

// rowOf makes a result a row, as result.Of makes a record one.
func rowOf(r *wire.Result) result.Row {
	row := result.Row{TaskID: r.ID, BatchID: r.Batch, CustomID: r.CustomID, State: r.State.String(), Model: r.Model, Prompt: r.Prompt, Answer: r.Answer, FinishReason: r.Finish,
		Attempts: int64(r.Attempt), Metadata: result.MetadataText(r.Metadata)}
	if r.Usage != nil {
		row.PromptTokens, row.CompletionTokens = int64(r.Usage.PromptTokens), int64(r.Usage.CompletionTokens)
	}
	if r.CreatedAt != nil {
		row.CreatedAt = *r.CreatedAt
	}
	if r.EndedAt != nil {
		row.EndedAt = *r.EndedAt
	}
	if r.Error != nil {
		row.ErrorKind, row.ErrorMessage = r.Error.Kind, r.Error.Message
	}
	if r.Response != nil {
		row.Response = string(r.Response.Body)
	}
	return row
}

// whole writes all results there are, or to the standard output as long as it is followed.
func (e *exportFlags) whole(ctx context.Context, app *cli.App, c *client.Client, q client.Query) (err error) {
	w := app.Out
	var file *os.File
	if e.out != "" {
		if file, err = os.CreateTemp(filepath.Dir(e.out), "."+filepath.Base(e.out)+".tmp-*"); err != nil {
			if pe, ok := errors.AsType[*fs.PathError](err); ok {
				err = pe.Err // its path is the temporary file's
			}
			return cli.Usage("--out is %q, and nothing can be written beside it: %v", e.out, err)
		}
		defer func() {
			if file != nil { // it is not whole
				err = errors.Join(err, file.Close(), os.Remove(file.Name()))
			}
		}()
		w = file
	}
	buffered := newCounting(w)
	enc, err := e.encode(buffered, true)
	if err != nil {
		return err
	}
	n := 0
	end, err := c.Results(ctx, q, e.follow, func(r wire.Result) error {
		n++
		err := enc.write(&r)
		if err == nil && e.follow {
			err = errors.Join(enc.flush(), buffered.w.Flush())
		}
		return err
	})
	if errors.Is(err, context.Canceled) && e.follow {
		err = nil // Ctrl-C is how it ends
	}
	if err == nil {
		err = errors.Join(enc.end(), buffered.w.Flush())
	}
	if err != nil || file == nil {
		return err
	}
	if err = publish(file, e.out); err != nil {
		return err
	}
	file = nil
	return told(app, e.out, n, end)
}

// publish gives a file that is whole its name.
func publish(file *os.File, name string) error {
	mode := os.FileMode(0o644)
	if st, err := os.Stat(name); err == nil {
		mode = st.Mode().Perm()
	}
	return errors.Join(file.Chmod(mode), file.Sync(), os.Rename(file.Name(), name), file.Close())
}

// told says what was written, and where a later export can go on.
func told(app *cli.App, out string, n int, cursor string) error {
	if app.JSON() {
		return app.PrintJSON(map[string]any{"file": out, "results": n, "cursor": cursor})
	}
	_, err := fmt.Fprintf(app.Err, "%d results in %s; to go on from here later: --cursor %s\n", n, out, cursor)
	return err
}
