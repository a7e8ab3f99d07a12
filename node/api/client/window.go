package client

import (
	"io"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Bounds of the lines that were read and have no answer yet: they are kept to be sent
// again. They are above what a server holds of one stream, so that it never starves.
const (
	windowLines = 8192
	windowBytes = 32 << 20
)

// upload is one line to submit.
type upload struct {
	number  int // in the caller's input
	text    []byte
	made    bool          // its id was made here: if it existed, that was an earlier try
	refused *wire.Problem // it is not sent: the answer is known
}

// window holds the lines between the caller's input and the server's answers.
//
//	pending[:sent]   sent on this connection, the answer is on its way
//	pending[sent:]   to be sent
type window struct {
	mu      sync.Mutex
	changed *sync.Cond
	pending []upload
	bytes   int
	sent    int  // 0 <= sent <= len(pending)
	eof     bool // the input has ended; err says why unless it is io.EOF
	err     error
	stopped error // nobody wants it any more
	current *uploadBody
	since   time.Time // the first line waits for its answer; as of this connection
}

func newWindow() *window {
	w := &window{}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// fill reads the input until it ends or the window is stopped.
func (w *window) fill(next func() (upload, error)) {
	for {
		u, err := next()
		w.mu.Lock()
		if err != nil {
			w.eof = true
			if err != io.EOF {
				w.err = err
			}
		} else {
			for w.stopped == nil && (len(w.pending) >= windowLines || w.bytes > 0 && w.bytes+len(u.text) > windowBytes) {
				w.changed.Wait()
			}
			w.pending, w.bytes = append(w.pending, u), w.bytes+len(u.text)
			if w.since.IsZero() {
				w.since = time.Now()
			}
		}
		over := w.eof || w.stopped != nil
		w.changed.Broadcast()
		w.mu.Unlock()
		if over {
			return
		}
	}
}

func (w *window) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped == nil {
		w.stopped = err
	}
	w.changed.Broadcast()
}

// done tells whether every line of the input has its answer.
func (w *window) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.eof && len(w.pending) == 0
}

func (w *window) sourceErr() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		return nil
	}
	return fault.New(fault.Unknown, "client.submit", "input", "%w", w.err)
}

// pop takes the first line, to which an answer came.
func (w *window) pop() (upload, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending) == 0 {
		return upload{}, false
	}
	u := w.pending[0]
	w.pending[0] = upload{}
	w.pending, w.bytes, w.since = w.pending[1:], w.bytes-len(u.text), time.Time{}
	if len(w.pending) > 0 {
		w.since = time.Now()
	}
	if w.sent > 0 {
		w.sent--
	}
	w.changed.Broadcast()
	return u, true
}

// refusedNext waits for the first line and tells whether its answer is known.
func (w *window) refusedNext() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) == 0 && !w.eof && w.stopped == nil {
		w.changed.Wait()
	}
	return len(w.pending) > 0 && w.pending[0].refused != nil
}

// takeRefused gives the answers that are known already, up to the first line that the
// server has to answer.
func (w *window) takeRefused(take func(wire.Submitted) error) error {
	for w.refusedNext() {
		u, _ := w.pop()
		if err := take(wire.Submitted{Line: u.number, Error: u.refused}); err != nil {
			return err
		}
	}
	return nil
}

// answer gives the server's answer, which belongs to the first line that was sent.
func (w *window) answer(a wire.Submitted, take func(wire.Submitted) error) error {
	if err := w.takeRefused(take); err != nil {
		return err
	}
	u, ok := w.pop()
	if !ok {
		return fault.New(fault.Unknown, "client.submit", "", "the server answered a line that was not sent")
	}
	a.Line = u.number
	if u.made {
		a.Existed = false
	}
	return take(a)
}

// waits tells since when the first line waits for its answer; zero: none does.
func (w *window) waits() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.since
}

// body starts a new connection's request: all lines without an answer are to be sent.
func (w *window) body() *uploadBody {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = 0
	w.current, w.since = &uploadBody{w: w}, time.Time{}
	if len(w.pending) > 0 {
		w.since = time.Now()
	}
	w.changed.Broadcast()
	return w.current
}

// uploadBody is a request's body. Only the newest one sends anything.
type uploadBody struct {
	w    *window
	part []byte // rest of the line being sent
}

// Read fills p with as many lines as there are, and waits for one when there are none.
func (b *uploadBody) Read(p []byte) (n int, err error) {
	w := b.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if w.current != b {
			return 0, io.ErrClosedPipe
		}
		for n < len(p) {
			if len(b.part) == 0 {
				if w.sent == len(w.pending) {
					break
				}
				u := w.pending[w.sent]
				w.sent++
				if u.refused != nil {
					continue
				}
				b.part = append(append(make([]byte, 0, len(u.text)+1), u.text...), '\n')
			}
			k := copy(p[n:], b.part)
			b.part, n = b.part[k:], n+k
		}
		switch {
		case n > 0:
			return n, nil
		case w.stopped != nil:
			return 0, w.stopped
		case w.eof:
			return 0, io.EOF
		}
		w.changed.Wait()
	}
}

// Close ends a Read that is waiting.
func (b *uploadBody) Close() error {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if b.w.current == b {
		b.w.current = nil
	}
	b.w.changed.Broadcast()
	return nil
}
