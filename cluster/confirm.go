package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// confirmTimeout bounds one look whether an owner is still the current one.
const confirmTimeout = 2 * time.Second

// confirmer finds out whether an owner is still the current one: an answer that changed nothing must not
// come from one that was replaced and has not noticed. All who ask while a look is under way share the next.
type confirmer struct {
	journal persistence.Journal
	shard   int
	epoch   uint64

	mu      sync.Mutex
	waiting []func(error)
	looking bool
}

// Confirm calls f once, from another goroutine or this one: with nil when no newer owner had
// taken over by the time of the call. What this owner knew then was the newest.
func (o *Owner) Confirm(f func(error)) {
	if o.confirms == nil {
		f(nil)
		return
	}
	o.confirms.add(f)
}

// current is Confirm for who can wait.
func (o *Owner) current(ctx context.Context) error {
	if o.confirms == nil {
		return nil
	}
	c := make(chan error, 1)
	o.confirms.add(func(err error) { c <- err })
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return fault.New(fault.Timeout, "cluster.confirm", "", "%w", context.Cause(ctx))
	}
}

func (c *confirmer) add(f func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, f)
	if !c.looking {
		c.looking = true
		go c.look()
	}
}

// look runs while somebody waits.
func (c *confirmer) look() {
	for {
		c.mu.Lock()
		waiting := c.waiting
		c.waiting = nil
		c.looking = len(waiting) > 0
		c.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), confirmTimeout)
		epoch, err := c.journal.Barrier(ctx)
		cancel()
		if err == nil && epoch != c.epoch {
			err = fault.New(fault.Fenced, "cluster.confirm", "", "shard %d: epoch %d is the current one", c.shard, epoch)
		}
		for _, f := range waiting {
			f(err)
		}
	}
}
