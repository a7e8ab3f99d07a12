package quota

import (
	"math"
	"time"
)

// leaseFor is how long a share is good; a node asks each askEvery, so that one lost answer does no harm.
const (
	leaseFor = 5 * time.Second
	askEvery = time.Second
)

// Ask is what a node has in hand, has used, and would like.
type Ask struct {
	Node  string          `json:"node"`
	Boot  string          `json:"boot"`
	N     uint64          `json:"n"`               // grows with each question of the process: one that was overtaken says nothing
	Knows uint64          `json:"knows,omitempty"` // Version of the Book that it has
	Has   uint64          `json:"has,omitempty"`   // Seq of the newest answer that it goes by
	Wants map[string]Want `json:"wants,omitempty"` // by account
}

// Want is what a node says of one account.
type Want struct {
	Running      int     `json:"running,omitempty"`       // in hand
	More         bool    `json:"more,omitempty"`          // and something waits
	Tokens       float64 `json:"tokens,omitempty"`        // spent since the process began
	MoreTokens   bool    `json:"more_tokens,omitempty"`   // something waits or runs
	Requests     float64 `json:"requests,omitempty"`      // admitted since the process began
	MoreRequests bool    `json:"more_requests,omitempty"` // somebody submits
	Queue        int     `json:"queue,omitempty"`         // tasks that it would like to admit
	Admitted     int     `json:"admitted,omitempty"`      // tasks that it has admitted and that may not be counted yet

	Bytes         int `json:"bytes,omitempty"`          // that it would like to admit
	AdmittedBytes int `json:"admitted_bytes,omitempty"` // as Admitted
}

// Share is what a node may have of one account until its lease ends.
type Share struct {
	Running  int     `json:"running,omitempty"`
	Tokens   float64 `json:"tokens,omitempty"`   // that it may have spent since its process began
	Requests float64 `json:"requests,omitempty"` // that it may have admitted since
	Queue    int     `json:"queue,omitempty"`    // tasks that it may admit, in place of what it had left
	Bytes    int     `json:"bytes,omitempty"`    // that it may admit, as Queue
	Later    Later   `json:"later,omitzero"`
}

// Later is of what less is lent than was wanted although it is not used up: it is lent to others, nobody counted, or nobody asked.
type Later struct {
	Queue bool `json:"queue,omitempty"`
	Bytes bool `json:"bytes,omitempty"`
}

// Count is what a tenant has in the cluster.
type Count struct {
	Tasks int // that have not ended
	Bytes int // that are kept
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
	pools map[string]*pools // by account
	heir  bool              // nothing was granted yet, and another may have lent before: what came in this minute may be spent
	told  bool              // all that are alive have said what they run
	until time.Duration     // who has not by then is not waited for
}

// tellWithin is how long a new ledger waits for living nodes to say what they run before it lends that: one that can reach everybody but who
// lends must not hold all up for ever.
const tellWithin = 20 * time.Second

// pools is what an account has to lend of what comes at a rate.
type pools struct{ tokens, requests pool }

// pool fills at a rate, up to what comes in a minute. What nodes say they spent is taken out, so it may be in debt: what a task
// takes is known when it is over.
type pool struct {
	level float64
	at    time.Duration
}

func (p *pool) fill(now time.Duration, perMinute int) {
	p.level = min(p.level+float64(perMinute)*(now-p.at).Minutes(), float64(perMinute))
	p.at = now
}

// holder is a node. It may go by any of its grants: an answer can be lost, so those before the one that it is known to have count, too.
type holder struct {
	boot   string
	n      uint64
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

// left is the most that the node may have beyond what it said: running tasks and bytes also past the lease.
func (h *holder) left(now time.Duration, name string) (most Share) {
	w := h.wants[name]
	most.Running, most.Queue, most.Bytes = w.Running, w.Admitted, w.AdmittedBytes
	for _, g := range h.grants {
		s := g.shares[name]
		most.Running = max(most.Running, s.Running)
		most.Bytes = max(most.Bytes, w.AdmittedBytes+s.Bytes) // what was let in under it may still be on its way to its shard
		if g.until > now {
			most.Tokens, most.Requests = max(most.Tokens, s.Tokens-w.Tokens), max(most.Requests, s.Requests-w.Requests)
			most.Queue = max(most.Queue, w.Admitted+s.Queue)
		}
	}
	return most
}

// NewLedger returns a ledger of somebody who begins to lend now; after says for how long others may still have shares.
func NewLedger(now, after time.Duration) *Ledger {
	return &Ledger{from: now + after, until: now + after + tellWithin, nodes: map[string]*holder{}, pools: map[string]*pools{}, heir: after > 0}
}

// Spent is what of a minute's an account has used up: with what a task took more than was thought it may be more than there is.
type Spent struct {
	Tokens   int `json:"tokens,omitempty"`
	Requests int `json:"requests,omitempty"`
}

// Spent is what tenants' own accounts have used up, as far as nodes have said.
func (l *Ledger) Spent(now time.Duration, terms map[string]Terms) map[string]Spent {
	all := map[string]Spent{}
	for name, t := range terms {
		p := l.pools[account{Tenant: name}.String()]
		if p == nil {
			continue
		}
		of := func(p pool, perMinute int) int {
			p.fill(now, perMinute) // a copy
			return max(perMinute-int(p.level), 0)
		}
		all[name] = Spent{of(p.tokens, t.Hard.TokensPerMinute), of(p.requests, t.Hard.RequestsPerMinute)}
	}
	return all
}

// Grant decides what a node is lent, and remembers it under seq, which grows. alive is the nodes whose tasks are still theirs, by name with
// their boots; count is what tenants have, counted since the question came; nil where nobody counted.
func (l *Ledger) Grant(now time.Duration, seq uint64, ask Ask, terms map[string]Terms, count map[string]Count, alive map[string]string) map[string]Share {
	for name, h := range l.nodes {
		if h.over(now) && alive[name] != h.boot {
			delete(l.nodes, name)
		}
	}
	l.told = true
	for name, boot := range alive {
		if now >= l.until {
			break
		}
		if h := l.nodes[name]; name != ask.Node && (h == nil || h.boot != boot) {
			l.told = false
		}
	}
	me := &holder{boot: ask.Boot, n: ask.N, wants: map[string]Want{}}
	old := l.nodes[ask.Node]
	if old != nil && old.boot != ask.Boot {
		old = nil
	}
	if old != nil {
		if ask.N <= old.n {
			return map[string]Share{}
		}
		for _, g := range old.grants {
			if g.seq >= ask.Has { // also past its end: what was claimed under it since the question left is not in it
				me.grants = append(me.grants, g)
			}
		}
	}
	shares := map[string]Share{}
	accounts := map[string]*pools{}
	for _, t := range terms {
		for a, limits := range t.accounts() {
			name := a.String()
			w, says := ask.Wants[name]
			if says { // else it does not know of the quota yet; what it spent before that is nobody's business
				me.wants[name] = w
			}
			p := l.pools[name]
			if p == nil {
				p = &pools{tokens: pool{at: now}, requests: pool{at: now}}
				if !l.heir { // nobody can have used any of it
					p.tokens.level, p.requests.level = float64(limits.TokensPerMinute), float64(limits.RequestsPerMinute)
				}
			}
			accounts[name] = p
			p.tokens.fill(now, limits.TokensPerMinute)
			p.requests.fill(now, limits.RequestsPerMinute)
			if old != nil {
				if before, ok := old.wants[name]; ok {
					p.tokens.level -= w.Tokens - before.Tokens
					p.requests.level -= w.Requests - before.Requests
				}
			}
			if now >= l.from && len(me.grants) < grantsMax {
				shares[name] = l.share(now, ask.Node, name, w, limits, p, count[a.Tenant], count != nil, shared(alive, ask.Node))
			}
		}
	}
	l.pools, l.heir = accounts, false // those without a quota are forgotten
	me.grants = append(me.grants, grant{seq, now + leaseFor, shares})
	if len(me.grants) > grantsMax {
		me.grants = me.grants[:grantsMax] // the newest lends nothing
	}
	l.nodes[ask.Node] = me
	return shares
}

func (l *Ledger) share(now time.Duration, node, name string, w Want, limits Limits, p *pools, has Count, counted, shared bool) (s Share) {
	var others Share
	hungry := struct{ running, tokens, requests, queue, bytes int }{1, 1, 1, 1, 1}
	for other, h := range l.nodes {
		if other == node {
			continue
		}
		left, v := h.left(now, name), h.wants[name]
		others.Running += left.Running
		others.Tokens += left.Tokens
		others.Requests += left.Requests
		others.Queue += left.Queue
		others.Bytes += left.Bytes
		if h.over(now) {
			continue
		}
		hungry.running += one(v.More)
		hungry.tokens += one(v.MoreTokens)
		hungry.requests += one(v.MoreRequests)
		hungry.queue += one(v.Queue > 0)
		hungry.bytes += one(v.Bytes > 0)
	}
	if r := limits.Running; r > 0 && w.More && l.told {
		s.Running = max(min(r-others.Running, (r+hungry.running-1)/hungry.running), 0)
	} else if r > 0 {
		s.Running = max(min(r-others.Running, w.Running), 0)
	}
	s.Tokens, s.Requests = w.Tokens, w.Requests
	if limits.TokensPerMinute > 0 && w.MoreTokens {
		s.Tokens += part(p.tokens.level, others.Tokens, hungry.tokens)
	}
	if limits.RequestsPerMinute > 0 && w.MoreRequests {
		s.Requests += math.Floor(part(p.requests.level, others.Requests, hungry.requests))
	}
	if limits.Queued > 0 && w.Queue > 0 && counted {
		room := limits.Queued - has.Tasks - w.Admitted - others.Queue
		s.Queue = max(min(room, (limits.Queued+hungry.queue-1)/hungry.queue, most(room, w.Queue, shared)), 0)
	}
	s.Later.Queue = later(s.Queue, w.Queue, limits.Queued-has.Tasks-w.Admitted, counted)
	if limits.Bytes > 0 && w.Bytes > 0 && counted && l.told {
		room := limits.Bytes - has.Bytes - w.AdmittedBytes - others.Bytes
		s.Bytes = max(min(room, max((limits.Bytes+hungry.bytes-1)/hungry.bytes, w.Bytes), most(room, w.Bytes, shared)), 0) // one file is let in whole, or not
	}
	s.Later.Bytes = later(s.Bytes, w.Bytes, limits.Bytes-has.Bytes-w.AdmittedBytes, counted)
	return s
}

// later tells whether less was lent than is wanted, or than one, although what is not used up, left, would do as far as is known.
func later(lent, wants, left int, counted bool) bool {
	wants = max(wants, 1)
	return lent < wants && !(counted && left < wants)
}

// shared tells whether another node may come and ask.
func shared(alive map[string]string, node string) bool {
	for name := range alive {
		if name != node {
			return true
		}
	}
	return false
}

// most is what of the room one node gets at once: where others may come, no more than half, or what it wants. All of it would have the
// next one refused until the first has asked twice.
func most(room, wants int, shared bool) int {
	if !shared {
		return room
	}
	return max((room+1)/2, wants)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// part is an even part of what is there, as far as others may not use it.
func part(level, others float64, hungry int) float64 {
	return max(min(level-others, max(level/float64(hungry), 1)), 0)
}
