package task

import (
	"bytes"
	"slices"
	"sort"
	"time"
)

// Bounds of the rows that a feed keeps in memory, and as many early ones; the others stay on disk.
const (
	feedMax = 2048
	feedMin = 64
	rowsMax = 4 * feedMax // of all feeds of a shard, until each has feedMin
)

// feed is the head of one queue (a tenant, a model and a priority) of one shard, in memory.
// It never walks the rows that were claimed before: an LSM tree keeps them as
// tombstones, and a queue read from its start each time would pass all of them.
//
//	claimed … │ rows (sorted, ≤ max) │ next: not loaded, but for early … │ seek: not even looked at …
type feed struct {
	max   int               // feedMin to feedMax
	rows  []ReadyKey        // sorted by Bytes, all below next when more is set
	next  []byte            // where loading goes on
	more  bool              // there may be rows from next on
	taken map[string][]byte // id → key: handed out, its row not deleted yet

	passed int       // takes that left the first row for others
	newest time.Time // at least Visible of each row in rows that is AtOnce
	early  early     // past next; with more only
}

func newFeed(model string, priority int) *feed {
	f := &feed{max: feedMax, taken: map[string][]byte{}}
	f.restart(model, priority)
	return f
}

// restart makes a feed without rows read its queue from the start.
func (f *feed) restart(model string, priority int) {
	f.next, f.more = readyPrefix(model, priority), true
	f.early = early{seek: f.next}
}

func compareReady(a, b ReadyKey) int {
	if c := a.Visible.Compare(b.Visible); c != 0 {
		return c
	}
	return bytes.Compare([]byte(a.ID), []byte(b.ID))
}

// put takes a new row in.
func (f *feed) put(k ReadyKey, now time.Time) {
	key := k.Bytes()
	far := f.more && bytes.Compare(key, f.next) >= 0
	if far && !k.early(now) {
		return // loading will find it
	}
	if t, ok := f.taken[k.ID]; ok && bytes.Equal(t, key) {
		return // read from disk before its observer was called
	}
	if far {
		f.early.put(k, key, f.max)
		return
	}
	i, ok := slices.BinarySearchFunc(f.rows, k, compareReady)
	if ok {
		return
	}
	f.rows = slices.Insert(f.rows, i, k)
	f.noteNewest(k)
	if len(f.rows) > f.max { // the far half goes back to disk
		cut := f.max / 2
		f.early.prepend(f.rows[cut:], now, f.max)
		f.next, f.more = f.rows[cut].Bytes(), true
		f.rows = slices.Clone(f.rows[:cut])
	}
}

func (f *feed) noteNewest(k ReadyKey) {
	if k.AtOnce && k.Visible.After(f.newest) {
		f.newest = k.Visible
	}
}

// delete forgets a row that is gone.
func (f *feed) delete(k ReadyKey) {
	if t, ok := f.taken[k.ID]; ok && bytes.Equal(t, k.Bytes()) {
		delete(f.taken, k.ID)
		return
	}
	if i, ok := slices.BinarySearchFunc(f.rows, k, compareReady); ok {
		f.rows = slices.Delete(f.rows, i, i+1)
		return
	}
	f.early.delete(k)
}

// load reads rows until want are in memory, or the queue's end.
func (f *feed) load(model string, priority, want int, now time.Time, scan Scan) error {
	if !f.more {
		return nil
	}
	end := readyPrefix(model, priority+1)
	if len(f.rows) < want {
		if err := f.loadRows(end, want, scan); err != nil {
			return err
		}
	}
	if n := len(f.rows); f.more && n > 0 && f.rows[n-1].Visible.After(now) && f.visible(now)+len(f.early.rows) < want {
		return f.early.look(end, f.max, now, f.taken, scan)
	}
	return nil
}

func (f *feed) loadRows(end []byte, want int, scan Scan) error {
	want = min(max(want, f.max/4), f.max)
	full := false
	err := scan(IndexReady, f.next, end, func(key, value []byte) bool {
		if len(f.rows) >= want {
			f.next, full = bytes.Clone(key), true
			return false
		}
		k, ok := parseReady(key, value)
		if !ok {
			return true
		}
		if t, out := f.taken[k.ID]; out && bytes.Equal(t, key) {
			return true
		}
		f.rows = append(f.rows, k) // in order, and behind all that were there
		f.noteNewest(k)
		return true
	})
	if err == nil && !full {
		f.more, f.next = false, nil
	}
	if err == nil {
		f.early.passed(f.next)
	}
	return err
}

// visible counts the rows whose time has come.
func (f *feed) visible(now time.Time) int {
	return sort.Search(len(f.rows), func(i int) bool { return f.rows[i].Visible.After(now) })
}

const (
	lookAhead = 512 // visible rows among which a take chooses
	passMax   = 8   // takes that may leave the first row for others
)

// take hands out up to n rows: of those that are visible at now the ones that go well with what is warm, or with each other, then those
// that a clock ahead of it wrote and that are due all the same.
func (f *feed) take(n int, now time.Time, t Taste) []ReadyKey {
	var out []ReadyKey
	if vis := f.visible(now); vis <= n || !t.any() {
		vis = min(vis, n)
		out = slices.Clone(f.rows[:vis])
		f.rows = f.rows[vis:] // appending moves the rest to the array's front again
	} else {
		out = f.chosen(n, min(vis, max(lookAhead, n)), t)
	}
	if len(out) < n && f.newest.After(now) {
		left := n - len(out)
		f.newest = time.Time{}
		f.rows = slices.DeleteFunc(f.rows, func(k ReadyKey) bool {
			if k.AtOnce && left > 0 {
				left--
				out = append(out, k)
				return true
			}
			f.noteNewest(k)
			return false
		})
	}
	if len(out) < n {
		out = append(out, f.early.take(n-len(out))...)
	}
	for _, k := range out {
		f.taken[k.ID] = k.Bytes()
	}
	return out
}

// chosen takes n of the first look rows.
func (f *feed) chosen(n, look int, t Taste) []ReadyKey {
	picks := choose(f.rows[:look], n, t, f.passed >= passMax)
	out := make([]ReadyKey, n)
	for i, at := range picks {
		out[i] = f.rows[at]
	}
	if picks[0] == 0 {
		f.passed = 0
	} else {
		f.passed++
	}
	if picks[n-1] == n-1 {
		f.rows = f.rows[n:]
		return out
	}
	left, next := f.rows[:0], 0
	for i, k := range f.rows {
		if next < n && i == picks[next] {
			next++
			continue
		}
		left = append(left, k)
	}
	f.rows = left
	return out
}

// first returns when there is something to take: now also where it takes a load to know. ok is false when nothing
// waits.
func (f *feed) first(now time.Time) (at time.Time, ok bool) {
	switch {
	case len(f.rows) == 0:
		return now, f.more
	case f.newest.After(now), f.early.any(): // newest may be of a row that is gone: the next take finds out
		return now, true
	}
	return f.rows[0].Visible, true
}

// empty tells that the feed has nothing, and that there is nothing on disk that it has not seen.
func (f *feed) empty() bool {
	return len(f.rows) == 0 && !f.more && len(f.taken) == 0 && !f.early.any()
}

// putBack returns a row whose claim did not happen.
func (f *feed) putBack(k ReadyKey, now time.Time) {
	if t, ok := f.taken[k.ID]; ok && bytes.Equal(t, k.Bytes()) {
		delete(f.taken, k.ID)
		f.put(k, now)
	}
}

// Scan is persistence.Journal.Scan of the shard.
type Scan func(index string, from, to []byte, f func(key, value []byte) bool) error
