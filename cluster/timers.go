package cluster

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
)

// TimerIndex is the index of durable timers. A row wakes its entity until the
// entity deletes it; the key is the due time, then the entity.
const TimerIndex = "timer"

const (
	timerBatch  = 512             // entities woken by one tick
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

// timers knows when the earliest durable timer of a shard is due, so that a tick
// reads the index only then.
type timers struct {
	mu    sync.Mutex
	next  time.Time // zero: none known
	floor []byte    // no row is below: scans begin here, not at the tombstones of fired timers
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
		if t.next.IsZero() || at.Before(t.next) {
			t.next = at
		}
		if bytes.Compare(r.Key, t.floor) < 0 {
			t.floor = bytes.Clone(r.Key)
		}
	}
}

// due returns whom to wake now and plans the next look.
func (t *timers) due(o *Owner, now time.Time) (keys []persistence.Key, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.IsZero() || t.next.After(now) {
		return nil, nil
	}
	var next time.Time
	first := true
	err = o.Scan(TimerIndex, t.floor, nil, func(k, _ []byte) bool {
		at, key, ok := parseTimer(k)
		if !ok {
			return true
		}
		if first {
			t.floor, first = bytes.Clone(k), false
		}
		if at.After(now) {
			next = at
			return false
		}
		if len(keys) == timerBatch {
			next = now
			return false
		}
		keys = append(keys, key)
		return true
	})
	if repeat := now.Add(timerRepeat); len(keys) > 0 && len(keys) < timerBatch && (next.IsZero() || repeat.Before(next)) {
		next = repeat
	}
	t.next = next
	return keys, err
}
