package persistence

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// stateMachine applies the commands of one shard to Badger. Its outcome depends on
// the log alone: no clock, no randomness, no map order.
//
//	Raft entries ─► decode ─► epoch? ─► each write: sequence? ─► batch ─► committer
//	                            └ Fenced       └ Conflict, Dup, Invalid
//
// The applied index moves in the same transaction as the data of its entry. When an entry
// was applied but the answer is lost, its writer repeats it and gets Dup.
type stateMachine struct {
	shard int
	db    *committer
	grown func(shard int, bytes, applied uint64) // tells of log bytes applied; may be nil
	swept func(shard int)                        // asks for a sweep: a generation was replaced; may be nil
	// follows tells that this node does not lead the shard, so that commits may be put off, see settle.go; nil: none are.
	follows func(shard int) bool
	putOff  func() // tells that one was; set with follows

	lock    sync.Mutex // of all down to broken: Update and its siblings, which dragonboat never runs side by side, and settle
	broken  error      // of Update, a commit or a load: what is in memory is of no use any more
	grew    uint64     // log bytes applied and not told yet
	meta    meta
	prefix  []byte
	heads   heads
	flushes uint64 // number of the batch being filled; the first is 1
	writes  int    // in the batch; <= heads.size, so heads knows every journal it touches
	batch   batch
	view    view             // see reading
	room    int              // bytes the batch has left beside the entry being applied
	dirty   map[string]int64 // counters moved by the batch, with their new value
	live    int              // counters that are not zero, with the batch's changes

	dirtySize int       // bytes of their rows
	cleanup   []cleanup // rows to delete once the batch is on disk
	cmd       command

	pending    atomic.Bool   // something applied is not on disk yet; changed under lock
	loading    sync.Mutex    // held while a generation is loaded or old ones are deleted; taken after lock
	generation atomic.Uint32 // current one, for readers
	epoch      atomic.Uint64 // newest applied, for Acquire
	applied    atomic.Uint64 // index of the last entry on disk
	mu         sync.Mutex
	counters   map[string]int64 // as of the last batch on disk
}

// cleanup is a range of rows and pieces that a snapshot made invisible.
type cleanup struct {
	journal     []byte
	first, last uint64 // rows; none when first > last
	snapSeq     uint64 // replaced snapshot, and
	snapPieces  int    // how many pieces it has
}

// What an entry did, in the low byte of sm.Result.Value.
const (
	didNothing = iota // an entry without a command
	didAppend         // all writes applied: no details
	didMixed          // details in Data, see outcome codes
	didFence          // the epoch was not the current one
	didAcquire        // the epoch was raised
)

// Outcome codes in Data of didMixed: code byte and sequence for each write.
const (
	codeOK = iota
	codeDup
	codeConflict
	codeCounters
	codeLarge
)

func newStateMachine(shard int, db *committer, headsMax int, grown func(int, uint64, uint64)) *stateMachine {
	return &stateMachine{shard: shard, db: db, grown: grown, heads: newHeads(headsMax),
		flushes: 1, dirty: map[string]int64{}, counters: map[string]int64{}}
}

// Open tells Raft what the store has loaded already: the log is replayed after that index.
func (s *stateMachine) Open(<-chan struct{}) (uint64, error) { return s.meta.applied, nil }

// load reads meta and counters of the current generation.
func (s *stateMachine) load() error {
	v := s.db.view()
	defer v.close()
	m, err := readMeta(v, s.shard)
	if err != nil {
		return err
	}
	counters := map[string]int64{}
	prefix := append(dataPrefix(nil, s.shard, m.generation), spaceCounter)
	it := v.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: true, PrefetchSize: 64})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		name := string(it.Item().Key()[len(prefix):])
		if err := it.Item().Value(func(b []byte) error {
			if len(b) != 8 {
				return s.damaged("counter " + name)
			}
			counters[name] = int64(binary.BigEndian.Uint64(b))
			return nil
		}); err != nil {
			return err
		}
	}
	s.become(m, counters)
	return nil
}

// reset leaves the state of a replica that was dropped behind: the next one begins with nothing, as
// entry 0. The rows are swept later; nobody sees them. No replica runs now.
func (s *stateMachine) reset() error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.pending.Store(false)
	s.grew = 0
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.view.Txn != nil {
		s.view.close()
		s.view = view{}
	}
	s.batch.reset()
	s.cleanup, s.writes, s.dirtySize = nil, 0, 0
	clear(s.dirty)
	var b batch
	b.set(metaKey(s.shard), meta{generation: s.generation.Load() + 1}.encode())
	if err := s.db.commit(&b); err != nil {
		return err
	}
	return s.load()
}

// become takes over a state that is on disk.
func (s *stateMachine) become(m meta, counters map[string]int64) {
	s.meta, s.prefix = m, dataPrefix(nil, s.shard, m.generation)
	s.heads.clear()
	s.live = 0
	for _, n := range counters {
		s.live += live(n)
	}
	s.generation.Store(m.generation)
	s.epoch.Store(m.epoch)
	s.applied.Store(m.applied)
	s.mu.Lock()
	s.counters = counters
	s.mu.Unlock()
}

func readMeta(v view, shard int) (meta, error) {
	m := meta{generation: 1}
	_, err := v.get(metaKey(shard), func(b []byte) error {
		if !m.decode(b) {
			return damaged(shard, "meta row")
		}
		return nil
	})
	return m, err
}

func damaged(shard int, what string) error {
	return fault.New(fault.Corrupt, "store.read", "", "shard %d: %s does not decode", shard, what).
		WithRemedy(remedyCorrupt)
}

func (s *stateMachine) damaged(what string) error { return damaged(s.shard, what) }

// Update applies entries; on disk they are when it returns, or a moment later, see settle.go. An error, of the disk or of
// damaged bytes, ends the process: this replica can not go on.
func (s *stateMachine) Update(entries []sm.Entry) ([]sm.Entry, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	for i := range entries {
		if s.broken = s.enter(&entries[i]); s.broken != nil {
			return nil, s.broken
		}
	}
	if s.later() {
		s.pending.Store(true)
		s.putOff()
		return entries, nil
	}
	return entries, s.commitAll()
}

// enter applies one entry to the batch.
func (s *stateMachine) enter(e *sm.Entry) (err error) {
	if e.Index <= s.meta.applied {
		return fault.New(fault.Corrupt, "statemachine.update", "", "shard %d: entry %d comes after %d", s.shard, e.Index, s.meta.applied)
	}
	if e.Result, err = s.apply(e.Cmd); err != nil {
		return err
	}
	s.grew += uint64(len(e.Cmd)) + 64
	s.meta.applied = e.Index
	return nil
}

func (s *stateMachine) apply(cmd []byte) (sm.Result, error) {
	if len(cmd) == 0 {
		return sm.Result{Value: didNothing}, nil
	}
	if err := s.cmd.decode(cmd); err != nil {
		return sm.Result{}, err
	}
	if s.cmd.epoch != s.meta.epoch {
		return sm.Result{Value: s.meta.epoch<<8 | didFence}, nil
	}
	if s.cmd.kind == kindAcquire {
		s.meta.epoch++
		return sm.Result{Value: s.meta.epoch<<8 | didAcquire}, nil
	}
	cost, again := 0, false // again: it erases what the batch has something of, see erase
	for i := range s.cmd.writes {
		cost += s.cmd.writes[i].cost()
		again = again || s.cmd.writes[i].erase && s.touched(&s.cmd.writes[i])
	}
	s.writes += len(s.cmd.writes)
	if again || s.size()+cost > txnBytes-txnBytes/64 || s.batch.rows()+len(s.dirty)+cost/rowCost > txnRows || s.writes > s.heads.size {
		if err := s.flush(); err != nil { // with the applied index of the entry before
			return sm.Result{}, err
		}
		s.writes = len(s.cmd.writes)
	}
	s.room = min(txnBytes-s.size(), (txnRows-s.batch.rows()-len(s.dirty))*rowCost) - cost - txnBytes/64
	var mixed []byte
	for i := range s.cmd.writes {
		code, seq, err := s.write(&s.cmd.writes[i])
		if err != nil {
			return sm.Result{}, err
		}
		if code != codeOK && mixed == nil {
			mixed = make([]byte, 0, len(s.cmd.writes)*4)
			for j := range i {
				mixed = binary.AppendUvarint(append(mixed, codeOK), s.cmd.writes[j].then())
			}
		}
		if mixed != nil {
			mixed = binary.AppendUvarint(append(mixed, code), seq)
		}
	}
	if mixed != nil {
		return sm.Result{Value: didMixed, Data: mixed}, nil
	}
	return sm.Result{Value: didAppend}, nil
}

// size is what the batch takes of a transaction with the counters it moved.
func (s *stateMachine) size() int { return s.batch.size + s.dirtySize }

// flush commits the batch together with the applied index and then deletes what it
// made invisible.
func (s *stateMachine) flush() error {
	s.batch.set(metaKey(s.shard), s.meta.encode())
	for name, n := range s.dirty { // rows of one transaction: their order means nothing
		if k := counterKey(s.prefix, name); n == 0 {
			s.batch.delete(k)
		} else {
			s.batch.set(k, binary.BigEndian.AppendUint64(nil, uint64(n)))
		}
	}
	if err := s.commit(); err != nil {
		return err
	}
	s.flushes++
	s.writes = 0
	s.epoch.Store(s.meta.epoch)
	s.applied.Store(s.meta.applied)
	if len(s.dirty) > 0 {
		s.mu.Lock()
		for name, n := range s.dirty {
			if n == 0 {
				delete(s.counters, name)
			} else {
				s.counters[name] = n
			}
		}
		s.mu.Unlock()
		clear(s.dirty)
		s.dirtySize = 0
	}
	return s.clean()
}

// clean deletes the invisible rows that had no room in the batch, in as many transactions
// as it takes. What a crash leaves of them stays, but stays invisible.
func (s *stateMachine) clean() error {
	for _, x := range s.cleanup {
		for seq := x.first; seq <= x.last; seq++ {
			pieces, err := rows{sm: s, view: s.reading()}.pieces(rowKey(x.journal, seq))
			if err != nil {
				return err
			}
			if seq == 1 {
				s.batch.set(rowKey(x.journal, 1), emptied)
			} else if err := s.drop(rowKey(x.journal, seq)); err != nil {
				return err
			}
			for part := range pieces {
				if err := s.drop(pieceKey(x.journal, slotRowPiece, seq, part)); err != nil {
					return err
				}
			}
		}
		for part := range x.snapPieces {
			if err := s.drop(pieceKey(x.journal, slotSnapPiece, x.snapSeq, part)); err != nil {
				return err
			}
		}
	}
	s.cleanup = s.cleanup[:0]
	if s.batch.rows() == 0 {
		if s.view.Txn != nil {
			s.view.close()
			s.view = view{}
		}
		return nil
	}
	return s.commit()
}

// reading returns a view that sees all this shard has on disk. It lives until the next
// commit: only this state machine writes what it reads.
func (s *stateMachine) reading() view {
	if s.view.Txn == nil {
		s.view = s.db.view()
	}
	return s.view
}

// commit writes the batch and ends the view.
func (s *stateMachine) commit() error {
	if s.view.Txn != nil {
		s.view.close()
		s.view = view{}
	}
	err := s.db.commit(&s.batch)
	s.batch.reset()
	return err
}

func (s *stateMachine) drop(key []byte) error {
	s.batch.delete(key)
	if s.batch.rows() < txnRows/4 && s.batch.size < txnBytes/2 {
		return nil
	}
	return s.commit()
}

// Sync is called before Raft cuts its log: what it drops must be on disk here.
func (s *stateMachine) Sync() error { return s.settle() }

// Close leaves the database to the store. What can not be settled any more is in the log.
func (s *stateMachine) Close() error {
	_ = s.settle()
	return nil
}

// Lookup is not used: reads go to the database directly.
func (s *stateMachine) Lookup(any) (any, error) { return nil, nil }

// count returns a copy of the counters.
func (s *stateMachine) count() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string]int64, len(s.counters))
	for k, v := range s.counters {
		m[k] = v
	}
	return m
}

var _ sm.IOnDiskStateMachine = (*stateMachine)(nil)
