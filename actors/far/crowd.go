package far

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

const (
	listenFor  = 5 * time.Second      // a node that asked nothing for so long has no room, or is gone
	tellEvery  = 5 * time.Millisecond // between two messages to one node
	toldMax    = 16384                // queues that a node was told of and has not asked; beyond: all may be told again
	crowdMax   = 256                  // nodes that listen
	pendingMax = waitingMax           // queues waiting to be told to one node; beyond: it finds them when it asks
)

// crowd is the nodes that would like to hear when something waits here: each found a queue empty a moment
// ago. A queue is told once to a node, until that finds it empty again: a busy owner does not send a message per task.
type crowd struct {
	size atomic.Int32 // len(nodes): without listeners, hearing of a task costs nothing

	mu    sync.Mutex
	over  bool
	nodes map[string]*listener
}

// line names one queue of one shard.
type line struct {
	shard int
	name  task.QueueName
}

type listener struct {
	models  []string
	until   time.Time
	told    map[line]bool
	pending map[line]time.Time
	telling bool // somebody empties pending
}

func serves(models []string, model string) bool {
	return task.Serves(models, model)
}

func (c *crowd) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	clear(c.nodes)
	c.size.Store(0)
}

// listenerLocked returns the listener of a node, new when there is none; nil when there are too many.
func (c *crowd) listenerLocked(node string, now time.Time) *listener {
	if c.over {
		return nil
	}
	l := c.nodes[node]
	if l == nil {
		for n, x := range c.nodes {
			if x.until.Before(now) && !x.telling {
				delete(c.nodes, n)
			}
		}
		if len(c.nodes) >= crowdMax {
			return nil
		}
		l = &listener{told: map[line]bool{}, pending: map[line]time.Time{}}
		c.nodes[node] = l
		c.size.Store(int32(len(c.nodes)))
	}
	l.until = now.Add(listenFor)
	return l
}

// room returns nodes that had room for a queue a moment ago and found nothing.
func (c *crowd) room(queue string, now time.Time) (nodes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, l := range c.nodes {
		if !l.until.Before(now) && serves(l.models, queue) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// asked notes that a node knows what waits here, and has room for more of these models.
func (c *crowd) asked(node string, models []string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.listenerLocked(node, now); l != nil {
		l.models = slices.Clone(models)
		clear(l.told)
	}
}

// short notes that a node claimed and found a queue empty.
func (c *crowd) short(node string, shard int, name task.QueueName, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.listenerLocked(node, now); l != nil {
		delete(l.told, line{shard, name})
		if !serves(l.models, name.Model) && len(l.models) < modelsMax {
			l.models = append(l.models, name.Model)
		}
	}
}

// ready notes that something waits, and calls tell for each node that nobody tells yet.
func (c *crowd) ready(shard int, name task.QueueName, at, now time.Time, tell func(node string)) {
	if c.size.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := line{shard, name}
	for node, l := range c.nodes {
		if l.until.Before(now) || l.told[k] || !serves(l.models, name.Model) {
			continue
		}
		if t, ok := l.pending[k]; ok && !at.Before(t) || !ok && len(l.pending) >= pendingMax {
			continue
		}
		l.pending[k] = at
		if !l.telling {
			l.telling = true
			tell(node)
		}
	}
}

// take returns what a node is to be told now; nothing ends the telling.
func (c *crowd) take(node string, now time.Time) (out []waiting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.nodes[node]
	if l == nil {
		return nil
	}
	for k, at := range l.pending {
		in := max(at.Sub(now), 0)
		out = append(out, waiting{k.shard, k.name.Model, rankOf(k.name), in})
		if in > 0 {
			continue // something earlier may come: that is worth a message of its own
		}
		if len(l.told) >= toldMax {
			clear(l.told)
		}
		l.told[k] = true
	}
	clear(l.pending)
	l.telling = len(out) > 0
	return out
}
