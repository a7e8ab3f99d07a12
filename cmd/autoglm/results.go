package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newResults(app *cli.App) *cobra.Command {
	var f filterFlags
	var out, cursor string
	var follow, resume bool
	cmd := &cobra.Command{
		Use: "results", Short: "Write the results of ended tasks as JSONL", Args: cobra.NoArgs,
		Long: "Writes one JSON object a line, in the order in which the tasks ended. Some lines carry a cursor: with --cursor a\n" +
			"later call goes on after that line. With --out FILE --resume that is done for you: where FILE ends is kept in\n" +
			"FILE.cursor, and nothing is written twice.",
		Example: "  autoglm results --state completed > answers.jsonl\n  autoglm results --follow --out results.jsonl --resume",
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			switch {
			case q.State != task.None && !q.State.Final():
				return cli.Usage("--state is %q: use completed, failed or cancelled", f.state)
			case resume && out == "":
				return cli.Usage("--resume needs --out FILE")
			case resume && cursor != "":
				return cli.Usage("give --resume or --cursor, not both")
			}
			q.Cursor = cursor
			c, err := app.Client()
			if err != nil {
				return err
			}
			sink, err := openSink(app, out, resume)
			if err != nil {
				return err
			}
			if resume {
				q.Cursor = sink.mark.Cursor
			}
			return copyResults(cmd.Context(), app, c, q, follow, sink)
		},
	}
	app.ClientFlags(cmd)
	f.add(cmd, "completed", "failed", "cancelled")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with tasks that end later, until Ctrl-C")
	cmd.Flags().StringVar(&out, "out", "", "write to this `file` (default: standard output)")
	cmd.Flags().BoolVar(&resume, "resume", false, "go on where FILE ends")
	cmd.Flags().StringVar(&cursor, "cursor", "", "go on after this `cursor`")
	return cmd
}

func copyResults(ctx context.Context, app *cli.App, c *client.Client, q client.Query, follow bool, sink *resultSink) error {
	n := 0
	end, err := c.Results(ctx, q, follow, func(r wire.Result) error {
		n++
		return sink.write(r, follow)
	})
	if err == nil {
		sink.mark.Cursor = end
	}
	if errors.Is(err, context.Canceled) && follow {
		err = nil // Ctrl-C is how it ends
	}
	if cerr := sink.close(err == nil && !follow); err == nil {
		err = cerr
	}
	if sink.file != nil {
		fmt.Fprintf(app.Err, "%d results in %s\n", n, sink.file.Name())
	}
	return err
}

// mark is where a results file ends: what is beyond Size was written after Cursor was
// known, and comes again.
type mark struct {
	Cursor string `json:"cursor"`
	Size   int64  `json:"size"`         // bytes
	Of     string `json:"of,omitempty"` // of an export: what it is of
}

// resultSink writes results to a file with a mark beside it, or to standard output.
type resultSink struct {
	w    *bufio.Writer
	file *os.File // nil: standard output
	size int64
	keep bool // maintain the mark
	mark mark
}

func openSink(app *cli.App, path string, resume bool) (*resultSink, error) {
	if path == "" {
		return &resultSink{w: bufio.NewWriter(app.Out)}, nil
	}
	s := &resultSink{keep: resume}
	if resume {
		b, err := os.ReadFile(path + ".cursor")
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			if err := json.Unmarshal(b, &s.mark); err != nil {
				return nil, fmt.Errorf("%s.cursor: %w", path, err)
			}
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if st, err := file.Stat(); err == nil && st.Size() < s.mark.Size {
		return nil, errors.Join(cli.Usage("%s is shorter than when %s.cursor was written: remove both to start over", path, path), file.Close())
	}
	err = file.Truncate(s.mark.Size)
	if err == nil {
		_, err = file.Seek(s.mark.Size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.file, s.w, s.size = file, bufio.NewWriter(file), s.mark.Size
	return s, nil
}

func (s *resultSink) write(r wire.Result, flush bool) error {
	b, err := marshalLine(&r)
	if err != nil {
		return err
	}
	n, err := s.w.Write(b)
	s.size += int64(n)
	if err != nil {
		return err
	}
	if r.Cursor != "" {
		s.mark.Cursor, s.mark.Size = r.Cursor, s.size
		return s.save()
	}
	if flush {
		return s.w.Flush()
	}
	return nil
}

// marshalLine is a result as a line.
func marshalLine(r *wire.Result) ([]byte, error) {
	b, err := json.Marshal(r)
	return append(b, '\n'), err
}

// save makes the mark true on disk: first the lines, then where they end.
func (s *resultSink) save() error {
	if err := s.w.Flush(); err != nil || !s.keep {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	b, err := json.Marshal(s.mark)
	if err != nil {
		return err
	}
	tmp := s.file.Name() + ".cursor.tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.file.Name()+".cursor")
}

// close flushes; whole says that mark.Cursor is after the last line.
func (s *resultSink) close(whole bool) error {
	err := s.w.Flush()
	if s.file == nil {
		return err
	}
	if err == nil && whole {
		s.mark.Size = s.size
		err = s.save()
	}
	return errors.Join(err, s.file.Close())
}
