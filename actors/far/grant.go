package far

import (
	"context"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	answersKeep  = 30 * time.Second // a claim is answered the same way for so long
	answersMax   = 16384            // claims remembered; beyond these two the oldest go, and a retry waits for the roll call
	answersBytes = 32 << 20
	namesMax     = persistence.KeyMax // bytes of a claim's names
)

// answers remembers what claims of other nodes were granted, so that the same question gets the same works. It is
// safe for many goroutines.
type answers struct {
	mu    sync.Mutex
	by    map[string]*answer
	order []*answer // those in by, oldest first
	bytes int
}

// answer is what one claim was granted. Its works go once its asker has them; that it was answered stays, or a
// copy of the claim that comes late would take more.
type answer struct {
	id    string
	began time.Time
	done  chan struct{} // closed when the rest is set
	works []byte        // JSON; nil as well when the asker has them
	count int
	err   error
	gone  bool // not in by any more
}

// begin returns the answer to a claim; fresh tells that it is to be made and given to ended.
func (s *answers) begin(id string, now time.Time) (a *answer, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.by[id]; a != nil {
		return a, false
	}
	a = &answer{id: id, began: now, done: make(chan struct{})}
	s.by[id] = a
	s.order = append(s.order, a)
	s.trimLocked(now)
	return a, true
}

// ended keeps what a claim was granted.
func (s *answers) ended(a *answer, works []byte, count int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.works, a.count, a.err = works, count, err
	if !a.gone {
		s.bytes += len(works)
	}
	close(a.done)
	s.trimLocked(a.began)
}

// forget drops the works that their askers have.
func (s *answers) forget(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if a := s.by[id]; a != nil {
			s.bytes -= len(a.works)
			a.works = nil
		}
	}
}

// get returns what an ended answer holds.
func (s *answers) get(a *answer) (works []byte, count int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.works, a.count, a.err
}

// trimLocked drops the oldest until all bounds are kept.
func (s *answers) trimLocked(now time.Time) {
	for len(s.order) > 0 {
		a := s.order[0]
		if len(s.order) <= answersMax && s.bytes <= answersBytes && now.Sub(a.began) < answersKeep {
			return
		}
		a.gone = true
		delete(s.by, a.id)
		s.bytes -= len(a.works)
		s.order[0] = nil
		s.order = s.order[1:]
	}
	s.order = nil
}

func (f *Far) serveClaim(ctx context.Context, from string, o *cluster.Owner, body []byte) ([]byte, error) {
	var ask claimAsk
	if err := decode(opClaim, body, &ask); err != nil {
		return nil, err
	}
	a, err := f.grant(ctx, from, o, ask)
	if err != nil {
		return nil, err
	}
	return encode(a)
}

// check refuses a claim that makes no sense, or comes from a process that is not known to live: its
// attempts would be taken back at once.
func (f *Far) check(from string, ask *claimAsk) error {
	for _, s := range []string{ask.ID, ask.Model, ask.Node, ask.Boot, ask.Engine} {
		if s == "" || len(s) > namesMax {
			return fault.New(fault.Invalid, "far.claim", from, "a claim's names have 1 to %d bytes", namesMax)
		}
	}
	if ask.N < 1 || ask.N > claimMax {
		return fault.New(fault.Invalid, "far.claim", from, "a claim of %d works: use 1 to %d", ask.N, claimMax)
	}
	for _, p := range f.Router.Alive() {
		if p.Name == from && p.Boot == ask.Boot {
			return nil
		}
	}
	return fault.New(fault.Unavailable, "far.claim", from, "node %s is not known here to live in this boot", from).
		WithRemedy("gossip brings it within seconds; if not, autoglm cluster status tells who sees whom")
}

// grant claims for another node, once for each claim id.
func (f *Far) grant(ctx context.Context, from string, o *cluster.Owner, ask claimAsk) (out claimAnswer, err error) {
	if err := f.check(from, &ask); err != nil {
		return out, err
	}
	q := f.Owned(o)
	if q == nil {
		return out, fault.New(fault.Fenced, "far.claim", "", "shard %d is closing", o.Shard())
	}
	name := ask.Priority.of(ask.Model)
	f.answers.forget(ask.Got[:min(len(ask.Got), gotMax)])
	a, fresh := f.answers.begin(ask.ID, f.Now())
	if fresh {
		c := &task.Claim{Node: from, Boot: ask.Boot, Engine: ask.Engine, Taste: ask.Taste, Room: task.NewRoom(claimBytes)}
		q.Claim(name, ask.N, c, func(works []*task.Work, err error) { f.granted(a, works, err) })
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return out, fault.New(fault.Timeout, "far.claim", from, "the tasks have not answered yet: %w", context.Cause(ctx))
	}
	works, count, err := f.answers.get(a)
	now := f.Now()
	out = claimAnswer{Now: now, Age: now.Sub(a.began), Works: works, Err: task.SaidOf(err)} // both of this process, so that Age is monotonic
	if at, ok := q.Next(name); ok {
		out.More, out.Next = true, max(at.Sub(out.Now), 0)
	}
	if count < ask.N && (!out.More || out.Next > 0) {
		f.crowd.short(from, o.Shard(), name, out.Now)
	}
	return out, nil
}

// granted keeps the works of a claim as they will travel.
func (f *Far) granted(a *answer, works []*task.Work, err error) {
	var body []byte
	if len(works) > 0 {
		var bad error
		if body, bad = encode(works); bad != nil { // they came from JSON
			for _, w := range works {
				w.GiveBack("it does not travel: " + bad.Error())
			}
			works, err = nil, bad
		}
	}
	f.answers.ended(a, body, len(works), err)
}
