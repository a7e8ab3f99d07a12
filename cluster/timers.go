package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
)

// TimerIndex is the index of durable timers. A row wakes its entity until the
// entity deletes it; the key is the due time, then the entity.
const TimerIndex = "timer"

const (
	timerBatch  = 512             // entities woken by one tick at most
	timerRepeat = 5 * time.Second // a row that is still there is due again after this
)

// TimerRow is the index row that wakes key at t, to be put and later deleted by
// the entity's own writes.
func TimerRow(key persistence.Key, t time.Time, del bool) persistence.Index {
	k := binary.BigEndian.AppendUint64(make([]byte, 0, 9+len(key.Kind)+len(key.ID)), uint64(t.UnixMicro()))
	k = append(k, key.Kind...)
	k = append(k, 0)
	k = append(k, key.ID...)
	return persistence.Index{Name: TimerIndex, Key: k, Delete: del}
}

func parseTimer(k []byte) (at time.Time, key persistence.Key, ok bool) {
	if len(k) < 9 {
		return at, key, false
	}
	kind, id, ok := bytes.Cut(k[8:], []byte{0})
	return time.UnixMicro(int64(binary.BigEndian.Uint64(k))), persistence.Key{Kind: string(kind), ID: string(id)}, ok
}

// timers decides which rows of a shard's index fire at a tick. Rows ahead of the front have not fired; a row behind it
// is in exactly one span, which says when to look at it again, or is gone. A tick thus reads neither the rows that fired
// a moment ago, however many are stuck, nor the tombstones of those that are done.
type timers struct {
	mu    sync.Mutex
	next  time.Time // of the earliest row ahead of the front; zero: none known
	front []byte
	floor []byte // at or after the front, and no row is between: scans begin here, not at the tombstones of deleted timers
	late  []span // rows put behind the front: they fire at the next tick
	fired []span // oldest first
}

// span is the rows with from <= key < to, to be looked at again at at.
type span struct {
	from, to []byte
	at       time.Time
}

// observe is the Observer of TimerIndex.
func (t *timers) observe(rows []persistence.Index) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range rows {
		if r.Delete {
			continue // a tick that finds nothing costs one short scan
		}
		at, _, ok := parseTimer(r.Key)
		if !ok {
			continue
		}
		if bytes.Compare(r.Key, t.front) < 0 {
			t.late, t.fired = cut(t.late, r.Key), cut(t.fired, r.Key) // or two spans would repeat it
			t.late = append(t.late, span{from: bytes.Clone(r.Key), to: successor(r.Key)})
			continue
		}
		if t.next.IsZero() || at.Before(t.next) {
			t.next = at
		}
		if bytes.Compare(r.Key, t.floor) < 0 {
			t.floor = bytes.Clone(r.Key)
		}
	}
}

// due returns whom to wake now, at most timerBatch, and plans the next look. Whom it returns beside an error is to be
// woken, too; what could not be read is read again at the next tick.
func (t *timers) due(o *Owner, now time.Time) ([]persistence.Key, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Half for each, so that neither many stuck rows nor many new ones keep the others waiting.
	again, err := t.again(o, now, timerBatch/2)
	fresh, err2 := t.fresh(o, now, timerBatch-len(again))
	return append(again, fresh...), errors.Join(err, err2)
}

// again looks behind the front.
func (t *timers) again(o *Owner, now time.Time, room int) (keys []persistence.Key, err error) {
	for room > 0 {
		q := &t.late
		if len(*q) == 0 {
			q = &t.fired
		}
		if len(*q) == 0 || (*q)[0].at.After(now) {
			return keys, nil
		}
		s := &(*q)[0]
		w, err := walk(o, s.from, s.to, room)
		keys = append(keys, w.keys...)
		room -= max(1, len(w.keys)) // an empty span costs a scan
		empty := s.from             // no row is from here to w.stop
		if len(w.keys) > 0 {
			empty = successor(w.last)
		}
		if err != nil || w.stop != nil && bytes.Compare(w.stop, s.to) < 0 { // the rest is next
			s.from = empty
			t.mark(w, now)
			if err != nil {
				return keys, err
			}
			continue
		}
		*q = (*q)[1:]
		t.mark(w, now)
		// Most rows are deleted soon after they fired: one scan settles all spans of such.
		gone := func(s span) bool {
			return bytes.Compare(s.from, empty) >= 0 && (w.stop == nil || bytes.Compare(s.to, w.stop) <= 0)
		}
		t.late, t.fired = slices.DeleteFunc(t.late, gone), slices.DeleteFunc(t.fired, gone)
	}
	return keys, nil
}

// fresh moves the front on to now, or as far as there is room.
func (t *timers) fresh(o *Owner, now time.Time, room int) ([]persistence.Key, error) {
	if t.next.IsZero() || t.next.After(now) {
		return nil, nil
	}
	w, err := walk(o, t.floor, binary.BigEndian.AppendUint64(nil, uint64(now.UnixMicro()+1)), room)
	if t.mark(w, now); len(w.keys) > 0 {
		t.front = successor(w.last)
		t.floor = t.front
	}
	switch {
	case err != nil:
		t.next = now // what is there is not known, so the next tick looks again
	case w.stop == nil:
		t.next = time.Time{}
	default:
		t.next, t.floor = w.at, w.stop
	}
	return w.keys, err
}

// mark plans the repetition of what fired.
func (t *timers) mark(w walked, now time.Time) {
	if len(w.keys) > 0 {
		t.fired = append(t.fired, span{from: w.first, to: successor(w.last), at: now.Add(timerRepeat)})
	}
}

type walked struct {
	keys        []persistence.Key
	first, last []byte    // rows of keys
	stop        []byte    // the first row that was not taken, even if beyond the range; nil: there is none
	at          time.Time // of stop
}

// walk takes rows from from to before to while there is room. Beside an error it returns those before.
func walk(o *Owner, from, to []byte, room int) (w walked, err error) {
	err = o.Scan(TimerIndex, from, nil, func(k, _ []byte) bool {
		at, key, ok := parseTimer(k)
		if !ok {
			return true
		}
		if len(w.keys) == room || bytes.Compare(k, to) >= 0 {
			w.stop, w.at = bytes.Clone(k), at
			return false
		}
		if len(w.keys) == 0 {
			w.first = bytes.Clone(k)
		}
		w.last = append(w.last[:0], k...)
		w.keys = append(w.keys, key)
		return true
	})
	return w, err
}

// cut takes one row out of the one span that may hold it.
func cut(q []span, row []byte) []span {
	for i, s := range q {
		if bytes.Compare(s.from, row) > 0 || bytes.Compare(row, s.to) >= 0 {
			continue
		}
		var parts []span
		if bytes.Compare(s.from, row) < 0 {
			parts = append(parts, span{from: s.from, to: bytes.Clone(row), at: s.at})
		}
		if after := successor(row); bytes.Compare(after, s.to) < 0 {
			parts = append(parts, span{from: after, to: s.to, at: s.at})
		}
		return slices.Replace(q, i, i+1, parts...)
	}
	return q
}

// successor is the least key above k.
func successor(k []byte) []byte { return append(bytes.Clone(k), 0) }
