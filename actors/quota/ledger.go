package quota

import "time"

// leaseFor is how long a share is good; a node asks each askEvery, so that one lost answer does no harm.
const (
	leaseFor = 5 * time.Second
	askEvery = time.Second
)

// Ask is what a node has in hand and would like.
type Ask struct {
	Node  string          `json:"node"`
	Boot  string          `json:"boot"`
	Knows uint64          `json:"knows,omitempty"` // Version of the Book that it has
	Has   uint64          `json:"has,omitempty"`   // Seq of the newest answer that it goes by
	Wants map[string]Want `json:"wants,omitempty"` // by account
}

// Want is what a node would like of one account.
type Want struct {
	Running  int  `json:"running,omitempty"`  // in hand
	More     bool `json:"more,omitempty"`     // and something waits
	Tokens   bool `json:"tokens,omitempty"`   // something waits or runs
	Requests bool `json:"requests,omitempty"` // somebody submits
	Queue    int  `json:"queue,omitempty"`    // tasks that it would like to admit
}

// Share is what a node may have of one account until its lease ends.
type Share struct {
	Running  int     `json:"running,omitempty"`
	Tokens   float64 `json:"tokens,omitempty"`   // a minute
	Requests float64 `json:"requests,omitempty"` // a minute
	Queue    int     `json:"queue,omitempty"`    // tasks
}

// Answer is what a node is lent.
type Answer struct {
	Seq    uint64           `json:"seq"`
	For    time.Duration    `json:"for"` // from when it was asked for
	Shares map[string]Share `json:"shares,omitempty"`
	Book   *Book            `json:"book,omitempty"` // where the node knows an older one
}

// Ledger is what is lent to whom. It is pure and belongs to one goroutine; times are of a clock that nobody sets.
type Ledger struct {
	from  time.Duration // nothing is lent before: shares of an owner before may still be good
	nodes map[string]*holder
	lent  map[string][]loan // of Queue, by account
	told  bool              // all that are alive have said what they run
}

// holder is a node. It may go by any of its grants: an answer can be lost, so those before the one that it is known to have count, too.
type holder struct {
	boot   string
	wants  map[string]Want
	grants []grant
}

type grant struct {
	seq    uint64
	until  time.Duration
	shares map[string]Share
}

// grantsMax bounds the grants of one node that count: it asks one at a time, and most answers come.
const grantsMax = 16

func (h *holder) over(now time.Duration) bool {
	for _, g := range h.grants {
		if g.until > now {
			return false
		}
	}
	return true
}

// has is the most that the node may go by now; running tasks also past the lease.
func (h *holder) has(now time.Duration, name string) (most Share) {
	most.Running = h.wants[name].Running
	for _, g := range h.grants {
		s := g.shares[name]
		most.Running = max(most.Running, s.Running)
		if g.until > now {
			most.Tokens, most.Requests = max(most.Tokens, s.Tokens), max(most.Requests, s.Requests)
		}
	}
	return most
}

// loan is headroom in a queue that counts as used until it shows in the count.
type loan struct {
	until time.Duration
	tasks int
}

// NewLedger returns a ledger of somebody who begins to lend now; after says for how long others may still have shares.
func NewLedger(now, after time.Duration) *Ledger {
	return &Ledger{from: now + after, nodes: map[string]*holder{}, lent: map[string][]loan{}}
}

// Count is how many tasks of tenants have not ended, as of a time.
type Count struct {
	At    time.Duration
	Tasks map[string]int
}

// Grant decides what a node is lent, and remembers it under seq, which grows. alive is the nodes whose tasks are still theirs, by name with
// their boots.
func (l *Ledger) Grant(now time.Duration, seq uint64, ask Ask, specs map[string]Terms, count Count, alive map[string]string) map[string]Share {
	for name, h := range l.nodes {
		if h.over(now) && alive[name] != h.boot {
			delete(l.nodes, name)
		}
	}
	l.told = true
	for name, boot := range alive {
		if h := l.nodes[name]; name != ask.Node && (h == nil || h.boot != boot) {
			l.told = false
		}
	}
	me := &holder{boot: ask.Boot, wants: map[string]Want{}}
	if old := l.nodes[ask.Node]; old != nil && old.boot == ask.Boot {
		for _, g := range old.grants {
			if g.seq >= ask.Has && g.until > now {
				me.grants = append(me.grants, g)
			}
		}
	}
	shares := map[string]Share{}
	for _, s := range specs {
		for a, limits := range s.accounts() {
			name := a.String()
			w := ask.Wants[name]
			me.wants[name] = w
			if now >= l.from && len(me.grants) < grantsMax {
				shares[name] = l.share(now, ask.Node, name, w, limits, count)
			}
		}
	}
	me.grants = append(me.grants, grant{seq, now + leaseFor, shares})
	if len(me.grants) > grantsMax {
		me.grants = me.grants[:grantsMax] // the newest lends nothing
	}
	l.nodes[ask.Node] = me
	return shares
}

func (l *Ledger) share(now time.Duration, node, name string, w Want, limits Limits, count Count) (s Share) {
	running, tokens, requests := 0, 0.0, 0.0
	hungry := struct{ running, tokens, requests int }{1, 1, 1}
	for other, h := range l.nodes {
		if other == node {
			continue
		}
		has, v := h.has(now, name), h.wants[name]
		running += has.Running
		tokens += has.Tokens
		requests += has.Requests
		if h.over(now) {
			continue
		}
		hungry.running += one(v.More)
		hungry.tokens += one(v.Tokens)
		hungry.requests += one(v.Requests)
	}
	if r := limits.Running; r > 0 && w.More && l.told {
		s.Running = max(min(r-running, max(r/hungry.running, 1)), 0)
	} else if r > 0 {
		s.Running = max(min(r-running, w.Running), 0)
	}
	if w.Tokens {
		s.Tokens = rate(limits.TokensPerMinute, tokens, hungry.tokens)
	}
	if w.Requests {
		s.Requests = rate(limits.RequestsPerMinute, requests, hungry.requests)
	}
	if limits.Queued > 0 && w.Queue > 0 {
		s.Queue = l.headroom(now, name, w.Queue, limits.Queued, count)
	}
	return s
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rate is an even part of a limit, as far as others have left it.
func rate(limit int, others float64, hungry int) float64 {
	return max(min(float64(limit)-others, float64(limit)/float64(hungry)), 0)
}

// headroom lends room in a tenant's queue: what was lent before and may not show in the count yet is taken.
func (l *Ledger) headroom(now time.Duration, name string, want, limit int, count Count) int {
	var kept []loan
	taken := count.Tasks[parseAccount(name).Tenant]
	for _, x := range l.lent[name] {
		if x.until > count.At {
			kept = append(kept, x)
			taken += x.tasks
		}
	}
	n := max(min(want, limit-taken), 0)
	if n > 0 {
		kept = append(kept, loan{now + leaseFor, n})
	}
	l.lent[name] = kept
	return n
}
