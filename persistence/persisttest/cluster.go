package persisttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Cluster is the stores of several nodes over the same shards in memory. One node leads each shard, as Lead says, and only
// it can write; what it wrote, all can read. It is safe for many goroutines.
type Cluster struct {
	shards []*Memory
	ids    map[string]string // of data directories, by node name

	mu     sync.Mutex
	stores map[string]*Store
	lead   []string // node name by shard, "" for none
	term   uint64
}

// NewCluster returns stores of nodes with these names over empty shards that nobody leads.
func NewCluster(shards int, nodes ...string) *Cluster {
	c := &Cluster{ids: map[string]string{}, stores: map[string]*Store{}, lead: make([]string, shards)}
	for range shards {
		c.shards = append(c.shards, NewMemory())
	}
	for i, name := range nodes {
		c.ids[name] = fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1)
		c.Restart(name)
	}
	return c
}

// Store returns the newest store of a node.
func (c *Cluster) Store(node string) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[node]
}

// Memory returns the journal of a shard with its hooks.
func (c *Cluster) Memory(shard int) *Memory { return c.shards[shard] }

// Restart gives a node a new store, told who leads what; close the one before.
func (c *Cluster) Restart(node string) *Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Store{shards: c.shards, leads: make(chan persistence.Lead, leadsMax+len(c.shards)), cluster: c, name: node}
	c.stores[node] = s
	for shard, leader := range c.lead {
		if leader != "" {
			s.leads <- c.leadLocked(shard, node)
		}
	}
	return s
}

func (c *Cluster) leadLocked(shard int, to string) persistence.Lead {
	leader := c.lead[shard]
	return persistence.Lead{Shard: shard, Leading: leader == to, Node: c.ids[leader], Term: c.term}
}

// Lead makes a node the leader of a shard, or nobody (""), and tells all that are open: the old leader as well, a
// moment after it can write no more.
func (c *Cluster) Lead(shard int, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead[shard] = node
	c.term++
	for name, s := range c.stores {
		if !s.closed {
			s.leads <- c.leadLocked(shard, name)
		}
	}
}

// Leader returns the name of a shard's leader, "" for none.
func (c *Cluster) Leader(shard int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lead[shard]
}

// Leads lists the shards that a node leads.
func (c *Cluster) Leads(node string) (shards []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for shard, leader := range c.lead {
		if leader == node {
			shards = append(shards, shard)
		}
	}
	return slices.Clip(shards)
}

// seat is a shard's journal as one node has it.
type seat struct {
	*Memory
	c     *Cluster
	s     *Store
	shard int
}

// leading refuses what only the leader can do, and everything after the store closed.
func (j seat) leading(op string) error {
	j.c.mu.Lock()
	defer j.c.mu.Unlock()
	if j.s.closed || j.c.lead[j.shard] != j.s.name {
		return fault.New(fault.Unavailable, op, "", "node %s does not lead shard %d", j.s.name, j.shard)
	}
	return nil
}

// Acquire raises the epoch where this node leads.
func (j seat) Acquire(ctx context.Context) (uint64, error) {
	if err := j.leading("journal.acquire"); err != nil {
		return 0, err
	}
	return j.Memory.Acquire(ctx)
}

// Append applies the writes where this node leads as they are proposed.
func (j seat) Append(epoch uint64, writes []persistence.Write, limit time.Duration, done func([]persistence.Outcome, error)) {
	if err := j.leading("journal.append"); err != nil {
		go done(nil, err) // never from the caller's goroutine, as the real one
		return
	}
	j.Memory.Append(epoch, writes, limit, done)
}

// Barrier returns the current epoch where this node leads.
func (j seat) Barrier(ctx context.Context) (uint64, error) {
	if err := j.leading("journal.barrier"); err != nil {
		return 0, err
	}
	return j.Memory.Barrier(ctx)
}
