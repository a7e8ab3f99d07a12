package members

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of this package.
const (
	keySize  = 32  // bytes: AES-256
	keysMax  = 8   // keys known at once; a rotation needs two
	seedsMax = 64  // Options.Join
	labelMax = 128 // bytes of a cluster id; memberlist's own limit is 255
	nameMax  = 128 // bytes of a member's name
)

// Options say who this node is and how it finds the others.
type Options struct {
	Self Member // Name and Cluster must be set; an empty Boot is made

	// Listen is the host:port for gossip, UDP and TCP. Port 0 takes a free one, for tests.
	Listen string
	// Advertise is the host:port that others reach Listen at. Empty: the address that Listen is bound to, or
	// a private one of this machine when that is all of them.
	Advertise string

	// Keys encrypt gossip, 32 bytes each. The first encrypts, all decrypt. A node without a
	// key is refused by Start unless Insecure is set.
	Keys     [][]byte
	Insecure bool

	Join []string // seeds, host:port; a name stands for all its addresses and is looked up at each try

	// OnRumor gets what another node's Rumor sent, at most once for each, in no order. State is sent along when two nodes
	// compare all they know, every few seconds and at a join; Merge gets the peer's. Each may be nil. OnRumor and Merge
	// run on one goroutine and own their bytes; State runs on several, must not block and is cut off at StateMax.
	OnRumor func([]byte)
	State   func() []byte
	Merge   func([]byte)

	// OnConflict is called once, on a goroutine of its own, when an older living process has this
	// node's name: this one should stop. The fault says where the other one is.
	OnConflict func(error)

	Newer  func(what string)                                                    // a member's "gossip" has a newer format; must not block; nil: nobody is told
	Log    *slog.Logger                                                         // nil: none
	Detect Detect                                                               // zero: DetectLAN
	Lookup func(ctx context.Context, host string) (ips []netip.Addr, err error) // of Join and Advertise; nil: the system's
	Rejoin time.Duration                                                        // between two looks for seeds that are not seen; 0: 30 s
}

// Detect tunes how fast a dead member is noticed. In a cluster of up to ten nodes one is taken for dead after
// about Probe (until somebody asks it) + Probe (until that has failed) + Suspicion × Probe (its time to object).
type Detect struct {
	Probe     time.Duration // each node asks one other this often
	Timeout   time.Duration // for its answer, before others are asked to ask; below Probe
	Suspicion int           // times Probe in which a suspect may still object
	Gossip    time.Duration // between two packets with news
	PushPull  time.Duration // between two exchanges of everything, with one other node
}

// DetectLAN notices a killed node in about 1.4 s, below 2 s (BenchmarkDetect), as a fifth of a second of delay
// anywhere is harmless: a member that is merely slow has 150 ms to answer, 100 ms more through others and over
// TCP, and a second to object to the suspicion. With two busy loops beside each
// core of two, no member of three was lost in a minute (BenchmarkFlap).
// Values below these were not faster where it counts: Raft fails a shard over in 0.7 s, without gossip.
var DetectLAN = Detect{Probe: 250 * time.Millisecond, Timeout: 150 * time.Millisecond, Suspicion: 4,
	Gossip: 100 * time.Millisecond, PushPull: 5 * time.Second}

// suspicionMaxMult bounds how long a suspicion waits for others to confirm it, in suspicion times.
const suspicionMaxMult = 2

// config checks the options, fills them in and says them in memberlist's words.
func (o *Options) config() (*memberlist.Config, error) {
	bad := func(key, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "members.start", key, format, args...)
	}
	switch {
	case o.Self.Name == "" || len(o.Self.Name) > nameMax:
		return nil, bad("name", "%q: 1 to %d bytes are needed", o.Self.Name, nameMax)
	case o.Self.Cluster == "" || len(o.Self.Cluster) > labelMax:
		return nil, bad("cluster", "%q: 1 to %d bytes are needed", o.Self.Cluster, labelMax)
	case len(o.Join) > seedsMax:
		return nil, bad("join", "%d seeds, more than seedsMax of %d", len(o.Join), seedsMax).WithRemedy("use a DNS name that stands for all")
	case len(o.Keys) == 0 && !o.Insecure:
		return nil, fault.New(fault.Refused, "members.start", "keys", "gossip has no key").WithRemedy("make one with autoglm init")
	}
	for _, s := range o.Join {
		if _, _, err := hostPort(s); err != nil {
			return nil, bad("join", "%w", err)
		}
	}
	if o.Self.Boot == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fault.New(fault.Unavailable, "members.start", "boot", "%w", err)
		}
		o.Self.Boot = id.String()
	}
	o.defaults()
	d := o.Detect
	if d.Probe <= 0 || d.Timeout <= 0 || d.Timeout >= d.Probe || d.Suspicion < 1 || d.Gossip <= 0 || d.PushPull <= 0 {
		return nil, bad("detect", "%+v: all must be positive, and Timeout below Probe", d)
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = o.Self.Name, o.Self.Cluster
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult, c.SuspicionMaxTimeoutMult = d.Probe, d.Timeout, d.Suspicion, suspicionMaxMult
	c.GossipInterval, c.PushPullInterval = d.Gossip, d.PushPull
	c.AwarenessMaxMultiplier = 4                        // a node that is short of time asks at most four times slower
	c.TCPTimeout = 2 * time.Second                      // bounds how long Stop waits for a seed that does not answer
	c.DeadNodeReclaimTime = time.Millisecond            // a name found dead may come back elsewhere at once
	c.DelegateProtocolVersion = 1                       // of rumors and states
	c.DelegateProtocolMin, c.DelegateProtocolMax = 1, 1 // widen when they change
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	var err error
	if c.BindAddr, c.BindPort, err = hostPort(o.Listen); err != nil {
		return nil, bad("listen", "%w", err)
	}
	if c.BindAddr == "" {
		c.BindAddr = "0.0.0.0"
	}
	if c.BindAddr, err = o.firstIP(c.BindAddr); err != nil {
		return nil, bad("listen", "%w", err)
	}
	if err := o.advertise(c); err != nil {
		return nil, err
	}
	if len(o.Keys) > 0 {
		if err := checkKeys(o.Keys); err != nil {
			return nil, err
		}
		if c.Keyring, err = memberlist.NewKeyring(o.Keys, o.Keys[0]); err != nil {
			return nil, bad("keys", "%w", err)
		}
	}
	return c, nil
}

func (o *Options) defaults() {
	if o.Detect == (Detect{}) {
		o.Detect = DetectLAN
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Rejoin <= 0 {
		o.Rejoin = rejoinEvery
	}
}

// advertise sets the address that peers are told.
func (o *Options) advertise(c *memberlist.Config) error {
	c.AdvertisePort = c.BindPort
	if o.Advertise == "" {
		if ip, err := netip.ParseAddr(c.BindAddr); err == nil && ip.IsUnspecified() && ip.Is6() {
			return fault.New(fault.Invalid, "members.start", "advertise", "%s is no address to reach this node at", c.BindAddr).
				WithRemedy("set the address to advertise")
		}
		return nil
	}
	host, port, err := hostPort(o.Advertise)
	if err == nil && host == "" {
		err = fault.New(fault.Invalid, "members.address", o.Advertise, "no host in it")
	}
	if err == nil {
		c.AdvertiseAddr, err = o.firstIP(host)
	}
	if err != nil {
		return fault.New(fault.Invalid, "members.start", "advertise", "%w", err)
	}
	if port != 0 {
		c.AdvertisePort = port
	}
	return nil
}

// firstIP returns host when it is an address, and what it is looked up to otherwise, IPv4 first.
func (o *Options) firstIP(host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	ips, err := o.Lookup(ctx, host)
	if err != nil {
		return "", err
	}
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			return ip.Unmap().String(), nil
		}
	}
	if len(ips) == 0 {
		return "", fault.New(fault.NotFound, "members.address", host, "the name has no address")
	}
	return ips[0].String(), nil
}

// hostPort splits an address whose port is a number.
func hostPort(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, int(n), err
}
