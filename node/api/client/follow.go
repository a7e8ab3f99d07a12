package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/open-autoglm/autoglm/node/api/ndjson"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// lineMax bounds one line of a stream that the server sends, in bytes: 64 answers of a
// task with steps may be long.
const lineMax = 64 << 20

// cursorTrailer is api.CursorTrailer.
const cursorTrailer = "Autoglm-Cursor"

// stopped wraps an error of the caller's function, so that it is not tried again.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

// Follow calls f with each event of a task after a version, until the task is final and
// its callback is through, f returns an error, or ctx ends. It goes on after a broken
// connection.
func (c *Client) Follow(ctx context.Context, id string, after uint64, f func(wire.Event) error) error {
	b := c.newBackoff()
	for {
		last, ended, err := c.follow(ctx, b.base, id, after, f)
		var s stopped
		switch {
		case ended:
			return nil
		case errors.As(err, &s):
			return s.error
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if last > after {
			after = last
			b.progress()
		}
		if err != nil && !b.wait(ctx, err) {
			return err
		}
	}
}

// follow reads one connection's events.
func (c *Client) follow(ctx context.Context, base, id string, after uint64, f func(wire.Event) error) (last uint64, ended bool, err error) {
	const op = "client.follow"
	resp, err := c.send(ctx, base, op, http.MethodGet, taskPath(id, "/events"), "", nil,
		"Accept", "text/event-stream", "Last-Event-ID", strconv.FormatUint(after, 10))
	if err != nil {
		return after, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return after, true, nil
	}
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, lineMax)
	for scan.Scan() {
		data, ok := strings.CutPrefix(scan.Text(), "data: ")
		if !ok {
			continue // id and event are in the data too
		}
		var e wire.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return after, false, fault.New(fault.Unknown, op, id, "an event could not be read: %w", err)
		}
		if err := f(e); err != nil {
			return after, false, stopped{err}
		}
		after = e.Version
	}
	if err := scan.Err(); err != nil {
		return after, false, away(ctx, base, op, err)
	}
	return after, false, nil // the next try is answered 204 when the task has ended
}

// Results calls f with each final task after cursor, in the order in which they ended,
// until there are no more, f returns an error, or ctx ends; with follow it waits for more.
// It goes on after a broken connection. The cursor returned goes on after the last result
// that f took; Query's Limit is not used.
func (c *Client) Results(ctx context.Context, q Query, follow bool, f func(wire.Result) error) (cursor string, err error) {
	r := &resultsReader{c: c, cursor: q.Cursor, since: map[string]bool{}, f: f}
	b := c.newBackoff()
	for {
		q.Cursor = r.cursor
		got := r.got
		ended, err := r.read(ctx, b.base, q, follow)
		var s stopped
		switch {
		case ended && !follow:
			return r.cursor, nil
		case errors.As(err, &s):
			return r.cursor, s.error
		case ctx.Err() != nil:
			return r.cursor, ctx.Err()
		}
		if r.got > got {
			b.progress()
		}
		if err == nil { // a followed stream that the server ended
			err = fault.New(fault.Unavailable, "client.results", b.base, "the stream ended")
		}
		if !b.wait(ctx, err) {
			return r.cursor, err
		}
	}
}

// resultsReader remembers where it is: the newest cursor, and the results that came since,
// which a stream that starts again from there repeats.
type resultsReader struct {
	c      *Client
	cursor string
	since  map[string]bool
	got    int
	f      func(wire.Result) error
}

func (r *resultsReader) read(ctx context.Context, base string, q Query, follow bool) (ended bool, err error) {
	const op = "client.results"
	v := q.values()
	v.Del("limit")
	if follow {
		v.Set("follow", "true")
	}
	resp, err := r.c.send(ctx, base, op, http.MethodGet, "/v1/results?"+v.Encode(), "", nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := ndjson.NewReader(resp.Body, lineMax)
	for {
		l, err := lines.Next()
		if err == io.EOF {
			if t := resp.Trailer.Get(cursorTrailer); t != "" {
				r.at(t)
			}
			return true, nil
		}
		if err != nil {
			return false, away(ctx, base, op, err)
		}
		if err := r.take(l); err != nil {
			return false, err
		}
	}
}

func (r *resultsReader) take(l ndjson.Line) error {
	if l.TooLong {
		return fault.New(fault.TooLarge, "client.results", "", "a result is longer than %d bytes", lineMax)
	}
	var res wire.Result
	if err := json.Unmarshal(bytes.TrimSpace(l.Text), &res); err != nil {
		return fault.New(fault.Unknown, "client.results", "", "a line could not be read: %w", err)
	}
	if res.ID != "" && !r.since[res.ID] {
		if err := r.f(res); err != nil {
			return stopped{err}
		}
		r.since[res.ID] = true
		r.got++
	}
	if res.Cursor != "" {
		r.at(res.Cursor)
	}
	return nil
}

func (r *resultsReader) at(cursor string) {
	r.cursor = cursor
	clear(r.since)
}
