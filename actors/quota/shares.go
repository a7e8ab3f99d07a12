package quota

import (
	"errors"
	"math"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
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
	asks  uint64
	have  map[account]*have
	hands map[who]*hand // whether they are under a quota or not: one may come, go and change while they run
}

// who is whose work something is.
type who struct {
	tenant   string
	priority int
}

// hand is what this node has of somebody's work.
type hand struct {
	running int     // claimed or asked for
	tokens  float64 // spent, since the process began
}

// have is one account on this node.
type have struct {
	share    Share
	lent     bool    // the share is of the newest answer: else nothing was lent yet
	more     bool    // something waited since the last ask
	requests float64 // admitted
	queue    int     // that may still be admitted under the share
	admitted int     // and may not be in the journal yet
	wanted   int     // tasks that somebody would like to admit
	bytes    room    // as queue, admitted and wanted, of bytes
	came     time.Duration
	waited   time.Duration // something waited for tokens, or ran, last
}

// room is what of a limit a node has in hand.
type room struct{ left, admitted, wanted int }

// errLater is in the chain of what is refused because the node's share is too small as yet, and not the quota.
var errLater = errors.New("this node has not been lent enough of its quota yet")

// take notes what was let in; without a limit nothing is left to take from.
func (r *room) take(limit, n int) {
	if limit > 0 {
		r.left -= n
	}
	r.admitted += n
}

// Something is asked for as long after it was needed last: who comes again finds it.
const (
	requestsKept = 10 * time.Second
	tokensKept   = 5 * time.Second
)

// NewShares returns shares of a node that has heard of no quotas. mono is a clock that nobody sets.
func NewShares(mono func() time.Duration) *Shares {
	return &Shares{mono: mono, have: map[account]*have{}, hands: map[who]*hand{}}
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
	if t, ok := s.book.Terms[tenant]; ok {
		as = t.of(priority)
	}
	return as
}

// limits returns those of an account.
func (s *Shares) limits(a account) Limits {
	t := s.book.Terms[a.Tenant]
	return t.accounts()[a]
}

func (s *Shares) hand(tenant string, priority int) *hand {
	w := who{tenant, priority}
	h := s.hands[w]
	if h == nil {
		if len(s.hands) >= handsMax {
			for w, h := range s.hands {
				if _, limited := s.book.Terms[w.tenant]; h.running == 0 && !limited {
					delete(s.hands, w)
				}
			}
		}
		h = &hand{}
		s.hands[w] = h
	}
	return h
}

// handsMax bounds the hands kept of whose work nothing runs.
const handsMax = 4096

// sum is what is in hand of an account.
func (s *Shares) sum(a account) (all hand) {
	c := Class{Priorities: a.Class}
	for p := 0; p <= task.PriorityMax; p++ {
		if h := s.hands[who{a.Tenant, p}]; h != nil && (a.Class == "" || c.Has(p)) {
			all.running += h.running
			all.tokens += h.tokens
		}
	}
	return all
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
			h.more = true
			if n = min(n, h.share.Running-s.sum(a).running); !left {
				n = 0
			}
		}
		if l.TokensPerMinute > 0 {
			if h.waited = now; s.sum(a).tokens >= h.share.Tokens || !left {
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
	s.hand(tenant, priority).running += n
	return n
}

// Take is Reserve of what is here already, whether there was room or not.
func (s *Shares) Take(tenant string, priority, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hand(tenant, priority).running += n
}

// Return gives room of works back that ended, or were not claimed.
func (s *Shares) Return(tenant string, priority, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hand(tenant, priority)
	h.running = max(h.running-n, 0)
}

// Spend takes tokens; a negative number gives some back.
func (s *Shares) Spend(tenant string, priority, tokens int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hand(tenant, priority).tokens += float64(tokens)
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
	t, ok := s.book.Terms[tenant]
	return !s.known || ok && (t.Hard.RequestsPerMinute > 0 || t.Hard.Queued > 0 || t.Hard.Bytes > 0 || t.Over == Reject)
}

// OverBytes is in the chain of what is refused because its tenant keeps too much.
var OverBytes = errors.New("the tenant's quota of bytes is used up")

// admit takes n new tasks of a priority in with what they keep, or with none a file, or refuses them with an Overloaded fault that says when to come again. Settled must follow
// when they are in the journal, or are not.
func (s *Shares) admit(tenant string, priority, n, bytes int) (again time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := func(wait time.Duration, format string, args ...any) (time.Duration, error) {
		return min(max(wait, time.Second), time.Minute), fault.New(fault.Overloaded, "quota.admit", tenant, format, args...).
			WithRemedy("send it again after Retry-After; autoglm quota list shows what the tenant may have")
	}
	if !s.known {
		return over(time.Second, "this node does not know the tenants' quotas yet")
	}
	t, ok := s.book.Terms[tenant]
	if !ok {
		return 0, nil
	}
	now := s.mono()
	left := now < s.until
	h := s.account(account{Tenant: tenant})
	h.came = now // all is asked for at once, whatever is short
	h.wanted = max(h.wanted, n)
	if most := t.Hard.Bytes; most > 0 {
		h.bytes.wanted = max(h.bytes.wanted, bytes)
		if bytes > most {
			return 0, fault.New(fault.TooLarge, "quota.admit", tenant, "it has %d bytes, and the tenant's quota is %d in all", bytes, most).
				WithRemedy("send less at once, or ask the operator for a larger quota: there will never be room for it")
		}
		if s := h.share; !left || h.bytes.left < bytes && (!h.lent || s.Later.Bytes || bytes <= s.Bytes) {
			return over(time.Second, "%w: it may keep %d bytes", errLater, most)
		}
		if h.bytes.left < bytes {
			return max(leaseFor, time.Second), fault.New(fault.Overloaded, "quota.admit", tenant, "%w: it may keep %d in tasks, results and files, and there is no room for %d more", OverBytes, most, bytes).
				WithRemedy("delete what is not needed any more (DELETE /v1/tasks/{id}, /v1/files/{id}), have retention do it, or ask the operator for a larger quota")
		}
	}
	if n == 0 { // a file
		h.bytes.take(t.Hard.Bytes, bytes)
		return 0, nil
	}
	if t.Over == Reject && s.roomLocked(tenant, priority, 1) == 0 {
		return over(leaseFor, "what it may have running, or its tokens a minute, are used up, and its quota says reject")
	}
	requests, queued := t.Hard.RequestsPerMinute, t.Hard.Queued
	if requests > 0 && (!left || h.requests+float64(n) > h.share.Requests) {
		missing := h.requests + float64(n) - h.share.Requests
		return over(time.Duration(math.Ceil(missing*60/float64(requests)))*time.Second, "its quota is %d submitted tasks a minute", requests)
	}
	if s := h.share; queued > 0 && (!left || h.queue < n && (!h.lent || s.Later.Queue || n <= s.Queue)) {
		return over(time.Second, "%w: it may have %d tasks that wait or run", errLater, queued)
	}
	if queued > 0 && h.queue < n {
		return over(leaseFor, "its quota is %d tasks that wait or run: there is no room for %d more", queued, n)
	}
	h.requests += float64(n)
	if queued > 0 {
		h.queue -= n
	}
	h.admitted += n
	h.bytes.take(t.Hard.Bytes, bytes)
	return 0, nil
}

// Settled says that n tasks that were admitted are in the journal, or will not be; new is how many of them are new: the others cost nothing. So with
// the bytes.
func (s *Shares) Settled(tenant string, n, new, bytes, newBytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.have[account{Tenant: tenant}]
	if h == nil {
		return
	}
	h.admitted = max(h.admitted-n, 0)
	h.requests = max(h.requests-float64(n-new), 0)
	if s.book.Terms[tenant].Hard.Queued > 0 {
		h.queue += n - new
	}
	h.bytes.admitted = max(h.bytes.admitted-bytes, 0)
	if s.book.Terms[tenant].Hard.Bytes > 0 {
		h.bytes.left += bytes - newBytes
	}
}

// ask says what this node has and would like, and begins to note anew. What it might still have admitted it gives back.
func (s *Shares) ask(node, boot string) Ask {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.mono()
	s.asks++
	q := Ask{Node: node, Boot: boot, N: s.asks, Has: s.seq, Wants: map[string]Want{}}
	if s.known {
		q.Knows = s.book.Version
	}
	for a, h := range s.have {
		submits := h.came > 0 && now-h.came < requestsKept
		in := s.sum(a)
		w := Want{Running: in.running, More: h.more, Tokens: in.tokens, MoreTokens: in.running > 0 || h.waited > 0 && now-h.waited < tokensKept,
			Requests: h.requests, MoreRequests: submits, Admitted: h.admitted, AdmittedBytes: h.bytes.admitted}
		if submits && s.limits(a).Queued > 0 {
			w.Queue = max(h.wanted, 1)
		}
		if submits && s.limits(a).Bytes > 0 {
			w.Bytes = max(h.bytes.wanted, 1)
		}
		q.Wants[a.String()] = w
		h.more, h.wanted, h.queue, h.bytes.wanted, h.bytes.left = false, 0, 0, 0, 0
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
	for a, h := range s.have {
		if h.share, h.lent, h.queue, h.bytes.left = (Share{}), false, 0, 0; s.limits(a) == (Limits{}) && h.admitted == 0 && h.bytes.admitted == 0 { // a share that is not named is none
			delete(s.have, a)
		}
	}
	for name, share := range r.Shares {
		h := s.account(parseAccount(name))
		h.share, h.lent, h.queue, h.bytes.left = share, true, share.Queue, share.Bytes
	}
	for whose, t := range s.book.Terms { // each is asked for, with what is in hand, from the first time on
		for a := range t.accounts() {
			if a.Tenant == whose {
				s.account(a)
			}
		}
	}
}

// none says that nobody lends here: all nodes, or the one that would, are of a version without quotas.
func (s *Shares) none() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.book = true, Book{}
}

// knows tells whether this node has heard of the quotas.
func (s *Shares) knows() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// idle tells that no tenant has a quota, so that there is nothing to ask for often.
func (s *Shares) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known && len(s.book.Terms) == 0
}
