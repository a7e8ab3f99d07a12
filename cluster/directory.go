package cluster

import (
	"encoding/binary"
	"sync"
)

// directory remembers which node leads each shard: from Raft, where this node has a replica, and from
// gossip. It is a hint: whoever is asked wrongly says so. The larger term wins, so that news
// may come in any order and twice.
type directory struct {
	self string // id of this node: what gossip says of it is old

	mu     sync.Mutex
	places []place
}

// place is what is known of one shard.
type place struct {
	node    string // id; "" when nobody is known
	term    uint64
	changed chan struct{} // closed when node or term change
}

func newDirectory(self string, shards int) *directory {
	d := &directory{self: self, places: make([]place, shards)}
	for i := range d.places {
		d.places[i].changed = make(chan struct{})
	}
	return d
}

// learn takes in that node led the shard in a term, and tells whether that was news.
func (d *directory) learn(shard int, node string, term uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if shard < 0 || shard >= len(d.places) || node == "" {
		return false
	}
	p := &d.places[shard]
	if term < p.term || term == p.term && p.node != "" {
		return false
	}
	p.node, p.term = node, term
	close(p.changed)
	p.changed = make(chan struct{})
	return true
}

// forget takes in that node leads the shard no more and nobody else is known to: only who was believed
// to lead it may be taken back.
func (d *directory) forget(shard int, node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := &d.places[shard]; p.node == node {
		p.node = ""
	}
}

// at returns the node that leads a shard, "" when none is known, and a channel that is closed once
// that is out of date.
func (d *directory) at(shard int) (node string, term uint64, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &d.places[shard]
	return p.node, p.term, p.changed
}

// Limits of what gossip may say.
const (
	rumorNodeMax = 64 // bytes of a node id
	rumorShards  = 1024
)

// encode writes all that is known, for a node that joins: uvarint shard, uvarint term, length and node.
func (d *directory) encode() (b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for shard := range d.places {
		if p := &d.places[shard]; p.node != "" {
			b = appendPlace(b, shard, p.term, p.node)
		}
	}
	return b
}

func appendPlace(b []byte, shard int, term uint64, node string) []byte {
	b = binary.AppendUvarint(b, uint64(shard))
	b = binary.AppendUvarint(b, term)
	b = binary.AppendUvarint(b, uint64(len(node)))
	return append(b, node...)
}

// merge takes in what encode or appendPlace wrote. What does not decode ends it: gossip from a
// newer program may go on in ways unknown here.
func (d *directory) merge(b []byte) {
	for range rumorShards {
		shard, n := binary.Uvarint(b)
		if n <= 0 || shard >= rumorShards {
			return
		}
		term, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return
		}
		size, k := binary.Uvarint(b[n+m:])
		if k <= 0 || size > rumorNodeMax || uint64(len(b)-n-m-k) < size {
			return
		}
		b = b[n+m+k:]
		if node := string(b[:size]); node != d.self {
			d.learn(int(shard), node, term)
		}
		b = b[size:]
	}
}
