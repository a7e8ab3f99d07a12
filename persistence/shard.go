package persistence

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

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
	leads   *leads
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
	reign  *reign
	writes []Write
	checks []error // by write, why it is not in the proposal; nil when all are
	bytes  int64
	done   func([]Outcome, error)
}

func newShard(n int, sm *stateMachine, s *store) *shard {
	h := &shard{n: n, sm: sm, db: s.db, groups: s.groups, leads: s.leads, reserve: s.reserve, flight: &s.flight, limits: s.opts,
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
		if h.groups.hosted(h.n) == 0 {
			return 0, noReplica(op, h.n)
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
	reign := h.leads.leading(h.n)
	if reign == nil {
		putBuffer(b)
		return 0, fault.New(fault.Unavailable, "journal.acquire", "", "this node does not lead shard %d", h.n)
	}
	rs, err := h.groups.propose(h.n, *b, timeout)
	putBuffer(b)
	if err != nil {
		return 0, err
	}
	r, err := h.result(rs, reign)
	return r.GetResult().Value, err
}

// result waits for how a proposal ended, and when it was applied until that is on disk.
func (h *shard) result(rs *dragonboat.RequestState, reign *reign) (dragonboat.RequestResult, error) {
	r, err := result(rs, reign)
	if err == nil && h.sm.settle() != nil {
		err = fault.New(fault.Unavailable, "journal.append", "", "the store cannot be written; the outcome is unknown")
	}
	return r, err
}

// result waits for how a proposal ended. Once the lead in which it was made is lost, the answer may never come.
func result(rs *dragonboat.RequestState, reign *reign) (r dragonboat.RequestResult, err error) {
	select {
	case r = <-rs.ResultC():
	case <-reign.ended:
		grace := time.NewTimer(time.Until(reign.until))
		defer grace.Stop()
		select {
		case r = <-rs.ResultC():
		case <-grace.C:
			return r, fault.New(fault.Unavailable, "journal.append", "", "the lead was lost; the outcome is unknown")
		}
	}
	rs.Release()
	return r, resultFault(r)
}

// Barrier asks the group's leader, which asks a quorum, up to where the log is committed. A
// question that is lost, or comes before there is a leader, is asked again until ctx ends.
func (h *shard) Barrier(ctx context.Context) (epoch uint64, err error) {
	const op = "journal.barrier"
	ctx, cancel := context.WithTimeout(ctx, barrierMax)
	defer cancel()
	for {
		if h.groups.hosted(h.n) == 0 {
			return 0, noReplica(op, h.n)
		}
		again, err := h.barrier(ctx)
		if err == nil {
			return h.sm.epoch.Load(), nil
		}
		if ctx.Err() != nil {
			return 0, fault.New(fault.Timeout, op, "", "shard %d: no quorum in time: %w", h.n, err)
		}
		if !again {
			return 0, &fault.Error{Op: op, Kind: fault.Unavailable, Err: err}
		}
		select {
		case <-time.After(tick * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

const (
	barrierMax = 10 * time.Second       // of one Barrier without a sooner deadline
	barrierTry = 500 * time.Millisecond // of one question
)

func (h *shard) barrier(ctx context.Context) (again bool, err error) {
	rs, err := h.groups.host.ReadIndex(group(h.n), barrierTry)
	if err != nil {
		return dragonboat.IsTempError(err) && !errors.Is(err, dragonboat.ErrClosed), err
	}
	select {
	case r := <-rs.ResultC():
		rs.Release()
		if r.Completed() {
			return false, h.sm.settle()
		}
		return !r.Terminated(), errors.New("the leader did not answer")
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Append checks, encodes and proposes on the caller's goroutine, which never waits; the
// shard's own goroutine answers.
func (h *shard) Append(epoch uint64, writes []Write, timeout time.Duration, done func([]Outcome, error)) {
	if err := CheckAppend(writes); err != nil {
		done(nil, err)
		return
	}
	reign := h.leads.leading(h.n)
	if reign == nil {
		done(nil, h.notLeading("journal.append"))
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
	w := waiting{reign: reign, writes: writes, checks: checks, bytes: int64(len(*b)), done: done}
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
		r, err := h.result(w.rs, w.reign)
		h.flight.Add(-w.bytes)
		if err != nil {
			w.done(nil, err)
			continue
		}
		w.done(h.outcomes(&w, r))
	}
}

func (h *shard) notLeading(op string) error {
	if h.groups.hosted(h.n) == 0 {
		return noReplica(op, h.n)
	}
	return fault.New(fault.Unavailable, op, "", "this node does not lead shard %d: nothing was applied", h.n)
}

// outcomes reads the state machine's result.
func (h *shard) outcomes(w *waiting, r dragonboat.RequestResult) ([]Outcome, error) {
	const op = "journal.append"
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
				out[i].Seq = w.writes[i].then()
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
				case codeLarge:
					out[i].Err = EraseFault(&w.writes[i])
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
