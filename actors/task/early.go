package task

import (
	"bytes"
	"slices"
	"time"
)

// lookMax bounds the rows that one look passes, in times feed.max: the queue is locked meanwhile.
const lookMax = 4

// early is the rows of a feed that are past those in its memory and due all the same: a clock that is ahead wrote
// their times, and behind the rows before them there is a wait. Where no clock is ahead there are none, and nothing is looked at unless
// more rows wait for their time than a feed keeps.
type early struct {
	rows []ReadyKey // sorted, below seek when that is set; ≤ feed.max
	seek []byte     // from here on nobody has looked; nil: all are in rows
}

// early tells that the row is due before its time.
func (k ReadyKey) early(now time.Time) bool { return k.AtOnce && k.Visible.After(now) }

// any tells that there are some, or may be.
func (e *early) any() bool { return len(e.rows) > 0 || e.seek != nil }

// put takes a new row in.
func (e *early) put(k ReadyKey, key []byte, most int) {
	if e.seek != nil && bytes.Compare(key, e.seek) >= 0 {
		return // a look will find it
	}
	if i, ok := slices.BinarySearchFunc(e.rows, k, compareReady); !ok {
		e.rows = slices.Insert(e.rows, i, k)
		e.trim(most)
	}
}

// prepend takes those in that leave the feed's memory, which are before all others.
func (e *early) prepend(rows []ReadyKey, now time.Time, most int) {
	var gone []ReadyKey
	for _, k := range rows {
		if k.early(now) {
			gone = append(gone, k)
		}
	}
	if len(gone) > 0 {
		e.rows = append(gone, e.rows...)
		e.trim(most)
	}
}

// trim gives the far half back to disk when there are too many.
func (e *early) trim(most int) {
	if len(e.rows) > most {
		cut := most / 2
		e.seek = e.rows[cut].Bytes()
		e.rows = slices.Clone(e.rows[:cut])
	}
}

func (e *early) delete(k ReadyKey) {
	if i, ok := slices.BinarySearchFunc(e.rows, k, compareReady); ok {
		e.rows = slices.Delete(e.rows, i, i+1)
	}
}

// passed forgets those before next, which the feed has in its memory now; nil: all.
func (e *early) passed(next []byte) {
	if next == nil {
		*e = early{}
		return
	}
	i := 0
	for i < len(e.rows) && bytes.Compare(e.rows[i].Bytes(), next) < 0 {
		i++
	}
	e.rows = e.rows[i:]
	if e.seek != nil && bytes.Compare(e.seek, next) < 0 {
		e.seek = next
	}
}

// look goes on looking for them on disk: by some rows, not to the end.
func (e *early) look(end []byte, most int, now time.Time, taken map[string][]byte, scan Scan) error {
	if e.seek == nil {
		return nil
	}
	passed, on := 0, []byte(nil)
	found := e.rows
	err := scan(IndexReady, e.seek, end, func(key, value []byte) bool {
		if passed >= lookMax*most || len(found) >= most {
			on = bytes.Clone(key)
			return false
		}
		passed++
		k, ok := parseReady(key, value)
		if t, out := taken[k.ID]; ok && k.early(now) && (!out || !bytes.Equal(t, key)) {
			found = append(found, k)
		}
		return true
	})
	if err == nil {
		e.rows, e.seek = found, on
	}
	return err
}

// take hands out up to n, first ones first.
func (e *early) take(n int) []ReadyKey {
	n = min(n, len(e.rows))
	out := e.rows[:n:n]
	e.rows = e.rows[n:]
	return out
}
