package persistence

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/lni/dragonboat/v4"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// shard is the Journal of one shard: writes go through its Raft group, reads to the
// database.
type shard struct {
	n       int
	sm      *stateMachine
	db      *committer
	groups  *groups
	reserve *reserve
	flight  *atomic.Int64 // bytes of Appends in flight, of all shards
	limits  Options

	waiting chan waiting // Appends in flight, in the order of their proposal
	wg      sync.WaitGroup

	mu     sync.Mutex // keeps the order of waiting that of the proposals
	closed bool
}

// waiting is one Append that Raft has.
type waiting struct {
	rs     *dragonboat.RequestState
	writes []Write
	checks []error // by write, why it is not in the proposal; nil when all are
	bytes  int64
	done   func([]Outcome, error)
}

func newShard(n int, sm *stateMachine, s *store) *shard {
	h := &shard{n: n, sm: sm, db: s.db, groups: s.groups, reserve: s.reserve, flight: &s.flight, limits: s.opts,
		waiting: make(chan waiting, s.opts.InFlightCount)}
	h.wg.Go(h.answer)
	return h
}

// close refuses new Appends; those in flight are answered. Close the groups first:
// that ends every wait.
func (h *shard) close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.waiting)
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// Acquire raises the epoch. A try that loses against another one, or whose answer is lost, is
// repeated with the newest epoch until ctx ends.
func (h *shard) Acquire(ctx context.Context) (uint64, error) {
	const op = "journal.acquire"
	expect := h.sm.epoch.Load()
	for {
		if err := ctx.Err(); err != nil {
			return 0, &fault.Error{Op: op, Kind: fault.Timeout, Err: err}
		}
		r, err := h.acquire(ctx, expect)
		switch {
		case err == nil && r&0xff == didAcquire:
			return r >> 8, nil
		case err == nil:
			expect = r >> 8
		case !fault.KindOf(err).Retryable():
			return 0, err
		default:
			select {
			case <-time.After(tick * time.Millisecond):
			case <-ctx.Done():
				return 0, &fault.Error{Op: op, Kind: fault.Timeout, Err: err}
			}
			expect = h.sm.epoch.Load()
		}
	}
}

func (h *shard) acquire(ctx context.Context, expect uint64) (uint64, error) {
	timeout := h.limits.AcquireTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(end))
	}
	b := getBuffer()
	*b = appendAcquire(*b, expect)
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return 0, fault.New(fault.Invalid, "journal.acquire", "", "the store is closed")
	}
	rs, err := h.groups.propose(h.n, *b, timeout)
	putBuffer(b)
	if err != nil {
		return 0, err
	}
	r := <-rs.ResultC()
	rs.Release()
	return r.GetResult().Value, resultFault(r)
}

// Append checks, encodes and proposes on the caller's goroutine, which never waits; the
// shard's own goroutine answers.
func (h *shard) Append(epoch uint64, writes []Write, timeout time.Duration, done func([]Outcome, error)) {
	if err := CheckAppend(writes); err != nil {
		done(nil, err)
		return
	}
	var checks []error
	var skip []bool
	leave := func(i int, err error) {
		if checks == nil {
			checks, skip = make([]error, len(writes)), make([]bool, len(writes))
		}
		checks[i], skip[i] = err, true
	}
	updates, creates := 0, 0 // bytes
	for i := range writes {
		w := &writes[i]
		if err := w.Check(); err != nil {
			leave(i, err)
		} else if w.After == 0 {
			creates += w.Size()
		} else {
			updates += w.Size()
		}
	}
	refused, err := h.reserve.admit(updates, creates)
	if err != nil {
		done(nil, err)
		return
	}
	if refused != nil {
		for i := range writes {
			if writes[i].After == 0 && (checks == nil || checks[i] == nil) {
				leave(i, refused)
			}
		}
		if updates == 0 { // nothing is left, and the log takes room too
			out := make([]Outcome, len(writes))
			for i := range out {
				out[i].Err = checks[i]
			}
			done(out, nil)
			return
		}
	}
	b := getBuffer()
	*b = appendAppend(*b, epoch, writes, skip)
	w := waiting{writes: writes, checks: checks, bytes: int64(len(*b)), done: done}
	err = h.send(&w, *b, timeout)
	putBuffer(b)
	if err != nil {
		done(nil, err)
	}
}

// send proposes b and queues w for its answer.
func (h *shard) send(w *waiting, b []byte, timeout time.Duration) (err error) {
	const op = "journal.append"
	if n := h.flight.Add(w.bytes); n > int64(h.limits.InFlightBytes) {
		h.flight.Add(-w.bytes)
		return fault.New(fault.Overloaded, op, "", "InFlightBytes (%d) are waiting for Raft", h.limits.InFlightBytes)
	}
	defer func() {
		if err != nil {
			h.flight.Add(-w.bytes)
		}
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fault.New(fault.Unavailable, op, "", "the store is closed")
	}
	if len(h.waiting) == cap(h.waiting) {
		return fault.New(fault.Overloaded, op, "", "InFlightCount (%d) of the shard are waiting for Raft", cap(h.waiting))
	}
	if w.rs, err = h.groups.propose(h.n, b, timeout); err != nil {
		return err
	}
	h.waiting <- *w // has room: only this function adds, under mu
	return nil
}

// answer waits for each Append in order. One that times out holds back the answers
// behind it, at most for its own time.
func (h *shard) answer() {
	for w := range h.waiting {
		r := <-w.rs.ResultC()
		w.rs.Release()
		h.flight.Add(-w.bytes)
		w.done(h.outcomes(&w, r))
	}
}

// outcomes reads the state machine's result.
func (h *shard) outcomes(w *waiting, r dragonboat.RequestResult) ([]Outcome, error) {
	const op = "journal.append"
	if err := resultFault(r); err != nil {
		return nil, err
	}
	result := r.GetResult()
	out := make([]Outcome, len(w.writes))
	details := reader{b: result.Data}
	switch did := result.Value & 0xff; did {
	case didAppend, didMixed:
		for i := range out {
			key := w.writes[i].Key.String
			switch {
			case w.checks != nil && w.checks[i] != nil:
				out[i].Err = w.checks[i]
			case did == didAppend:
				out[i].Seq = w.writes[i].After + 1
			default:
				code := details.byte()
				out[i].Seq = details.uvarint()
				switch code {
				case codeDup:
					out[i].Dup = true
				case codeConflict:
					out[i].Err = fault.New(fault.Conflict, op, key(), "the journal is at %d, not at %d", out[i].Seq, w.writes[i].After)
				case codeCounters:
					out[i].Err = CountersFault(&w.writes[i])
				}
			}
		}
		if !details.bad {
			return out, nil
		}
	case didFence:
		return nil, fault.New(fault.Fenced, op, "", "shard %d: epoch %d is the current one", h.n, result.Value>>8)
	}
	return nil, fault.New(fault.Unknown, op, "", "shard %d: result %d", h.n, result.Value)
}

// Read returns snapshot and rows by point reads: a journal has few rows, and
// an iterator costs more than several of them.
func (h *shard) Read(key Key, after uint64) (Log, error) {
	var l Log
	if e := h.db.damage.Load(); e != nil {
		return l, *e
	}
	v, prefix := h.pin()
	defer v.close()
	journal := journalKey(prefix, key.Kind, key.ID)
	var x snapRow
	exists, err := v.get(snapKey(journal), func(b []byte) error {
		if !x.decode(b) {
			return h.sm.damaged("snapshot row of " + key.String())
		}
		if x.seq <= after {
			return nil
		}
		var err error
		l.SnapSeq = x.seq
		l.Snap, err = h.body(v, journal, slotSnapPiece, x.seq, x.body)
		return err
	})
	if err != nil {
		return Log{}, readFault(key, err)
	}
	if !exists {
		x.first = 1
	}
	l.Last = max(x.seq, after)
	for {
		next, data := l.Last+1, []byte(nil)
		exists, err := v.get(rowKey(journal, next), func(b []byte) (err error) {
			var row body
			if !row.decode(b) {
				return h.sm.damaged("row of " + key.String())
			}
			data, err = h.body(v, journal, slotRowPiece, next, row)
			return err
		})
		if err != nil {
			return Log{}, readFault(key, err)
		}
		if !exists {
			break
		}
		l.Last = next
		l.Rows = append(l.Rows, Row{Seq: next, Data: data})
	}
	if len(l.Rows) == 0 && after > x.seq { // is there a row after, or is the journal shorter?
		l.Last, err = h.lastUpTo(v, journal, x, after)
	}
	return l, readFault(key, err)
}

// lastUpTo returns the last sequence of a journal that has no rows after a number.
func (h *shard) lastUpTo(v view, journal []byte, x snapRow, after uint64) (uint64, error) {
	if after >= x.first {
		if found, err := v.get(rowKey(journal, after), func([]byte) error { return nil }); found || err != nil {
			return after, err
		}
	}
	r := rows{sm: h.sm, view: v}
	return r.last(journal, x), nil
}

// body copies a row's data, or joins its pieces.
func (h *shard) body(v view, journal []byte, slot byte, seq uint64, x body) ([]byte, error) {
	if x.pieces == 0 {
		return bytes.Clone(x.data), nil
	}
	data := make([]byte, 0, x.pieces*bodyMax)
	for part := range x.pieces {
		found, err := v.get(pieceKey(journal, slot, seq, part), func(b []byte) error {
			data = append(data, b...)
			return nil
		})
		if err == nil && !found {
			err = h.sm.damaged("body")
		}
		if err != nil {
			return nil, err
		}
	}
	return data, nil
}

// pin opens a view and tells the prefix of the generation that is current in it.
func (h *shard) pin() (view, []byte) {
	for {
		g := h.sm.generation.Load()
		v := h.db.view()
		if h.sm.generation.Load() == g { // so it was when the view was taken
			return v, dataPrefix(make([]byte, 0, 64), h.n, g)
		}
		v.close()
	}
}

// Scan walks the index at one transaction.
func (h *shard) Scan(index string, from, to []byte, f func(key, value []byte) bool) error {
	if e := h.db.damage.Load(); e != nil {
		return *e
	}
	v, prefix := h.pin()
	defer v.close()
	prefix = indexKey(prefix, index, nil)
	it := v.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: true, PrefetchSize: 128})
	defer it.Close()
	on := true
	for it.Seek(append(bytes.Clone(prefix), from...)); on && it.Valid(); it.Next() {
		key := it.Item().Key()[len(prefix):]
		if to != nil && bytes.Compare(key, to) >= 0 {
			break
		}
		if err := it.Item().Value(func(b []byte) error { on = f(key, b); return nil }); err != nil {
			return readFault(Key{Kind: "index", ID: index}, err)
		}
	}
	return nil
}

// Counters returns a copy.
func (h *shard) Counters() (map[string]int64, error) { return h.sm.count(), nil }

// readFault classes an error of reading: the database checks every block it reads.
func readFault(key Key, err error) error {
	if err == nil {
		return nil
	}
	if fault.KindOf(err) != fault.Unknown {
		return err
	}
	return (&fault.Error{Op: "journal.read", Key: key.String(), Kind: fault.Corrupt, Err: err}).WithRemedy(remedyCorrupt)
}
