// Package persisttest is what every journal must do: a model of one shard in memory
// (Memory, Store), for other packages' tests, and a conformance suite that
// the model and the real store both pass.
package persisttest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Memory is a Journal without a disk: it does at once what the real one does
// through Raft, and keeps nothing after the process. Set the hooks before use.
type Memory struct {
	// FailAppend is asked before Append number n (1, 2, …) is applied. An error
	// is the answer of that Append, and nothing was applied. It runs where nothing else
	// waits: a test may block in it to hold an answer back.
	FailAppend func(n int) error
	// LoseAppend is asked after Append number n was applied. An error is the answer
	// then, as when the real journal times out: the outcome is unknown to the caller.
	LoseAppend func(n int) error
	// FailCreate is asked for each Write that creates a journal. An error is the Outcome of that
	// Write alone, as when the disk reserve is touched.
	FailCreate func(persistence.Key) error

	mu       sync.Mutex
	n        int      // Appends handed to the hooks so far
	queue    []func() // Appends that wait, in order
	draining bool
	state
}

// state is everything a shard knows; guarded by Memory.mu.
type state struct {
	epoch    uint64
	journals map[persistence.Key]*journal
	index    map[string]map[string][]byte // name → key → value
	count    map[string]int64
}

// journal is one journal; snapSeq <= last, rows holds some of 1..last.
type journal struct {
	last, snapSeq uint64
	truncated     uint64 // rows up to this one are gone
	snap          []byte
	snapWrite     *persistence.Write // the write that brought the snapshot, to know it again
	rows          map[uint64]persistence.Write
}

// NewMemory returns an empty shard with epoch 0.
func NewMemory() *Memory {
	return &Memory{state: state{
		journals: map[persistence.Key]*journal{},
		index:    map[string]map[string][]byte{},
		count:    map[string]int64{},
	}}
}

// Acquire raises the epoch.
func (m *Memory) Acquire(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, &fault.Error{Op: "journal.acquire", Kind: fault.Timeout, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	return m.epoch, nil
}

// Epoch returns the current epoch.
func (m *Memory) Epoch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// Appends returns how many Appends were answered or are being answered.
func (m *Memory) Appends() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// Append applies the writes on another goroutine, Appends in the order of their calls.
// The timeout is not watched: nothing here takes time, except a hook.
func (m *Memory) Append(epoch uint64, writes []persistence.Write, _ time.Duration, done func([]persistence.Outcome, error)) {
	own := make([]persistence.Write, len(writes))
	for i := range writes {
		own[i] = clone(writes[i])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, func() { done(m.append(epoch, own)) })
	if !m.draining {
		m.draining = true
		go m.drain()
	}
}

// drain runs the queue until it is empty; it then ends, so there is nothing to close.
func (m *Memory) drain() {
	for {
		m.mu.Lock()
		if len(m.queue) == 0 {
			m.draining = false
			m.mu.Unlock()
			return
		}
		f := m.queue[0]
		m.queue = m.queue[1:]
		m.mu.Unlock()
		f()
	}
}

func (m *Memory) append(epoch uint64, writes []persistence.Write) ([]persistence.Outcome, error) {
	m.mu.Lock()
	m.n++
	n := m.n
	m.mu.Unlock()
	if err := persistence.CheckAppend(writes); err != nil {
		return nil, err
	}
	if m.FailAppend != nil {
		if err := m.FailAppend(n); err != nil {
			return nil, err
		}
	}
	out, err := m.apply(epoch, writes)
	if err == nil && m.LoseAppend != nil {
		if err := m.LoseAppend(n); err != nil {
			return nil, err
		}
	}
	return out, err
}

// apply is the whole rule of one Append, on the state at that moment.
func (m *Memory) apply(epoch uint64, writes []persistence.Write) ([]persistence.Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.epoch {
		return nil, fault.New(fault.Fenced, "journal.append", "", "epoch %d is not the current one, %d", epoch, m.epoch)
	}
	out := make([]persistence.Outcome, len(writes))
	for i := range writes {
		w := &writes[i]
		if w.After == 0 && m.FailCreate != nil && w.Check() == nil {
			if err := m.FailCreate(w.Key); err != nil {
				out[i].Err = err
				continue
			}
		}
		if w.Erase && snaps(writes[:i], w) && m.journals[w.Key] != nil && m.journals[w.Key].last == w.After {
			out[i] = persistence.Outcome{Seq: w.After, Err: persistence.EraseFault(w)}
			continue
		}
		out[i] = m.write(w)
	}
	return out, nil
}

// snaps tells whether one of the writes before w makes a snapshot of its journal.
func snaps(before []persistence.Write, w *persistence.Write) bool {
	return slices.ContainsFunc(before, func(x persistence.Write) bool {
		return x.Key == w.Key && x.Snap != nil
	})
}

func (s *state) write(w *persistence.Write) persistence.Outcome {
	j := s.journals[w.Key]
	last := uint64(0)
	if j != nil {
		last = j.last
	}
	if err := w.Check(); err != nil {
		return persistence.Outcome{Seq: last, Err: err}
	}
	if w.Erase && last == 0 {
		return persistence.Outcome{Dup: true}
	}
	if last != w.After {
		if j != nil && j.knows(w) {
			return persistence.Outcome{Seq: last, Dup: true}
		}
		return persistence.Outcome{Seq: last, Err: fault.New(fault.Conflict, "journal.append", w.Key.String(),
			"the journal is at %d, not at %d", last, w.After)}
	}
	if w.Erase && !j.erasable() {
		return persistence.Outcome{Seq: last, Err: persistence.EraseFault(w)}
	}
	if !s.countersFit(w) {
		return persistence.Outcome{Seq: last, Err: persistence.CountersFault(w)}
	}
	if w.Erase {
		delete(s.journals, w.Key)
		s.move(w)
		return persistence.Outcome{}
	}
	if j == nil {
		j = &journal{rows: map[uint64]persistence.Write{}}
		s.journals[w.Key] = j
	}
	j.add(w)
	s.move(w)
	return persistence.Outcome{Seq: j.last}
}

// move changes the index rows and counters.
func (s *state) move(w *persistence.Write) {
	for _, x := range w.Index {
		s.put(x)
	}
	for _, c := range w.Count {
		if s.count[c.Name] += c.Delta; s.count[c.Name] == 0 {
			delete(s.count, c.Name)
		}
	}
}

// countersFit tells whether the shard has room for the counters that are not zero after w.
func (s *state) countersFit(w *persistence.Write) bool {
	after := maps.Clone(s.count)
	for _, c := range w.Count {
		if after[c.Name] += c.Delta; after[c.Name] == 0 {
			delete(after, c.Name)
		}
	}
	limit := persistence.CountersMax
	if w.After == 0 {
		limit = persistence.CountersCreateMax
	}
	return len(after) <= max(limit, len(s.count))
}

func (s *state) put(x persistence.Index) {
	rows := s.index[x.Name]
	if x.Delete {
		delete(rows, string(x.Key))
		return
	}
	if rows == nil {
		rows = map[string][]byte{}
		s.index[x.Name] = rows
	}
	rows[string(x.Key)] = x.Value
}

// knows tells whether w is the write that made the row, or the snapshot, After+1.
func (j *journal) knows(w *persistence.Write) bool {
	if old, ok := j.rows[w.After+1]; ok {
		return equal(&old, w)
	}
	return j.snapSeq == w.After+1 && j.snapWrite != nil && equal(j.snapWrite, w)
}

// erasable tells whether one Write may erase what is there.
func (j *journal) erasable() bool {
	rows := uint64(0)
	for seq := j.truncated + 1; seq <= j.last; seq++ {
		if rows++; len(j.rows[seq].Data) > persistence.EraseBody {
			return false
		}
	}
	return rows <= persistence.EraseRows && len(j.snap) <= persistence.EraseBody
}

func (j *journal) add(w *persistence.Write) {
	j.last++
	j.rows[j.last] = *w
	if w.Snap == nil {
		return
	}
	j.snapSeq, j.snap, j.snapWrite = j.last, w.Snap.State, w
	if w.Snap.Truncate {
		j.truncated = j.last
		clear(j.rows)
	}
}

// Read returns a copy of what the journal holds.
func (m *Memory) Read(key persistence.Key, after uint64) (persistence.Log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var l persistence.Log
	j := m.journals[key]
	if j == nil {
		return l, nil
	}
	l.Last = j.last
	if j.snapSeq > after {
		l.SnapSeq, l.Snap = j.snapSeq, bytes.Clone(j.snap)
		after = j.snapSeq
	}
	for seq := after + 1; seq <= j.last; seq++ {
		l.Rows = append(l.Rows, persistence.Row{Seq: seq, Data: bytes.Clone(j.rows[seq].Data)})
	}
	return l, nil
}

// Scan walks a copy taken at the call, so f may use the journal.
func (m *Memory) Scan(index string, from, to []byte, f func(key, value []byte) bool) error {
	m.mu.Lock()
	rows := maps.Clone(m.index[index])
	m.mu.Unlock()
	keys := slices.Collect(maps.Keys(rows))
	sort.Strings(keys)
	for _, k := range keys {
		if k < string(from) || to != nil && k >= string(to) {
			continue
		}
		if !f([]byte(k), bytes.Clone(rows[k])) {
			break
		}
	}
	return nil
}

// Counters returns a copy.
func (m *Memory) Counters() (map[string]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.count), nil
}

// clone copies everything that w refers to.
func clone(w persistence.Write) persistence.Write {
	w.Data = bytes.Clone(w.Data)
	w.Index = slices.Clone(w.Index)
	for i := range w.Index {
		w.Index[i].Key = bytes.Clone(w.Index[i].Key)
		w.Index[i].Value = bytes.Clone(w.Index[i].Value)
	}
	w.Count = slices.Clone(w.Count)
	if w.Snap != nil {
		w.Snap = &persistence.Snapshot{State: bytes.Clone(w.Snap.State), Truncate: w.Snap.Truncate}
	}
	return w
}

// equal compares what the log would carry; nil and empty are the same there.
func equal(a, b *persistence.Write) bool {
	if (a.Snap == nil) != (b.Snap == nil) ||
		a.Snap != nil && (a.Snap.Truncate != b.Snap.Truncate || !bytes.Equal(a.Snap.State, b.Snap.State)) {
		return false
	}
	return a.Key == b.Key && a.After == b.After && a.Erase == b.Erase && bytes.Equal(a.Data, b.Data) &&
		slices.Equal(a.Count, b.Count) &&
		slices.EqualFunc(a.Index, b.Index, func(x, y persistence.Index) bool {
			return x.Name == y.Name && x.Delete == y.Delete && bytes.Equal(x.Key, y.Key) && bytes.Equal(x.Value, y.Value)
		})
}

// Barrier has nothing to wait for.
func (m *Memory) Barrier(context.Context) (uint64, error) { return m.Epoch(), nil }
