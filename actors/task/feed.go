package task

import (
	"bytes"
	"slices"
	"sort"
	"time"
)

// feedMax bounds the rows that a feed keeps in memory; the others stay on disk.
const feedMax = 2048

// feed is the head of one queue (a model and a priority) of one shard, in memory.
// It never walks the rows that were claimed before: an LSM tree keeps them as
// tombstones, and a queue read from its start each time would pass all of them.
//
//	claimed … │ rows (sorted, ≤ feedMax) │ next: not loaded …
type feed struct {
	rows  []ReadyKey        // sorted by Bytes, all below next when more is set
	next  []byte            // where loading goes on
	more  bool              // there may be rows from next on
	taken map[string][]byte // id → key: handed out, its row not deleted yet
}

func newFeed(model string, priority int) *feed {
	return &feed{next: readyPrefix(model, priority), more: true, taken: map[string][]byte{}}
}

func compareReady(a, b ReadyKey) int {
	if c := a.Visible.Compare(b.Visible); c != 0 {
		return c
	}
	return bytes.Compare([]byte(a.ID), []byte(b.ID))
}

// put takes a new row in.
func (f *feed) put(k ReadyKey) {
	key := k.Bytes()
	if f.more && bytes.Compare(key, f.next) >= 0 {
		return // loading will find it
	}
	if t, ok := f.taken[k.ID]; ok && bytes.Equal(t, key) {
		return // read from disk before its observer was called
	}
	i, ok := slices.BinarySearchFunc(f.rows, k, compareReady)
	if ok {
		return
	}
	f.rows = slices.Insert(f.rows, i, k)
	if len(f.rows) > feedMax { // the far half goes back to disk
		cut := feedMax / 2
		f.next, f.more = f.rows[cut].Bytes(), true
		f.rows = slices.Clone(f.rows[:cut])
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
	}
}

// load reads rows until want are in memory, or the queue's end.
func (f *feed) load(model string, priority, want int, scan Scan) error {
	if !f.more || len(f.rows) >= want {
		return nil
	}
	end := readyPrefix(model, priority+1)
	want = min(max(want, feedMax/4), feedMax)
	full := false
	err := scan(IndexReady, f.next, end, func(key, _ []byte) bool {
		if len(f.rows) >= want {
			f.next, full = bytes.Clone(key), true
			return false
		}
		k, ok := ParseReadyKey(key)
		if !ok {
			return true
		}
		if t, out := f.taken[k.ID]; out && bytes.Equal(t, key) {
			return true
		}
		f.rows = append(f.rows, k) // in order, and behind all that were there
		return true
	})
	if err == nil && !full {
		f.more, f.next = false, nil
	}
	return err
}

// take hands out up to n rows that are visible at now.
func (f *feed) take(n int, now time.Time) []ReadyKey {
	vis := sort.Search(len(f.rows), func(i int) bool { return f.rows[i].Visible.After(now) })
	n = min(n, vis)
	out := slices.Clone(f.rows[:n])
	for _, k := range out {
		f.taken[k.ID] = k.Bytes()
	}
	f.rows = f.rows[n:] // appending moves the rest to the array's front again
	return out
}

// putBack returns a row whose claim did not happen.
func (f *feed) putBack(k ReadyKey) {
	if t, ok := f.taken[k.ID]; ok && bytes.Equal(t, k.Bytes()) {
		delete(f.taken, k.ID)
		f.put(k)
	}
}

// Scan is persistence.Journal.Scan of the shard.
type Scan func(index string, from, to []byte, f func(key, value []byte) bool) error
