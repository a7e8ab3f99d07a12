package persistence

// heads remembers the last sequence of the journals written most recently. It keeps
// between size and 2*size of them, in two maps: the older one is dropped as a whole.
type heads struct {
	size     int
	new, old map[string]head
}

// head is the last sequence of a journal; written by batch number flush.
type head struct{ seq, flush uint64 }

func newHeads(size int) heads {
	return heads{size: max(size, AppendCount), new: map[string]head{}}
}

func (h *heads) get(journal []byte) (head, bool) {
	if v, ok := h.new[string(journal)]; ok {
		return v, true
	}
	v, ok := h.old[string(journal)]
	return v, ok
}

func (h *heads) put(journal []byte, v head) {
	if _, ok := h.new[string(journal)]; !ok && len(h.new) >= h.size {
		h.old, h.new = h.new, make(map[string]head, h.size)
	}
	h.new[string(journal)] = v
}

func (h *heads) clear() { h.new, h.old = map[string]head{}, nil }
