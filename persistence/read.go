package persistence

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Read returns snapshot and rows by point reads: a journal has few rows, and
// an iterator costs more than several of them.
func (h *shard) Read(key Key, after uint64) (Log, error) {
	var l Log
	if err := h.readable(); err != nil {
		return l, err
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
	var data []byte
	for part := range x.pieces {
		found, err := v.get(pieceKey(journal, slot, seq, part), func(b []byte) error {
			if part == 0 {
				data = make([]byte, 0, x.pieces*len(b))
			}
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
	if err := h.readable(); err != nil {
		return err
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
func (h *shard) Counters() (map[string]int64, error) {
	if h.groups.hosted(h.n) == 0 {
		return nil, noReplica("journal.read", h.n)
	}
	return h.sm.count(), nil
}

// readable tells why there is nothing to read.
func (h *shard) readable() error {
	if e := h.db.damage.Load(); e != nil {
		return *e
	}
	if h.groups.hosted(h.n) == 0 {
		return noReplica("journal.read", h.n)
	}
	return nil
}

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
