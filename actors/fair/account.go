package fair

import (
	"math"
	"time"
)

// Lane is the waiting works of one tenant for one model and priority, on all shards.
type Lane struct {
	Tenant   string
	Queue    string // names the lane among those of equal priority; see task.QueueOf
	Priority int    // 0 goes first
}

// account is what a tenant has had. Charges are tokens over the tenant's weight: whoever has the least is next.
type account struct {
	name     string
	weight   float64
	charged  float64   // running included
	running  float64   // of it, claimed or asked for, and not answered
	mean     float64   // tokens of one work, as those before
	fresh    bool      // it was idle: it starts level with the others
	eligible time.Time // it last could be served
	lanes    map[Lane]*lane
}

// lane is what Turns knows of a lane in which something waits.
type lane struct {
	Lane
	since   time.Time // it waits since then, or since it was served
	charged float64   // with a Ratio: tokens times Ratio^Priority
}

const (
	meanFirst  = 256  // tokens of a work of whom nothing is known
	meanWeight = 0.05 // of one work, once there were some
	freshAfter = 2 * time.Second
)

// learn folds the cost of one work into the mean.
func (a *account) learn(cost float64) {
	if a.mean == 0 {
		a.mean = cost
	}
	a.mean += (cost - a.mean) * meanWeight
}

func (a *account) each() float64 {
	if a.mean == 0 {
		return meanFirst
	}
	return max(a.mean, 1)
}

// charge takes tokens in advance.
func (a *account) charge(tokens float64) {
	a.charged += tokens / a.weight
	a.running += tokens / a.weight
}

// release sets right what was charged: it took used tokens, and runs no more.
func (a *account) release(charged, used float64) {
	a.charged += (used - charged) / a.weight
	a.running = max(a.running-charged/a.weight, 0) // a batcher that started again hears of works that it did not charge
}

// level lifts a tenant that was idle to where the others are.
func (a *account) level(floor float64) {
	if a.fresh && !math.IsInf(floor, 1) {
		a.charged = max(a.charged, floor)
	}
	a.fresh = false
}
