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
// what the entry itself writes (wireWrite.cost reserves that), and no piece of it, which a new life may have again, may be deleted later
// than here, by the batch or in cleanup: apply flushes what was done to the journal before, and an entry that makes a snapshot of it erases
// nothing.
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
	large, err := r.large(snapKey(journal), &snapRow{})
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
	case w.after+1-snap.first > EraseRows || large || s.snaps(w):
		return codeLarge, known.seq, nil
	}
	for seq := snap.first; seq <= w.after; seq++ {
		if large, err := r.large(rowKey(journal, seq), &body{}); err != nil {
			return 0, 0, err
		} else if large {
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

// snaps tells whether a write before w in the same entry makes a snapshot of its journal: rows or pieces that it replaces may wait in
// cleanup then. It depends on the log alone, as room does not.
func (s *stateMachine) snaps(w *wireWrite) bool {
	for i := range s.cmd.writes {
		x := &s.cmd.writes[i]
		if x == w {
			return false
		}
		if x.hasSnap && bytes.Equal(x.id, w.id) && bytes.Equal(x.kind, w.kind) {
			return true
		}
	}
	return false
}

// touched tells whether the batch has something of w's journal.
func (s *stateMachine) touched(w *wireWrite) bool {
	known, ok := s.heads.get(journalKey(s.prefix, w.kind, w.id))
	return ok && known.flush == s.flushes
}

// large tells whether the body in a row, that of a snapshot too, is over EraseBody; without the row it is not.
func (r rows) large(row []byte, x interface {
	decode([]byte) bool
	large() bool
}) (large bool, err error) {
	_, err = r.get(row, func(b []byte) error {
		if !x.decode(b) {
			return r.sm.damaged("row")
		}
		large = x.large()
		return nil
	})
	return large, err
}

// sweepLeft deletes what a crash between a truncation and its cleanup left of a journal: invisible, but without the snapshot's row it would
// not be. It goes to disk at once, since nothing refers to it, and there may be more of it than fits into a batch. So what it is, the disk
// tells alone, which has all that the entries before this one did to the journal: what a batch makes invisible, the rows on disk refer to
// until it is there, too.
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

// visible tells whether a key of a journal whose bodies are all in their rows belongs to what can be read of it under its snapshot.
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
