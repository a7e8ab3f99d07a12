package main

import (
	"hash/maphash"
)

// waitSet holds ids as two hashes of 64 bits: a million take about 40 MB. Two of ten
// million different ids are taken for one with a chance below 1 in 10^24.
type waitSet struct {
	a, b maphash.Seed
	ids  map[[2]uint64]struct{}
}

func (w *waitSet) key(id string) [2]uint64 {
	if w.ids == nil {
		w.a, w.b, w.ids = maphash.MakeSeed(), maphash.MakeSeed(), map[[2]uint64]struct{}{}
	}
	return [2]uint64{maphash.String(w.a, id), maphash.String(w.b, id)}
}

func (w *waitSet) add(id string) {
	k := w.key(id) // makes the map
	w.ids[k] = struct{}{}
}

// remove tells whether id was there.
func (w *waitSet) remove(id string) bool {
	k := w.key(id)
	_, ok := w.ids[k]
	delete(w.ids, k)
	return ok
}

func (w *waitSet) len() int { return len(w.ids) }
