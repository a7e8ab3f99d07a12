package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// counting buffers and knows how much was written.
type counting struct {
	w *bufio.Writer
	n int64
}

func newCounting(w io.Writer) *counting { return &counting{w: bufio.NewWriterSize(w, 64<<10)} }

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// grow appends results to a file as they come. Where it ends is kept beside it, as `autoglm results --resume` does, with what it is of.
func (e *exportFlags) grow(ctx context.Context, app *cli.App, c *client.Client, q client.Query) error {
	of := q
	of.Cursor = ""
	b, err := json.Marshal(struct {
		client.Query
		Format string
		Escape bool
	}{of, e.format, e.escape})
	if err != nil {
		return err
	}
	if err := growable(e.out, string(b), q.Cursor); err != nil {
		return err
	}
	s, err := openSink(app, e.out, true)
	if err != nil {
		return err
	}
	if s.mark.Of = string(b); s.mark.Cursor != "" {
		q.Cursor = s.mark.Cursor
	}
	s.mark.Cursor = q.Cursor
	if err := s.save(); err != nil { // before the first line: what it leads to is known whenever this ends
		return errors.Join(err, s.file.Close())
	}
	out := newCounting(s.w)
	enc, err := e.encode(out, s.size == 0)
	if err != nil {
		return errors.Join(err, s.file.Close())
	}
	n, before := 0, s.size
	_, err = c.Results(ctx, q, true, func(r wire.Result) error {
		n++
		if err := errors.Join(enc.write(&r), enc.flush(), out.w.Flush()); err != nil {
			return err
		}
		s.size = before + out.n
		if r.Cursor == "" {
			return nil // the reader gets it with the next that has one
		}
		s.mark.Cursor, s.mark.Size = r.Cursor, s.size
		return s.save()
	})
	if errors.Is(err, context.Canceled) {
		err = nil // Ctrl-C is how it ends
	}
	err = errors.Join(err, enc.end(), out.w.Flush())
	if cerr := s.close(false); err == nil {
		err = cerr
	}
	fmt.Fprintf(app.Err, "%d results more in %s\n", n, e.out)
	return err
}

// growable refuses a file that is not one that this export wrote: it would be cut, or mixed.
func growable(path, of, cursor string) error {
	b, err := os.ReadFile(path + ".cursor")
	if errors.Is(err, os.ErrNotExist) {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return cli.Usage("%s exists and there is no %s.cursor beside it: remove it, or name another file", path, path)
		}
		return nil
	}
	if err != nil {
		return cli.Usage("%v", err)
	}
	var m mark
	if err := json.Unmarshal(b, &m); err != nil {
		return cli.Usage("%s.cursor: %v", path, err)
	}
	switch {
	case m.Of != of:
		return cli.Usage("%s was begun with other filters, or in another format: repeat those, or name another file", path)
	case cursor != "" && m.Cursor != "" && cursor != m.Cursor:
		return cli.Usage("%s.cursor says where to go on: leave --cursor out", path)
	}
	return nil
}
