package mesh

import (
	"math/rand/v2"
	"sync"
)

// calls are the questions of this node that wait for an answer.
type calls struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]*call
}

type call struct {
	node string
	done chan outcome // room for the one outcome
}

type outcome struct {
	answer Answer
	err    error
}

// newCalls numbers calls from a random start, so that an answer to the process that ran here before meets none of them.
func newCalls() *calls { return &calls{next: rand.Uint64(), open: map[uint64]*call{}} }

func (c *calls) begin(node string) (uint64, *call) {
	k := &call{node: node, done: make(chan outcome, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	c.open[c.next] = k
	return c.next, k
}

// end forgets a call; what comes for it later is dropped.
func (c *calls) end(id uint64) {
	c.mu.Lock()
	delete(c.open, id)
	c.mu.Unlock()
}

// answer hands an outcome to the call it is for. It tells whether one waited, and for this node.
func (c *calls) answer(id uint64, node string, o outcome) bool {
	c.mu.Lock()
	k := c.open[id]
	if k == nil || k.node != node {
		c.mu.Unlock()
		return false
	}
	delete(c.open, id)
	c.mu.Unlock()
	k.done <- o
	return true
}

// fail ends all calls to a node, or to every node when node is "", and returns how many there were.
func (c *calls) fail(node string, err error) int {
	c.mu.Lock()
	var hit []*call
	for id, k := range c.open {
		if node == "" || k.node == node {
			hit = append(hit, k)
			delete(c.open, id)
		}
	}
	c.mu.Unlock()
	for _, k := range hit {
		k.done <- outcome{err: err}
	}
	return len(hit)
}
