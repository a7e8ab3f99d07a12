package persistence

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"github.com/dgraph-io/badger/v4"
)

// write applies one write to the batch, or says why not; seq is the journal's last
// sequence after it.
//
// Where a journal stands is known from heads, or from at most three point reads: rows
// first..last exist without a gap, so when row n exists and n+1 does not, n is the last. Row 1
// stays when a snapshot truncates the journal, emptied: it says that the journal exists.
func (s *stateMachine) write(w *wireWrite) (code byte, seq uint64, err error) {
	if w.erase {
		return s.erase(w)
	}
	journal := journalKey(s.prefix, w.kind, w.id)
	hash := xxhash.Sum64(w.raw)
	next := w.after + 1

	known, ok := s.heads.get(journal)
	snap := snapRow{first: 1}
	var r rows
	if !ok || known.seq != w.after || w.hasSnap {
		r = rows{sm: s, view: s.reading()}
		if ok && known.flush == s.flushes {
			r.batch = &s.batch // written since the last flush: the batch knows better
		}
		created := !ok && w.after == 0 // then row 1 alone tells, which every journal has
		if created {
			if exists, err := r.get(rowKey(journal, 1), func([]byte) error { return nil }); err != nil {
				return 0, 0, err
			} else if exists {
				created = false
			}
		}
		if !created {
			if snap, err = r.snapshot(journal); err != nil {
				return 0, 0, err
			}
		}
		if !created && (!ok || known.seq != w.after) {
			fits, dup, err := r.compare(journal, snap, next, hash)
			if err != nil {
				return 0, 0, err
			}
			if !fits {
				if !ok {
					known = head{seq: r.last(journal, snap), flush: s.flushes - 1}
					s.heads.put(journal, known)
				}
				if dup {
					return codeDup, known.seq, nil
				}
				return codeConflict, known.seq, nil
			}
		}
	}
	if !s.countersFit(w) {
		return codeCounters, w.after, nil
	}
	if err := s.put(w, journal, hash, snap, r); err != nil {
		return 0, 0, err
	}
	s.heads.put(journal, head{seq: next, flush: s.flushes})
	return codeOK, next, nil
}

// rows reads one journal as of the newest write: the batch, where one is set, then the
// database.
type rows struct {
	sm    *stateMachine
	view  view
	batch *batch
}

func (r rows) get(key []byte, f func([]byte) error) (bool, error) {
	if r.batch != nil {
		if op := r.batch.find(key); op != nil {
			if op.del {
				return false, nil
			}
			return true, f(op.value)
		}
	}
	return r.view.get(key, f)
}

// snapshot reads the snapshot's row; without one, rows start at 1.
func (r rows) snapshot(journal []byte) (snapRow, error) {
	x := snapRow{first: 1}
	_, err := r.get(snapKey(journal), func(b []byte) error {
		if !x.decode(b) {
			return r.sm.damaged("snapshot row")
		}
		x.data = nil // lent
		return nil
	})
	return x, err
}

// compare tells whether row next is the one to come, and if not, whether the write with
// this hash made it.
func (r rows) compare(journal []byte, snap snapRow, next, hash uint64) (fits, dup bool, err error) {
	if next < snap.first {
		return false, next == snap.seq && snap.hash == hash, nil
	}
	exists, err := r.get(rowKey(journal, next), func(b []byte) error {
		var x body
		if !x.decode(b) {
			return r.sm.damaged("row")
		}
		dup = x.hash == hash
		return nil
	})
	if err != nil || exists {
		return false, dup, err
	}
	if next == snap.first { // no rows at all
		return true, false, nil
	}
	fits, err = r.get(rowKey(journal, next-1), func([]byte) error { return nil })
	return fits, false, err
}

// last seeks the last row of a journal that the batch does not touch.
func (r rows) last(journal []byte, snap snapRow) uint64 {
	prefix := append(bytes.Clone(journal), slotRow)
	it := r.view.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: true})
	defer it.Close()
	it.Seek(append(prefix, 0xff))
	if !it.Valid() {
		return snap.first - 1
	}
	key := it.Item().Key()
	return max(binary.BigEndian.Uint64(key[len(key)-8:]), snap.first-1)
}

// countersFit keeps the shard within CountersMax, and a create within CountersCreateMax. It
// judges by the values after the write: a counter that it takes to zero makes room for another.
// A write that adds none always fits.
func (s *stateMachine) countersFit(w *wireWrite) bool {
	limit := CountersMax
	if w.after == 0 {
		limit = CountersCreateMax
	}
	if s.live+len(w.count) <= limit {
		return true
	}
	deltas := make(map[string]int64, len(w.count)) // a name may come twice
	for i := range w.count {
		deltas[string(w.count[i].name)] += w.count[i].delta
	}
	added := 0
	for name, delta := range deltas { // a sum: the order means nothing
		before, _ := s.counter([]byte(name))
		added += live(before+delta) - live(before)
	}
	return added <= 0 || s.live+added <= limit
}

// live counts a counter's value against CountersMax.
func live(n int64) int {
	if n == 0 {
		return 0
	}
	return 1
}

// counter returns the value with the batch's changes; ok is false when it is zero.
func (s *stateMachine) counter(name []byte) (n int64, ok bool) {
	if n, ok = s.dirty[string(name)]; ok {
		return n, n != 0
	}
	n, ok = s.counters[string(name)] // only Update changes the map, and this is Update
	return n, ok
}

// put adds the rows of an accepted write to the batch. r is set when w has a snapshot.
func (s *stateMachine) put(w *wireWrite, journal []byte, hash uint64, snap snapRow, r rows) error {
	seq := w.after + 1
	if !w.truncate {
		row, err := s.body(w, journal, slotRowPiece, hash, w.data)
		if err != nil {
			return err
		}
		s.batch.set(rowKey(journal, seq), row.encode(make([]byte, 0, len(row.data)+10)))
	} else if w.after == 0 {
		s.batch.set(rowKey(journal, 1), body{hash: hash}.encode(nil))
	}
	if w.hasSnap {
		state, err := s.body(w, journal, slotSnapPiece, hash, w.snap)
		if err != nil {
			return err
		}
		gone := cleanup{journal: journal, first: 1, snapSeq: snap.seq, snapPieces: snap.pieces}
		x := snapRow{seq: seq, first: snap.first, body: state}
		if w.truncate {
			x.first = seq + 1
			gone.first, gone.last = snap.first, w.after
		}
		if err := s.forget(gone, r); err != nil {
			return err
		}
		s.batch.set(snapKey(journal), x.encode(make([]byte, 0, len(state.data)+26)))
	}
	s.move(w)
	return nil
}

// move adds the index rows and counters of an accepted write to the batch.
func (s *stateMachine) move(w *wireWrite) {
	for i := range w.index {
		if x := &w.index[i]; x.del {
			s.batch.delete(indexKey(s.prefix, x.name, x.key))
		} else {
			s.batch.set(indexKey(s.prefix, x.name, x.key), bytes.Clone(x.value))
		}
	}
	for i := range w.count {
		n, _ := s.counter(w.count[i].name)
		if _, ok := s.dirty[string(w.count[i].name)]; !ok {
			s.dirtySize += dataPrefixLen + len(w.count[i].name) + 32
		}
		s.dirty[string(w.count[i].name)] = n + w.count[i].delta
		s.live += live(n+w.count[i].delta) - live(n)
	}
}

// forget deletes what a snapshot made invisible: in this batch while there is room, and
// after it what is left.
func (s *stateMachine) forget(gone cleanup, r rows) error {
	drop := func(key []byte) {
		s.batch.delete(key)
		s.room -= len(key) + rowCost
	}
	for ; gone.first <= gone.last && s.room > KeyMax*4; gone.first++ {
		key := rowKey(gone.journal, gone.first)
		pieces, err := r.pieces(key)
		if err != nil {
			return err
		}
		if pieces*(len(key)+4+rowCost) > s.room-KeyMax*4 {
			break
		}
		for part := range pieces {
			drop(pieceKey(gone.journal, slotRowPiece, gone.first, part))
		}
		if gone.first == 1 {
			s.batch.set(key, emptied)
			s.room -= len(key) + rowCost
		} else {
			drop(key)
		}
	}
	for ; gone.snapPieces > 0 && s.room > KeyMax*4; gone.snapPieces-- {
		drop(pieceKey(gone.journal, slotSnapPiece, gone.snapSeq, gone.snapPieces-1))
	}
	if gone.first <= gone.last || gone.snapPieces > 0 {
		s.cleanup = append(s.cleanup, gone)
	}
	return nil
}

// emptied is the value of row 1 of a journal that was truncated.
var emptied = body{}.encode(nil)

// pieces returns how many pieces the row has.
func (r rows) pieces(row []byte) (n int, err error) {
	_, err = r.get(row, func(b []byte) error {
		var x body
		if !x.decode(b) {
			return r.sm.damaged("row")
		}
		n = x.pieces
		return nil
	})
	return n, err
}

// body makes the value of a row of w. The pieces of a body over bodyMax go to disk at once: nothing
// refers to them before the row does, and a replay writes the same ones again.
func (s *stateMachine) body(w *wireWrite, journal []byte, slot byte, hash uint64, data []byte) (body, error) {
	size := pieceSize(len(data), w.name())
	if size == 0 {
		return body{hash: hash, data: data}, nil
	}
	var own batch
	b, atOnce := &s.batch, len(data) > bodyMax
	if atOnce {
		b = &own
	}
	parts := 0
	for ; len(data) > 0; parts++ {
		piece := data[:min(len(data), size)]
		data = data[len(piece):]
		if atOnce && b.size+len(piece) > txnBytes-txnBytes/64 {
			if err := s.db.commit(b); err != nil {
				return body{}, err
			}
			b.reset()
		}
		if !atOnce {
			piece = bytes.Clone(piece) // the batch may outlive the entry
		}
		b.set(pieceKey(journal, slot, w.after+1, parts), piece)
	}
	x := body{hash: hash, pieces: parts}
	if !atOnce {
		return x, nil
	}
	return x, s.db.commit(b)
}
