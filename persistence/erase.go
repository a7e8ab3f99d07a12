package persistence

import (
	"bytes"
	"encoding/binary"

	"github.com/dgraph-io/badger/v4"
)

// then is the last sequence of the journal after w, when it is applied.
func (w *wireWrite) then() uint64 {
	if w.erase {
		return 0
	}
	return w.after + 1
}

func (w *Write) then() uint64 {
	if w.Erase {
		return 0
	}
	return w.After + 1
}

// erase applies a write that ends its journal: no row, snapshot or piece of it stays, nor what a crash left of it after a truncation.
// What it does, and answers, depends on what the log said of the journal; what a crash left is this replica's own.
//
// All of a journal goes with one transaction, and a later entry may begin it anew in the same batch. So what is erased must fit beside
// what the entry itself writes (wireWrite.cost reserves that), and nothing of the journal may wait in cleanup: apply flushes before.
func (s *stateMachine) erase(w *wireWrite) (code byte, seq uint64, err error) {
	journal := journalKey(s.prefix, w.kind, w.id)
	r := rows{sm: s, view: s.reading()}
	known, ok := s.heads.get(journal)
	if ok && known.flush == s.flushes {
		r.batch = &s.batch
	}
	snap, err := r.snapshot(journal)
	if err != nil {
		return 0, 0, err
	}
	if !ok {
		known = head{seq: r.last(journal, snap), flush: s.flushes - 1}
		s.heads.put(journal, known)
	}
	switch {
	case known.seq == 0: // it was this write, or another one that erased it
		return codeDup, 0, nil
	case known.seq != w.after:
		return codeConflict, known.seq, nil
	case w.after+1-snap.first > EraseRows || snap.pieces > 0 || s.truncates(w):
		return codeLarge, known.seq, nil
	}
	for seq := snap.first; seq <= w.after; seq++ {
		if pieces, err := r.pieces(rowKey(journal, seq)); err != nil {
			return 0, 0, err
		} else if pieces > 0 {
			return codeLarge, known.seq, nil
		}
	}
	if !s.countersFit(w) {
		return codeCounters, known.seq, nil
	}
	if err := s.sweepLeft(journal); err != nil {
		return 0, 0, err
	}
	s.batch.delete(snapKey(journal))
	s.batch.delete(rowKey(journal, 1))
	for seq := max(snap.first, 2); seq <= w.after; seq++ {
		s.batch.delete(rowKey(journal, seq))
	}
	s.move(w)
	s.heads.put(journal, head{seq: 0, flush: s.flushes})
	return codeOK, 0, nil
}

// truncates tells whether a write before w in the same entry truncates its journal: rows may wait in cleanup then. It depends on the
// log alone, as room does not.
func (s *stateMachine) truncates(w *wireWrite) bool {
	for i := range s.cmd.writes {
		x := &s.cmd.writes[i]
		if x == w {
			return false
		}
		if x.truncate && bytes.Equal(x.id, w.id) && bytes.Equal(x.kind, w.kind) {
			return true
		}
	}
	return false
}

// sweepLeft deletes what a crash between a truncation and its cleanup left of a journal: invisible, but without the snapshot's row it would
// not be. It goes to disk at once, since nothing refers to it, and there may be more of it than fits into a batch. So what it is, the disk
// tells alone: what the batch makes invisible is needed again after a crash.
func (s *stateMachine) sweepLeft(journal []byte) error {
	snap, err := rows{sm: s, view: s.reading()}.snapshot(journal)
	if err != nil {
		return err
	}
	it := s.reading().NewIterator(badger.IteratorOptions{Prefix: journal})
	var left [][]byte
	for it.Rewind(); it.Valid(); it.Next() {
		if key := it.Item().Key(); !visible(key[len(journal):], snap) {
			left = append(left, bytes.Clone(key))
		}
	}
	it.Close()
	var b batch
	for _, key := range left {
		b.delete(key)
		if b.rows() >= txnRows/4 || b.size >= txnBytes/2 {
			if err := s.db.commit(&b); err != nil {
				return err
			}
			b.reset()
		}
	}
	if len(left) == 0 {
		return nil
	}
	s.view.close() // it has them still
	s.view = view{}
	return s.db.commit(&b)
}

// visible tells whether a key of a journal that has no pieces belongs to what can be read of it under its snapshot.
func visible(slot []byte, snap snapRow) bool {
	switch {
	case len(slot) == 1:
		return slot[0] == slotSnap
	case len(slot) == 9 && slot[0] == slotRow:
		seq := binary.BigEndian.Uint64(slot[1:])
		return seq == 1 || seq >= snap.first
	}
	return false
}
