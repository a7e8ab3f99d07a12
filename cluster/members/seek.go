package members

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	seekFirst     = 200 * time.Millisecond // after a try that met nobody; doubled up to seekMax, with jitter
	seekMax       = 5 * time.Second
	rejoinEvery   = 30 * time.Second       // between two looks for seeds and lost members that are not seen
	contestEvery  = 500 * time.Millisecond // between two tries while others still take an earlier boot for this node
	contestPings  = 3                      // to a process that seems to have this node's name; each waits Detect.Timeout
	contestAsked  = 16                     // members told directly of this boot at each try; gossip does the rest
	lookupTimeout = 5 * time.Second
	lookupMax     = 64 // addresses of one seed that are tried
)

// conflict is another address that somebody knows this node's name at.
type conflict struct {
	address string
	boot    string // "" when unknown
}

// seeker asks seeds: without pause while it sees nobody, now and then otherwise.
type seeker struct {
	l     *List
	wait  time.Duration // of the next try while alone
	alone bool          // no other member was seen at the last try
}

func newSeeker(l *List) *seeker { return &seeker{l: l, wait: seekFirst} }

func (s *seeker) run() {
	changed, end := s.l.table.watch()
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	conflicts := s.l.conflicts
	for {
		select {
		case <-s.l.ctx.Done():
			return
		case c := <-conflicts:
			if s.contest(c) {
				return
			}
			conflicts = nil // until the timer: each look brings the next conflict while others do not know better
			timer.Reset(jitter(contestEvery))
		case <-changed:
			if n, _, _ := s.l.table.others(); n == 0 && !s.alone {
				s.alone, s.wait = true, seekFirst // the last one is gone: hurry
				timer.Reset(jitter(s.wait))
			}
		case <-timer.C:
			conflicts = s.l.conflicts
			timer.Reset(s.seek())
		}
	}
}

// seek tries everybody who is not seen, and returns when to do so again.
func (s *seeker) seek() time.Duration {
	_, here, lost := s.l.table.others()
	for _, seed := range append(append([]string(nil), s.l.opt.Join...), lost...) {
		for _, addr := range s.resolve(seed) {
			if s.l.ctx.Err() != nil {
				return seekMax
			}
			if here[addr] {
				continue
			}
			if _, err := s.l.gossip.Join([]string{addr}); err != nil {
				s.l.log.Debug("seed not joined", "seed", seed, "address", addr, "err", err)
				continue
			}
			_, here, _ = s.l.table.others()
		}
	}
	n, _, _ := s.l.table.others()
	if s.alone = n == 0; !s.alone {
		s.wait = seekFirst
		return jitter(s.l.opt.Rejoin)
	}
	d := jitter(s.wait)
	s.wait = min(2*s.wait, seekMax)
	return d
}

// resolve returns the addresses of a seed, at most lookupMax, in the form that Member.Gossip has.
func (s *seeker) resolve(seed string) (all []string) {
	host, port, err := hostPort(seed)
	if err != nil {
		return nil
	}
	ips := make([]netip.Addr, 0, 1)
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else {
		ctx, cancel := context.WithTimeout(s.l.ctx, lookupTimeout)
		defer cancel()
		if ips, err = s.l.opt.Lookup(ctx, host); err != nil {
			s.l.log.Debug("seed not found", "seed", seed, "err", err)
			return nil
		}
	}
	for _, ip := range ips[:min(len(ips), lookupMax)] {
		all = append(all, net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(port)))
	}
	return all
}

// contest finds out whether a living process has this node's name. Others may also remember an earlier boot of
// this node at another address: then they find it dead in a moment, and asking again meanwhile makes them
// take this one. It returns true when the name belongs to somebody else.
func (s *seeker) contest(c conflict) bool {
	self := s.l.Self()
	if c.address == self.Gossip {
		return false
	}
	if addr, err := net.ResolveUDPAddr("udp", c.address); err == nil {
		for range contestPings {
			if _, err := s.l.gossip.Ping(self.Name, addr); err == nil && s.l.ctx.Err() == nil {
				return s.meet(c, self)
			}
		}
	}
	asked := 0
	for _, m := range s.l.table.members() {
		if m.Name == self.Name || s.l.ctx.Err() != nil || asked >= contestAsked {
			continue
		}
		asked++
		if _, err := s.l.gossip.Join([]string{m.Gossip}); err != nil {
			s.l.log.Debug("not told of this boot", "member", m.Name, "err", err)
		}
	}
	return false
}

// meet decides between two living processes of one name: the later boot is the newcomer.
func (s *seeker) meet(c conflict, self Member) bool {
	if c.boot > self.Boot {
		s.l.log.Warn("another process starts under this node's name", "name", self.Name, "address", c.address, "boot", c.boot)
		return false
	}
	err := fault.New(fault.Conflict, "members.join", self.Name, "a living node at %s has this name since before this one started", c.address).
		WithRemedy("give each node its own name, or stop the other one")
	s.l.taken.Store(true)
	s.l.told.Do(func() {
		s.l.log.Error("this node's name is taken", "err", err)
		if s.l.opt.OnConflict != nil {
			go s.l.opt.OnConflict(err) // it may call Stop, which waits for this goroutine
		}
	})
	return true
}
