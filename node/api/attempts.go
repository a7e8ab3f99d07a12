package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of refused attempts in the audit log: an entry is kept for ever, and who is refused may ask again as often as they like.
const (
	attemptsAtOnce  = 3           // of one key, or of one address that shows no good key
	attemptsEvery   = time.Minute // then one so often
	knownAtOnce     = 60          // of all keys at a node
	knownEvery      = 10 * time.Second
	strangersAtOnce = 30 // of all addresses at a node: they use up nothing of the keys'
	strangersEvery  = time.Minute
	attemptersMax   = 1024            // keys and addresses that are remembered
	attemptWithin   = 2 * time.Second // the refusal waits no longer for its entry
)

// attempts decides which refused attempts are written down. The others are counted, and the next entry says how many there were.
type attempts struct {
	mu               sync.Mutex
	by               map[string]*rate.Limiter
	known, strangers *rate.Limiter
	dropped          int
}

func newAttempts() *attempts {
	return &attempts{by: map[string]*rate.Limiter{}, known: rate.NewLimiter(rate.Every(knownEvery), knownAtOnce),
		strangers: rate.NewLimiter(rate.Every(strangersEvery), strangersAtOnce)}
}

// take tells whether one more of a key's ("": a stranger's at an address) is written down, and how many were not before it.
func (a *attempts) take(key, addr string, now time.Time) (dropped int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, all := "key "+key, a.known
	if key == "" {
		name, all = "addr "+network(addr), a.strangers
	}
	l := a.by[name]
	if l == nil {
		if len(a.by) >= attemptersMax {
			clear(a.by) // the node's own limits hold
		}
		l = rate.NewLimiter(rate.Every(attemptsEvery), attemptsAtOnce)
		a.by[name] = l
	}
	if !l.AllowN(now, 1) || !all.AllowN(now, 1) {
		a.dropped++
		return 0, false
	}
	dropped, a.dropped = a.dropped, 0
	return dropped, true
}

// network is what one client has of addresses: one, or of IPv6 a /64.
func network(hostport string) string {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return hostport
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	p, _ := addr.Prefix(64) // it has more bits
	return p.String()
}

// attempted writes down that somebody was refused what is for administrators: a key without the right to it, one that has ended, or
// one that nobody knows. Who shows none is turned away without.
func (s *Server) attempted(r *http.Request, who access.Caller, need access.Need, err error) {
	if need.Role != apikey.Admin || fault.KindOf(err) != fault.Refused || err == access.ErrNone {
		return
	}
	s.refused(r.Context(), who, r.Method+" "+r.URL.Path, err)
}

func (s *Server) refused(ctx context.Context, who access.Caller, what string, err error) {
	if s.access.Audit == nil {
		return
	}
	dropped, ok := s.attempts.take(who.Key, remote(ctx), time.Now())
	if !ok {
		return
	}
	e := audit.Entry{Tenant: who.Tenant, By: who.Key, Remote: remote(ctx), Act: "refused", Object: what, Request: requestID(ctx)}
	switch {
	case who.Open:
		e.By = "anonymous"
	case who.Key == "":
		e.By, e.Tenant = "unknown", tenant.Default
	}
	if dropped > 0 {
		e.Detail = fmt.Sprintf("%d more at this node, since the one before, were not written down", dropped)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptWithin)
	defer cancel()
	if werr := s.access.Audit.Do(ctx, e, func() error { return err }); werr != err {
		s.log.Warn("a refused attempt could not be written to the audit log", "by", e.By, "remote", e.Remote, "object", what, "err", werr)
	}
}
