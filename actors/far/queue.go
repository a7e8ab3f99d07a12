package far

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	reclaimFor = 20 * time.Second // a claim without an answer is asked again under its id for so long; < answersKeep
	openMax    = 256              // claims without an answer of one queue; beyond: the works of the oldest wait for the roll call
	gotMax     = 64               // answers that the next claim says have come
)

// claimAsk asks the owner of a shard for works.
type claimAsk struct {
	ID       string     `json:"id"`    // the same question gets the same works
	Model    string     `json:"model"` // the queue
	Priority rank       `json:"p,omitempty"`
	N        int        `json:"n"`
	Taste    task.Taste `json:"taste,omitzero"`
	Node     string     `json:"node"`
	Boot     string     `json:"boot"`
	Engine   string     `json:"engine"`
	Got      []string   `json:"got,omitempty"` // earlier claims whose answers came: they may be forgotten

	since time.Time
}

// claimAnswer brings them.
type claimAnswer struct {
	Now   time.Time       `json:"now"`             // by the owner's wall clock
	Age   time.Duration   `json:"age,omitempty"`   // of the works: so much of their leases is over
	Works json.RawMessage `json:"works,omitempty"` // []*task.Work
	More  bool            `json:"more,omitempty"`  // there is something else to claim, in Next
	Next  time.Duration   `json:"next,omitempty"`
	Err   *task.Said      `json:"err,omitempty"` // why there are not more
}

// Queue is the way to the waiting tasks of a shard that another node owns. It is safe for many goroutines.
type Queue struct {
	f     *Far
	shard int

	mu   sync.Mutex
	next map[task.QueueName]time.Time // as the newest answer said; only of those that had something
	open map[asker]claimAsk           // asked, and nobody knows whether it was granted
	got  []string
}

// asker is for whom a claim was.
type asker struct {
	name   task.QueueName
	engine string
}

// Shard returns the number of the shard.
func (q *Queue) Shard() int { return q.shard }

// Near tells that another node owns the shard.
func (q *Queue) Near() bool { return false }

// Next returns what the newest answer said of a queue.
func (q *Queue) Next(name task.QueueName) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.next[name]
	return at, ok
}

// Claim asks the owner for up to n works and calls done once, from another goroutine or, after Stop, from this one. What
// the owner granted and could not say, it says to the next Claim for the same engine, or the roll call heals.
func (q *Queue) Claim(name task.QueueName, n int, c *task.Claim, done func([]*task.Work, error)) {
	if !q.f.spawn(func() { done(q.claim(name, n, c)) }) {
		done(nil, fault.New(fault.Unavailable, "far.claim", "", "this node is stopping"))
	}
}

func (q *Queue) claim(name task.QueueName, n int, c *task.Claim) ([]*task.Work, error) {
	at := asker{name, c.Engine}
	ask := q.begin(at, claimAsk{ID: uuid.NewString(), Model: name.Model, Priority: rankOf(name), N: min(n, claimMax), Taste: c.Taste, Node: c.Node, Boot: c.Boot, Engine: c.Engine})
	works, next, more, err := q.call(&ask)
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.next, name)
	if more {
		q.next[name] = next
	}
	if err != nil && works == nil {
		if len(q.open) < openMax {
			q.open[at] = ask
		}
		return nil, err
	}
	if len(q.got) < gotMax {
		q.got = append(q.got, ask.ID)
	}
	if len(works) > n { // an earlier, larger claim was answered
		for _, w := range works[n:] {
			w.Arrive(q.f.Router, q.f.Held)
			w.GiveBack("there is no room for it any more")
		}
		works = works[:n]
	}
	return works, err
}

// begin returns the claim to send: fresh, or an earlier one of the same asker without an answer.
func (q *Queue) begin(at asker, fresh claimAsk) claimAsk {
	now := q.f.Now()
	fresh.since = now
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, old := range q.open {
		if now.Sub(old.since) >= reclaimFor {
			delete(q.open, k)
		}
	}
	if old, ok := q.open[at]; ok && old.Boot == fresh.Boot {
		delete(q.open, at)
		fresh = old
	}
	fresh.Got, q.got = q.got, nil
	return fresh
}

// call brings a claim to the owner. works is nil when nobody knows what came of it.
func (q *Queue) call(ask *claimAsk) (works []*task.Work, next time.Time, more bool, err error) {
	body, err := encode(ask)
	if err != nil {
		return nil, next, false, err
	}
	ctx, cancel := context.WithTimeout(q.f.ctx, claimFor)
	defer cancel()
	var a claimAnswer
	body, err = q.f.Router.CallOwner(ctx, q.shard, opClaim, body, func(ctx context.Context, o *cluster.Owner) error {
		a, err = q.f.grant(ctx, q.f.Router.Self(), o, *ask) // the shard came here meanwhile
		return err
	})
	if err == nil && body != nil {
		err = decode(opClaim, body, &a)
	}
	if err != nil {
		return nil, next, false, err
	}
	works = []*task.Work{}
	if len(a.Works) > 0 {
		if err := decode(opClaim, a.Works, &works); err != nil {
			return nil, next, false, err
		}
	}
	now := q.f.Now()
	for _, w := range works {
		if w.Left == 0 { // an owner of an older version
			w.Left = w.Lease.Sub(a.Now)
		}
		w.Left -= a.Age
	}
	return works, now.Add(a.Next), a.More, a.Err.Err()
}
