package engine

import (
	"cmp"
	"slices"
)

// sequence is what planning knows of a slot in use.
type sequence struct {
	slot   int
	order  uint64 // grows with admission
	todo   int    // tokens known but not computed: the prompt's rest, or the one token picked last
	parked bool   // waits for room
}

// part is a run of one sequence's next tokens in a batch. It is last when it leaves nothing to do, so that the next
// token can be picked.
type part struct {
	slot, n int
	last    bool
}

// plan chooses the next batch of at most limit tokens: first those that need one token, since each such token moves an
// answer forward, then prompts, the oldest first.
func plan(sequences []sequence, limit int) []part {
	ready := make([]sequence, 0, len(sequences))
	for _, s := range sequences {
		if !s.parked && s.todo > 0 {
			ready = append(ready, s)
		}
	}
	slices.SortFunc(ready, func(a, b sequence) int {
		if one := cmp.Compare(min(a.todo, 2), min(b.todo, 2)); one != 0 {
			return one
		}
		return cmp.Compare(a.order, b.order)
	})
	var parts []part
	for _, s := range ready {
		if limit <= 0 {
			break
		}
		n := min(s.todo, limit)
		parts = append(parts, part{slot: s.slot, n: n, last: n == s.todo})
		limit -= n
	}
	return parts
}

// victim is the sequence to park when even one token finds no room: the youngest, which has least to compute again.
// It is -1 when nobody else could use the room.
func victim(sequences []sequence) (slot int) {
	slot, running, youngest := -1, 0, uint64(0)
	for _, s := range sequences {
		if s.parked {
			continue
		}
		if running++; s.order >= youngest {
			slot, youngest = s.slot, s.order
		}
	}
	if running < 2 {
		return -1
	}
	return slot
}

// shared counts the tokens that both begin with.
func shared(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
