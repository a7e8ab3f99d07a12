package members

import (
	"context"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	updateWait = 2 * time.Second // for an update to reach somebody; then the next exchange carries it
	leaveWait  = 2 * time.Second // for the goodbye to go out, when Leave's context has no end
)

// List is this node among the members of its cluster. It is safe for many goroutines.
type List struct {
	opt    Options
	log    *slog.Logger
	config *memberlist.Config
	table  *table
	rumors *rumors
	gossip *memberlist.Memberlist

	conflicts chan conflict
	heard     chan heard
	told      sync.Once   // OnConflict was called
	taken     atomic.Bool // an older process has this name: nothing is said in it any more

	updating sync.Mutex // one Update, SetKeys, Leave or Stop at a time
	left     bool       // guarded by updating
	stopped  bool       // guarded by updating

	ctx    context.Context // of both goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// heard is something for OnRumor or Merge.
type heard struct{ rumor, state []byte }

// Start listens, and begins to look for the seeds; it does not wait for them. The faults are Invalid (an
// option), Refused (no key), TooLarge (Self does not fit), Unavailable (the address cannot be listened on).
func Start(opt Options) (*List, error) {
	c, err := opt.config()
	if err != nil {
		return nil, err
	}
	b, err := encodeMeta(opt.Self)
	if err != nil {
		return nil, err
	}
	l := &List{opt: opt, log: opt.Log, config: c, table: newTable(opt.Self, b),
		conflicts: make(chan conflict, 1), heard: make(chan heard, heardMax)}
	l.rumors = newRumors(func() int { n, _, _ := l.table.others(); return n + 1 })
	d := delegate{l}
	c.Delegate, c.Events, c.Conflict, c.Merge, c.Alive = d, d, d, d, d
	c.LogOutput, c.Logger = nil, log.New(newGossipLog(opt.Log), "", 0)
	if l.gossip, err = memberlist.Create(c); err != nil {
		return nil, fault.New(fault.Unavailable, "members.start", net.JoinHostPort(c.BindAddr, ""), "%w", err).
			WithRemedy("check that the gossip address is this machine's and free, for UDP and TCP, and set the one to advertise")
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.hear)
	l.wg.Go(newSeeker(l).run)
	return l, nil
}

// Addr returns the host:port that others reach this node's gossip at.
func (l *List) Addr() string { m, _ := l.table.own(); return m.Gossip }

// Self returns what this node says of itself.
func (l *List) Self() Member { m, _ := l.table.own(); return m }

// Members returns a copy of the living members with this node, by name.
func (l *List) Members() []Member { return l.table.members() }

// Changed returns a channel that gets a value after each change of what Members returns, merged
// when its reader is slow, and a function that ends it.
func (l *List) Changed() (<-chan struct{}, func()) { return l.table.watch() }

// Update changes what this node says of itself, and tells the others. Name, Boot and Cluster stay. f must not call
// the List. It returns when some others were told or after updateWait; the rest hear of it with the next exchange.
func (l *List) Update(f func(*Member)) error {
	l.updating.Lock()
	defer l.updating.Unlock()
	return l.update(f)
}

func (l *List) update(f func(*Member)) error {
	if l.stopped {
		return fault.New(fault.Unavailable, "members.update", "", "gossip has stopped")
	}
	var changed bool
	err := l.table.setSelf(func(m Member) (Member, []byte, error) {
		was := m
		f(&m)
		if m.Name != was.Name || m.Boot != was.Boot || m.Cluster != was.Cluster || m.Gossip != was.Gossip {
			return was, nil, fault.New(fault.Invalid, "members.update", m.Name, "name, boot, cluster and gossip address stay for the life of the process")
		}
		changed = m != was
		b, err := encodeMeta(m)
		return m, b, err
	})
	if err != nil || !changed || l.taken.Load() {
		return err
	}
	if err := l.gossip.UpdateNode(updateWait); err != nil {
		l.log.Debug("nobody was told of an update yet", "err", err)
	}
	return nil
}

// Leave tells the others that this node stops (Member.Stopping), so that they need not find out, and stays reachable
// until Stop. That it should lose its replicas is another matter: Member.Leaving. It returns when the goodbye is out or ctx ends. After it nobody is joined any more.
func (l *List) Leave(ctx context.Context) error {
	l.updating.Lock()
	defer l.updating.Unlock()
	if l.stopped || l.left {
		return nil
	}
	l.left = true
	l.stopLoops()
	if l.taken.Load() {
		return nil // a goodbye would be the other one's, and waiting for it to be out takes most of a second
	}
	if err := l.update(func(m *Member) { m.Stopping = true }); err != nil {
		l.log.Debug("stopping is not said", "err", err)
	}
	wait := leaveWait
	if t, ok := ctx.Deadline(); ok {
		wait = max(time.Until(t), time.Millisecond) // 0 would be for ever
	}
	if err := l.gossip.Leave(wait); err != nil {
		return fault.New(fault.Timeout, "members.leave", "", "%w", err)
	}
	return nil
}

// Stop ends gossip without a goodbye; call Leave first where the node is to be gone. It waits for this package's
// goroutines, which includes a seed being dialed (2 s at most), and is safe to call twice.
func (l *List) Stop() error {
	l.updating.Lock()
	defer l.updating.Unlock()
	l.stopLoops()
	if l.stopped {
		return nil
	}
	l.stopped = true
	return l.gossip.Shutdown()
}

func (l *List) stopLoops() {
	l.cancel()
	l.wg.Wait()
}

// post hands something to hear, or lets it go when too much waits there: what is
// said again with the next exchange is not worth holding up gossip for.
func (l *List) post(h heard) {
	select {
	case l.heard <- h:
	default:
		l.log.Debug("not heard", "limit", "heardMax", "max", heardMax)
	}
}

// hear calls OnRumor and Merge, one at a time.
func (l *List) hear() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case h := <-l.heard:
			if h.rumor != nil {
				l.opt.OnRumor(h.rumor)
			} else {
				l.opt.Merge(h.state)
			}
		}
	}
}

// jitter returns d, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
