package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/ndjson"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// submitStream makes a stream of tasks durable, however long it is, and answers each line
// while later ones are still being read:
//
//	body ─► read ─lines─► chunk ─chunks in flight─► submitLines ─► write, in order
//
// A slow client stops the writing, that stops the chunks, and those stop the reading: what
// one stream holds is bounded by ChunksInFlight and by the size of a chunk.
func (s *Server) submitStream(w http.ResponseWriter, r *http.Request) {
	release, ok := s.stream(w, r)
	if !ok {
		return
	}
	defer release()
	// The request's own context ends with the first read that fails; lines that were read by
	// then are still made durable and answered.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(r.Context(), func() {
		if context.Cause(r.Context()) == errRevoked {
			cancel()
		}
	})()
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // HTTP/2 always is; a recorder in a test reads first

	in := &intake{s: s, rc: rc, lines: make(chan ndjson.Line, s.lim.ChunkLines), whole: make(chan struct{})}
	chunks := make(chan chan []wire.Submitted, s.lim.ChunksInFlight)
	var wg sync.WaitGroup
	wg.Go(func() { in.read(ctx, r.Body) })
	wg.Go(func() { s.chunk(ctx, in.lines, chunks) })
	wg.Go(func() { // a read under way ends when the client is gone or the server closes
		select {
		case <-in.whole:
		case <-ctx.Done():
		case <-s.closing:
		}
		select {
		case <-in.whole:
			// net/http reads ahead by now. A deadline would fail that read, and with it the
			// context of every later request on this connection.
		default:
			_ = rc.SetReadDeadline(time.Now())
		}
	})

	out := &lineWriter{w: w, rc: rc, timeout: s.lim.WriteTimeout}
	var sum wire.Summary
	for pending := range chunks {
		results := <-pending
		for i := range results {
			sum.Count(&results[i])
			out.add(wire.SubmitLine{Submitted: &results[i]})
		}
		if out.flush() != nil { // the client is gone
			cancel()
		}
	}
	cancel()
	wg.Wait() // the body must not be read after this handler
	_ = rc.SetReadDeadline(time.Time{})
	sum.Error = in.problem
	out.add(wire.SubmitLine{Summary: &sum})
	_ = out.flush()
}

// intake reads a stream's lines.
type intake struct {
	s       *Server
	rc      *http.ResponseController
	lines   chan ndjson.Line
	whole   chan struct{} // closed when reading has ended by itself, before lines is
	problem *wire.Problem // why the stream ended early; valid once lines is closed
}

func (in *intake) read(ctx context.Context, body io.Reader) {
	defer close(in.lines)
	defer close(in.whole)
	timed := &timedReader{ctx: ctx, r: body, rc: in.rc, idle: in.s.lim.StreamIdle, closing: in.s.closing}
	lr := ndjson.NewReader(timed, in.s.lim.LineMax)
	for {
		l, err := lr.Next()
		if err != nil {
			in.problem = in.s.endOfStream(err)
			return
		}
		select {
		case in.lines <- l:
		case <-ctx.Done():
			return
		}
	}
}

// endOfStream says why reading ended; nil when the client had no more.
func (s *Server) endOfStream(err error) *wire.Problem {
	switch {
	case err == io.EOF:
		return nil
	case errors.Is(err, errClosing):
		return wire.ProblemOf(fault.New(fault.Unavailable, "api.submit", "", "the node is stopping").
			WithRemedy("send the lines without an answer again once it is back"))
	case errors.Is(err, os.ErrDeadlineExceeded):
		p := wire.NewProblem(http.StatusRequestTimeout, fault.Timeout, "", "nothing was sent for "+s.lim.StreamIdle.String())
		return p.With("http.stream_idle", "send the lines without an answer again")
	}
	return malformed("", "the stream broke off: %v", err)
}

var errClosing = errors.New("the server is closing")

// timedReader gives up on a client that sends nothing for idle, and when ctx ends or the
// server closes: whoever closes those moves the deadline to now.
type timedReader struct {
	ctx     context.Context
	r       io.Reader
	rc      *http.ResponseController
	idle    time.Duration
	closing <-chan struct{}
}

// Read sets its deadline before it looks whether it should read at all, so that a deadline
// moved to now is never moved back.
func (t *timedReader) Read(p []byte) (int, error) {
	_ = t.rc.SetReadDeadline(time.Now().Add(t.idle))
	if err := t.over(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if over := t.over(); over != nil {
			err = over
		}
	}
	return n, err
}

func (t *timedReader) over() error {
	select {
	case <-t.closing:
		return errClosing
	default:
		return t.ctx.Err()
	}
}

// chunk groups lines by count, bytes and age, and submits each group in the background;
// it sends on chunks, in order, where each group's results will come.
func (s *Server) chunk(ctx context.Context, lines <-chan ndjson.Line, chunks chan<- chan []wire.Submitted) {
	defer close(chunks)
	for {
		first, ok := <-lines
		if !ok {
			return
		}
		group := s.fill(first, lines)
		done := make(chan []wire.Submitted, 1)
		chunks <- done // waits when ChunksInFlight are under way; the writer always drains it
		go func() { done <- s.submitLines(ctx, group) }()
	}
}

// fill collects a chunk that begins with first.
func (s *Server) fill(first ndjson.Line, lines <-chan ndjson.Line) []ndjson.Line {
	group, size := []ndjson.Line{first}, len(first.Text)
	ripe := time.NewTimer(s.lim.ChunkAge)
	defer ripe.Stop()
	for len(group) < s.lim.ChunkLines && size < s.lim.ChunkBytes {
		select {
		case l, ok := <-lines:
			if !ok {
				return group
			}
			group, size = append(group, l), size+len(l.Text)
		case <-ripe.C:
			return group
		}
	}
	return group
}

// submitLines decodes lines and makes the good ones durable. It answers each, in order.
func (s *Server) submitLines(ctx context.Context, lines []ndjson.Line) []wire.Submitted {
	results := make([]wire.Submitted, len(lines))
	specs := make([]*task.Spec, 0, len(lines))
	at := make([]int, 0, len(lines)) // specs[i] belongs to lines[at[i]]
	for i, l := range lines {
		spec, err := s.decodeLine(l)
		if err != nil {
			results[i] = wire.Submitted{Line: l.Number, Error: wire.ProblemOf(err)}
			continue
		}
		withID(spec)
		specs, at = append(specs, spec), append(at, i)
	}
	s.submitRetrying(ctx, specs, func(i int, res Submitted) {
		results[at[i]] = submittedOf(ctx, lines[at[i]].Number, res)
		results[at[i]].ID = specs[i].ID
	})
	return results
}

func (s *Server) decodeLine(l ndjson.Line) (*task.Spec, error) {
	if l.TooLong {
		return nil, tooLarge("http.line_max", int64(s.lim.LineMax), "the line").With("http.line_max", "put long input behind data_url")
	}
	return decodeSpec(l.Text)
}

// Waits between tries of submitRetrying.
const (
	retryMin = 20 * time.Millisecond
	retryMax = time.Second
)

// submitRetrying submits specs, and those that the node was too busy for again, up to
// StreamRetry: a stream's client cannot slow down in any other way than by waiting.
// Every spec has an id, so a repeat is harmless. It calls done once for each.
func (s *Server) submitRetrying(ctx context.Context, specs []*task.Spec, done func(int, Submitted)) {
	at := make([]int, len(specs))
	for i := range at {
		at[i] = i
	}
	until := time.Now().Add(s.lim.StreamRetry)
	for wait := retryMin; len(specs) > 0; wait = min(2*wait, retryMax) {
		var again []*task.Spec
		var againAt []int
		last := time.Now().Add(wait).After(until)
		for i, res := range s.svc.Submit(ctx, specs) {
			if !last && ctx.Err() == nil && busy(res.Err) {
				again, againAt = append(again, specs[i]), append(againAt, at[i])
				continue
			}
			done(at[i], res)
		}
		specs, at = again, againAt
		if len(specs) == 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		case <-s.closing:
			until = time.Time{} // one last try
		}
	}
}

// busy tells whether waiting a moment may help. A full disk is not that.
func busy(err error) bool {
	switch fault.KindOf(err) {
	case fault.Overloaded, fault.Unavailable, fault.Fenced, fault.Timeout:
		return true
	}
	return false
}

// lineWriter writes NDJSON in pieces that a client must take in time.
type lineWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	buf     bytes.Buffer
	begun   bool
	err     error // of the first failed write; everything after is dropped
}

func (o *lineWriter) add(v any) {
	if o.err != nil {
		return
	}
	enc := json.NewEncoder(&o.buf)
	enc.SetEscapeHTML(false)
	o.err = enc.Encode(v)
}

// flush sends what was added, the headers too if they were not.
func (o *lineWriter) flush() error {
	if o.err != nil {
		return o.err
	}
	if !o.begun {
		o.begun = true
		o.w.Header().Set("Content-Type", "application/x-ndjson")
		o.w.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold lines back
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.timeout))
	_, o.err = o.w.Write(o.buf.Bytes())
	o.buf.Reset()
	if o.err == nil {
		if err := o.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			o.err = err
		}
	}
	_ = o.rc.SetWriteDeadline(time.Time{})
	return o.err
}
