package members

import (
	"bytes"
	"crypto/rand"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of rumors and states.
const (
	RumorMax    = 1024     // bytes of one; it must fit a packet of 1,400 with its encryption
	StateMax    = 64 << 10 // bytes that State may return
	rumorQueue  = 256      // rumors on their way out; beyond it the oldest are let go
	rumorsSeen  = 4096     // ids kept to know a rumor again
	heardMax    = 1024     // rumors and states that wait for OnRumor and Merge; beyond it the newest are let go
	rumorIDSize = 8
)

// rumors spreads small messages: each node sends a rumor on when it hears it the first time, since
// memberlist itself would hand it to a few nodes only.
type rumors struct {
	queue memberlist.TransmitLimitedQueue

	mu   sync.Mutex
	seen map[[rumorIDSize]byte]struct{}
	ring [rumorsSeen][rumorIDSize]byte // ids in the order they came
	next int
}

func newRumors(nodes func() int) *rumors {
	return &rumors{queue: memberlist.TransmitLimitedQueue{NumNodes: nodes, RetransmitMult: 4}, seen: map[[rumorIDSize]byte]struct{}{}}
}

// start gives b an id and sends it.
func (r *rumors) start(b []byte) {
	msg := make([]byte, rumorIDSize, rumorIDSize+len(b))
	rand.Read(msg)
	r.first([rumorIDSize]byte(msg))
	r.send(append(msg, b...))
}

// heard returns the body of a rumor that is new here, a copy, after sending it on.
func (r *rumors) heard(msg []byte) ([]byte, bool) {
	if len(msg) < rumorIDSize || len(msg) > rumorIDSize+RumorMax || !r.first([rumorIDSize]byte(msg)) {
		return nil, false
	}
	msg = bytes.Clone(msg) // the packet's buffer is used again
	r.send(msg)
	return bytes.Clone(msg[rumorIDSize:]), true
}

func (r *rumors) send(msg []byte) {
	r.queue.QueueBroadcast(broadcast(msg))
	r.queue.Prune(rumorQueue)
}

// first tells whether an id is new, and keeps it.
func (r *rumors) first(id [rumorIDSize]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[id]; ok {
		return false
	}
	delete(r.seen, r.ring[r.next])
	r.ring[r.next] = id
	r.seen[id] = struct{}{}
	r.next = (r.next + 1) % rumorsSeen
	return true
}

// broadcast is one message of the queue; none replaces another.
type broadcast []byte

func (b broadcast) Message() []byte                       { return b }
func (b broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Finished()                             {}
func (b broadcast) UniqueBroadcast()                      {}

// Rumor sends a message of up to RumorMax bytes to all members: soon, once, without a promise.
func (l *List) Rumor(b []byte) error {
	if len(b) > RumorMax {
		return fault.New(fault.TooLarge, "members.rumor", "", "%d bytes, more than RumorMax of %d", len(b), RumorMax)
	}
	l.rumors.start(b)
	return nil
}
