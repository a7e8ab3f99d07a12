package quota

import (
	"math"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Shares is what this node may have, and has. Until it has heard for the first time, nothing is claimed: a quota that it does not
// know might be over. It is safe for many goroutines.
type Shares struct {
	mono func() time.Duration

	mu    sync.Mutex
	known bool
	book  Book
	seq   uint64
	until time.Duration // end of the lease
	have  map[account]*have
}

// have is one account on this node.
type have struct {
	share    Share
	running  int // in hand: claimed or asked for
	tokens   bucket
	requests bucket
	wants    Want          // since the last ask
	queue    int           // that may still be admitted under the share
	came     time.Duration // somebody submitted last
	waited   time.Duration // something waited for tokens, or ran, last
}

// A rate is asked for as long after it was needed last: who comes again finds it.
const (
	requestsKept = time.Minute
	tokensKept   = 5 * time.Second
)

// burst is what a bucket holds, in terms of its rate: as long as a lease.
const burst = leaseFor

// bucket is tokens that come at a rate. It may be in debt: what a task takes is known when it is over.
type bucket struct {
	level float64
	rate  float64 // a minute
	at    time.Duration
}

// set changes the rate. A bucket whose rate was nothing begins with what comes in an askEvery, or one, so that the first need not wait.
func (b *bucket) set(now time.Duration, rate float64) {
	b.fill(now)
	if b.rate == 0 && b.level >= 0 && rate > 0 {
		b.level = max(rate*askEvery.Minutes(), 1)
	}
	b.rate = rate
	b.level = min(b.level, b.cap())
}

// cap is what the bucket holds.
func (b *bucket) cap() float64 {
	if b.rate <= 0 {
		return 0
	}
	return max(b.rate*burst.Minutes(), 1)
}

func (b *bucket) fill(now time.Duration) {
	b.level = min(b.level+b.rate*(now-b.at).Minutes(), max(b.cap(), b.level))
	b.at = now
}

// wait is how long until there are n.
func (b *bucket) wait(n float64) time.Duration {
	if b.rate <= 0 {
		return leaseFor
	}
	return time.Duration(math.Ceil((n-b.level)/b.rate*60)) * time.Second
}

// NewShares returns shares of a node that has heard of no quotas. mono is a clock that nobody sets.
func NewShares(mono func() time.Duration) *Shares {
	return &Shares{mono: mono, have: map[account]*have{}}
}

func (s *Shares) account(a account) *have {
	h := s.have[a]
	if h == nil {
		h = &have{}
		s.have[a] = h
	}
	return h
}

// accounts returns the limits that a tenant's task of a priority is under.
func (s *Shares) accounts(tenant string, priority int) (as []account) {
	if spec, ok := s.book.Terms[tenant]; ok {
		as = spec.of(priority)
	}
	return as
}

// limits returns those of an account.
func (s *Shares) limits(a account) Limits {
	spec := s.book.Terms[a.Tenant]
	return spec.accounts()[a]
}

// Room is how many works of a tenant and priority may be claimed now, at most n.
func (s *Shares) Room(tenant string, priority, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomLocked(tenant, priority, n)
}

func (s *Shares) roomLocked(tenant string, priority, n int) int {
	if !s.known {
		return 0
	}
	now := s.mono()
	for _, a := range s.accounts(tenant, priority) {
		h, l := s.account(a), s.limits(a)
		left := now < s.until
		if l.Running > 0 {
			h.wants.More = true
			if n = min(n, h.share.Running-h.running); !left {
				n = 0
			}
		}
		if l.TokensPerMinute > 0 {
			h.waited = now
			if h.tokens.fill(now); h.tokens.level <= 0 || !left {
				n = 0
			}
		}
	}
	return max(n, 0)
}

// Reserve takes room for up to n works, and says for how many. Return gives it back.
func (s *Shares) Reserve(tenant string, priority, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = s.roomLocked(tenant, priority, n)
	for _, a := range s.accounts(tenant, priority) {
		s.account(a).running += n
	}
	return n
}

// Return gives room of works back that ended, or were not claimed.
func (s *Shares) Return(tenant string, priority, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts(tenant, priority) {
		h := s.account(a)
		h.running = max(h.running-n, 0) // a quota that is new does not know what was claimed before
	}
}

// Spend takes tokens; a negative number gives some back.
func (s *Shares) Spend(tenant string, priority, tokens int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.mono()
	for _, a := range s.accounts(tenant, priority) {
		h := s.account(a)
		h.tokens.fill(now)
		h.tokens.level -= float64(tokens)
	}
}

// Terms is the quota of a tenant, as this node knows it; ok is false for none.
func (s *Shares) Terms(tenant string) (t Terms, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok = s.book.Terms[tenant]
	return t, ok
}

// Weight is what the tenant's quota says; ok is false when it says nothing.
func (s *Shares) Weight(tenant string) (w float64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w = s.book.Terms[tenant].Weight
	return w, w > 0
}

// limited tells whether submitting is.
func (s *Shares) limited(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	spec, ok := s.book.Terms[tenant]
	return !s.known || ok && (spec.Hard.RequestsPerMinute > 0 || spec.Hard.Queued > 0 || spec.Over == Reject)
}

// admit takes n new tasks of a priority in, or refuses them with an Overloaded fault that says when to come again.
func (s *Shares) admit(tenant string, priority, n int) (again time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := func(wait time.Duration, format string, args ...any) (time.Duration, error) {
		return max(wait, time.Second), fault.New(fault.Overloaded, "quota.admit", tenant, format, args...).
			WithRemedy("send it again after Retry-After; autoglm quota list shows what the tenant may have")
	}
	if !s.known {
		return over(time.Second, "this node does not know the tenants' quotas yet")
	}
	spec, ok := s.book.Terms[tenant]
	if !ok {
		return 0, nil
	}
	now := s.mono()
	left := now < s.until
	a := account{Tenant: tenant}
	h := s.account(a)
	if spec.Hard.RequestsPerMinute > 0 { // all is asked for at once, whatever is short
		h.came = now
	}
	if spec.Hard.Queued > 0 {
		h.wants.Queue = max(h.wants.Queue, n)
	}
	if spec.Over == Reject && s.roomLocked(tenant, priority, 1) == 0 {
		return over(leaseFor, "what it may have running, or its tokens a minute, are used up, and its quota says reject")
	}
	if limit := spec.Hard.RequestsPerMinute; limit > 0 {
		h.requests.fill(now)
		if !left || h.requests.level < min(float64(n), max(h.requests.cap(), 1)) {
			return over(h.requests.wait(float64(n)), "its quota is %d submitted tasks a minute", limit)
		}
	}
	if limit := spec.Hard.Queued; limit > 0 {
		if !left || h.queue < n {
			return over(leaseFor, "its quota is %d tasks that wait or run: there is no room for %d more", limit, n)
		}
		h.queue -= n
	}
	if spec.Hard.RequestsPerMinute > 0 {
		h.requests.level -= float64(n) // a full bucket lends to who asks for more than it holds
	}
	return 0, nil
}

// ask says what this node has and would like, and begins to note anew.
func (s *Shares) ask(node, boot string) Ask {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.mono()
	q := Ask{Node: node, Boot: boot, Has: s.seq, Wants: map[string]Want{}}
	if s.known {
		q.Knows = s.book.Version
	}
	for a, h := range s.have {
		w := h.wants
		w.Running = h.running
		w.Tokens = h.running > 0 || h.waited > 0 && now-h.waited < tokensKept
		w.Requests = h.came > 0 && now-h.came < requestsKept
		if w != (Want{}) {
			q.Wants[a.String()] = w
		}
		h.wants = Want{}
	}
	return q
}

// heard takes an answer in to a question that was asked at a time.
func (s *Shares) heard(asked time.Duration, r Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Book != nil {
		s.book = *r.Book
	}
	s.known, s.seq, s.until = true, r.Seq, asked+r.For
	now := s.mono()
	for a, h := range s.have {
		if s.limits(a) == (Limits{}) && h.running == 0 {
			delete(s.have, a)
		}
	}
	for name, share := range r.Shares {
		h := s.account(parseAccount(name))
		h.share, h.queue = share, share.Queue
		h.tokens.set(now, share.Tokens)
		h.requests.set(now, share.Requests)
	}
}

// none says that nobody lends here: all nodes, or the one that would, are of a version without quotas.
func (s *Shares) none() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.book = true, Book{}
}

// idle tells that no tenant has a quota, so that there is nothing to ask for often.
func (s *Shares) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known && len(s.book.Terms) == 0
}
