package quota

import (
	"context"
	"sync"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// rounds has all that ask at once go by one count, which begins after they came: what is granted by it must not be beside a question that came
// later, as what was on its way to its shard when the count passed there is no longer in that. So a round is over, count and grants, before the next one counts.
// It is safe for many goroutines.
type rounds struct {
	count func() *task.Tally // nil where it cannot be made
	turn  chan struct{}      // one token: a round

	mu   sync.Mutex
	next *round // it has not begun to count; nil: none
}

type round struct {
	wanted bool          // somebody needs the count
	ready  chan struct{} // closed when it is made
	tally  *task.Tally
	in     sync.WaitGroup // who has not left
}

func newRounds(count func() *task.Tally) *rounds {
	return &rounds{count: count, turn: make(chan struct{}, 1)}
}

// join waits for the count of the next round; nil where it was not wanted or cannot be made. leave follows when all is granted by it.
func (r *rounds) join(ctx context.Context, wanted bool) (t *task.Tally, leave func(), err error) {
	r.mu.Lock()
	g := r.next
	if g == nil {
		g = &round{ready: make(chan struct{})}
		r.next = g
		go r.hold(g) // ends with those that are in it
	}
	g.wanted = g.wanted || wanted
	g.in.Add(1)
	r.mu.Unlock()
	select {
	case <-g.ready:
		return g.tally, g.in.Done, nil
	case <-ctx.Done():
		g.in.Done()
		return nil, nil, fault.New(fault.Timeout, "quota.lend", "", "%w", context.Cause(ctx))
	}
}

func (r *rounds) hold(g *round) {
	r.turn <- struct{}{}
	r.mu.Lock()
	r.next = nil
	r.mu.Unlock()
	if g.wanted {
		g.tally = r.count()
	}
	close(g.ready)
	g.in.Wait()
	<-r.turn
}
