package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// conn is one HTTP/1.1 connection that is kept open. It sends one request at a time, from the caller's goroutine, out of
// one buffer: net/http's own client hands each request to two more goroutines, which on two shared cores would measure
// the client.
type conn struct {
	net  net.Conn
	in   *bufio.Reader
	out  []byte
	host string
	stop func() bool
}

// dial connects. When ctx ends, what is under way fails.
func dial(ctx context.Context, addr string) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bench.dial: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return &conn{net: c, in: bufio.NewReaderSize(c, 32<<10), host: addr, stop: stop}, nil
}

func (c *conn) close() {
	c.stop()
	_ = c.net.Close() // nothing is under way
}

// submit posts one task and waits until the node has it on disk.
func (c *conn) submit(body []byte) error {
	c.out = append(c.out[:0], "POST /v1/tasks HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.host...)
	c.out = append(c.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if _, err := c.net.Write(c.out); err != nil {
		return fmt.Errorf("bench.submit: %w", err)
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return fmt.Errorf("bench.submit: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		b, _ := io.ReadAll(res.Body)
		return fmt.Errorf("bench.submit: %s: %s", res.Status, cut(b))
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("bench.submit: %w", err)
	}
	return nil
}

const chunkBytes = 64 << 10 // of a stream, sent at once

// stream posts NDJSON lines while it reads the node's answers, and returns the summary that ends them. line appends
// line i; the connection is not fit for another request afterwards.
func (c *conn) stream(n int, line func(b []byte, i int) []byte) (wire.Summary, error) {
	sent := make(chan error, 1)
	go func() { sent <- c.send(n, line) }()
	sum, err := c.summary()
	if err != nil {
		_ = c.net.Close() // the sender may be waiting for a node that does not read any more
		if serr := <-sent; serr != nil && !errors.Is(serr, net.ErrClosed) {
			err = errors.Join(err, serr)
		}
		return sum, err
	}
	return sum, <-sent
}

// send writes the request with its body in chunks.
func (c *conn) send(n int, line func(b []byte, i int) []byte) error {
	out := []byte("POST /v1/tasks HTTP/1.1\r\nHost: " + c.host +
		"\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk := make([]byte, 0, chunkBytes+4<<10)
	for i := 0; i < n; {
		for chunk = chunk[:0]; i < n && len(chunk) < chunkBytes; i++ {
			chunk = line(chunk, i)
		}
		out = strconv.AppendInt(out, int64(len(chunk)), 16)
		out = append(out, "\r\n"...)
		out = append(out, chunk...)
		out = append(out, "\r\n"...)
		if _, err := c.net.Write(out); err != nil {
			return fmt.Errorf("bench.stream: %w", err)
		}
		out = out[:0]
	}
	if _, err := c.net.Write(append(out, "0\r\n\r\n"...)); err != nil {
		return fmt.Errorf("bench.stream: %w", err)
	}
	return nil
}

// summary reads all answers and keeps the last line.
func (c *conn) summary() (wire.Summary, error) {
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return wire.Summary{}, fmt.Errorf("bench.stream: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		return wire.Summary{}, fmt.Errorf("bench.stream: %s: %s", res.Status, cut(b))
	}
	last, refused, err := lastLine(res.Body)
	if err != nil {
		return wire.Summary{}, fmt.Errorf("bench.stream: %w", err)
	}
	var l wire.SubmitLine
	if err := json.Unmarshal(last, &l); err != nil || l.Summary == nil {
		return wire.Summary{}, fmt.Errorf("bench.stream: the answer ends without a summary: %s", cut(last))
	}
	switch s := l.Summary; {
	case s.Error != nil:
		return *s, fmt.Errorf("bench.stream: %w", s.Error)
	case s.Rejected > 0:
		return *s, fmt.Errorf("bench.stream: %d tasks were refused, one of them: %s", s.Rejected, cut(refused))
	}
	return *l.Summary, nil
}

// lastLine reads to the end and returns the last line, and the first that tells of an error. It does not decode lines: a
// client that did would cost as much as the node.
func lastLine(r io.Reader) (last, refused []byte, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF {
			return last, refused, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if refused == nil && bytes.Contains(line, []byte(`"error":`)) {
			refused = bytes.Clone(line)
		}
		last = append(last[:0], line...)
	}
}
