package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/ndjson"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// LineMax bounds one submitted task as JSON, in bytes, as the server's default does.
const LineMax = 8 << 20

// SubmitLines submits NDJSON of any length from r, in constant memory, and calls each with
// the answer to each line, in order, with the line's number in r. edit, unless nil, may
// change a line's fields before it is sent. Lines that are no JSON objects are sent as they
// are: the server says what is wrong with them.
//
// A broken connection is set up again and the lines without an answer are sent once more.
// The error is what ended the stream early; a refused line is no error. r is read by a
// goroutine which, when the stream ends early, ends with r's next Read.
func (c *Client) SubmitLines(ctx context.Context, r io.Reader, edit func(map[string]json.RawMessage), each func(wire.Submitted) error) (wire.Summary, error) {
	lines := ndjson.NewReader(r, LineMax)
	return c.submitStream(ctx, each, func() (upload, error) {
		l, err := lines.Next()
		if err != nil {
			return upload{}, err
		}
		if l.TooLong {
			p := wire.NewProblem(http.StatusRequestEntityTooLarge, fault.TooLarge, "", "the line is too long")
			return upload{number: l.Number, refused: p.With("http.line_max", "put long input behind data_url")}, nil
		}
		text, made := prepare(l.Text, edit)
		return upload{number: l.Number, text: text, made: made}, nil
	})
}

// SubmitAll submits the specs in turn like SubmitLines; an answer's Line counts them from 1.
// It sets the ids that are empty.
func (c *Client) SubmitAll(ctx context.Context, specs iter.Seq[*task.Spec], each func(wire.Submitted) error) (wire.Summary, error) {
	next, stop := iter.Pull(specs)
	defer stop()
	number := 0
	return c.submitStream(ctx, each, func() (upload, error) {
		spec, ok := next()
		if !ok {
			return upload{}, io.EOF
		}
		number++
		made := spec.ID == ""
		if made {
			spec.ID = NewID()
		}
		text, err := json.Marshal(spec)
		return upload{number: number, text: text, made: made}, err
	})
}

// prepare gives a line an id and the caller's changes.
func prepare(text []byte, edit func(map[string]json.RawMessage)) (out []byte, made bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil || fields == nil {
		return text, false
	}
	if id := string(fields["task_id"]); id == "" || id == `""` || id == "null" {
		fields["task_id"], _ = json.Marshal(NewID()) // a string always can
		made = true
	} else if edit == nil {
		return text, false
	}
	if edit != nil {
		edit(fields)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return text, false
	}
	return b, made
}

func (c *Client) submitStream(ctx context.Context, each func(wire.Submitted) error, next func() (upload, error)) (sum wire.Summary, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := newWindow()
	defer w.stop(context.Canceled)
	unhook := context.AfterFunc(ctx, func() { w.stop(ctx.Err()) })
	defer unhook()
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		w.fill(next)
	}()
	b := c.newBackoff()
	take := func(a wire.Submitted) error {
		b.progress()
		sum.Count(&a)
		if err := each(a); err != nil {
			return stopped{err}
		}
		return nil
	}
	for {
		err := c.uploadOnce(ctx, b.base, w, take)
		var s stopped
		switch {
		case errors.As(err, &s):
			return sum, s.error
		case err == nil && w.done():
			<-pumped
			return sum, w.sourceErr()
		case ctx.Err() != nil:
			return sum, ctx.Err()
		case err == nil:
			err = fault.New(fault.Unavailable, "client.submit", b.base, "the stream ended before its last line was answered")
		}
		if !b.wait(ctx, err) {
			return sum, err
		}
	}
}

// patience ends a connection on which no line was answered for as long as calls are repeated, and a little more: a node that is busy holds lines back
// for as long as it was told to, and then says so. The cause is in the context.
func (c *Client) patience(ctx context.Context, w *window) (context.Context, func()) {
	if c.retry <= 0 {
		return ctx, func() {}
	}
	limit := c.retry + c.retry/10
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		t := time.NewTimer(limit)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-done:
				return
			}
			left := limit
			if since := w.waits(); !since.IsZero() {
				left = limit - time.Since(since)
			}
			if left <= 0 {
				cancel(fault.New(fault.Timeout, "client.submit", "", "no answer to a line within %v: the node is busy, or away, or the tenant's quota is used up (autoglm quota list)", c.retry))
				return
			}
			t.Reset(left)
		}
	})
	return ctx, func() {
		close(done)
		watch.Wait()
		cancel(nil)
	}
}

// uploadOnce sends the lines that have no answer over one connection and takes the answers.
func (c *Client) uploadOnce(ctx context.Context, base string, w *window, take func(wire.Submitted) error) error {
	const op = "client.submit"
	if err := w.takeRefused(take); err != nil { // no need of a connection for those
		return err
	}
	if w.done() {
		return nil
	}
	body := w.body()
	defer body.Close()
	ctx, ended := c.patience(ctx, w)
	defer ended()
	resp, err := c.send(ctx, base, op, http.MethodPost, "/v1/tasks", "application/x-ndjson", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := ndjson.NewReader(resp.Body, lineMax)
	for {
		l, err := lines.Next()
		if err == io.EOF {
			return w.takeRefused(take)
		}
		if err != nil {
			return away(ctx, base, op, err)
		}
		var a wire.SubmitLine
		if err := json.Unmarshal(l.Text, &a); err != nil {
			return fault.New(fault.Unknown, op, "", "an answer could not be read: %w", err)
		}
		if a.Summary != nil {
			if p := a.Summary.Error; p != nil && !w.done() {
				return &fault.Error{Op: op, Kind: wire.KindNamed(p.Kind), Err: p}
			}
			continue
		}
		if a.Submitted == nil {
			continue
		}
		if err := w.answer(*a.Submitted, take); err != nil {
			return err
		}
	}
}
