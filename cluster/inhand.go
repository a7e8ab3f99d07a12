package cluster

import (
	"sync"
	"time"
)

// inHand knows since when messages are in hand: from before their behavior may read the clock until what they commit can be
// read. A goroutine may be stopped for any time between the two, so only who counts them can tell how far an index that
// is ordered by time is complete.
//
//	begin ─► behavior reads the shard's time ─► append ─► durable, readable ─► End
//	  └────────────────────────── counted ──────────────────────────────────────┘
type inHand struct {
	mu   sync.Mutex
	open []*InHand // in the order of their beginnings; the first has not ended
}

// InHand is one message in hand.
type InHand struct {
	Began time.Time // the shard's time then
	of    *inHand
	ended bool
}

func (h *inHand) begin(now func() time.Time) *InHand {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &InHand{Began: now(), of: h} // read under the lock: the order of the list is that of the times
	h.open = append(h.open, m)
	return m
}

// End says that what came of the message can be read, or that nothing will. It may be called twice.
func (m *InHand) End() {
	h := m.of
	h.mu.Lock()
	defer h.mu.Unlock()
	m.ended = true
	n := 0
	for n < len(h.open) && h.open[n].ended {
		h.open[n] = nil
		n++
	}
	if h.open = h.open[n:]; len(h.open) == 0 {
		h.open = nil // let a burst's array go
	}
}

// oldest returns when the message began that is in hand for the longest.
func (h *inHand) oldest() (t time.Time, some bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) == 0 {
		return t, false
	}
	return h.open[0].Began, true
}
