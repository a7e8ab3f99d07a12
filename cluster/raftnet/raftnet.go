package raftnet

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	handshakeMax  = 3 * time.Second // TCP and TLS; also how long a proven connection waits for Accept
	handshakesMax = 64              // strangers at once
	connsMax      = 1024            // connections at once, in both directions
	acceptRest    = 10 * time.Millisecond
	acceptRestMax = time.Second // when accepting fails: out of file descriptors, say
	refusalLogGap = 10 * time.Second
	refusalsMax   = 1024 // of which it is remembered when they were logged

	// A peer is given up after these without an answer: about 4 s.
	probeIdle     = time.Second
	probeInterval = time.Second
	probeCount    = 3
	unackedMax    = 4 * time.Second // of data that was sent
)

// Options make a Network.
type Options struct {
	Listen  string                                                // host:port; port 0: a free one
	TLS     *pki.Identity                                         // who this node is
	Resolve func(node string) (addr string, name string, ok bool) // where the node with an id listens, and its name; must not block
	NodeOf  func(name string) (node string, ok bool)              // id of the node that has a name now; must not block
	Log     *slog.Logger                                          // nil: none
}

// Network implements persistence.Network over TLS.
type Network struct {
	opts     Options
	log      *slog.Logger
	listener net.Listener
	proven   chan inbound
	slots    chan struct{} // handshakesMax
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
	told   map[string]time.Time // when a refusal was logged, by host or name
}

var _ persistence.Network = (*Network)(nil)

type inbound struct {
	conn net.Conn
	node string
}

// Listen starts to listen; an address that cannot be listened on is Unavailable.
func Listen(o Options) (*Network, error) {
	if o.TLS == nil || o.Resolve == nil || o.NodeOf == nil {
		return nil, fault.New(fault.Invalid, "raftnet.listen", o.Listen, "TLS, Resolve and NodeOf are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	cfg := net.ListenConfig{KeepAliveConfig: keepAlive, Control: control}
	l, err := cfg.Listen(context.Background(), "tcp", o.Listen)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "raftnet.listen", o.Listen, "%w", err).WithRemedy("choose an address of this machine and a free port")
	}
	n := &Network{opts: o, log: o.Log, listener: l, proven: make(chan inbound), slots: make(chan struct{}, handshakesMax),
		conns: map[*conn]struct{}{}, told: map[string]time.Time{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.work.Go(n.accept)
	return n, nil
}

// Addr returns the address it listens on.
func (n *Network) Addr() string { return n.listener.Addr().String() }

// Dial connects to the node with this id and makes sure that it is that node: Unavailable when it is not known or cannot
// be reached in three seconds, Refused when another one answers, Timeout when ctx ends first.
func (n *Network) Dial(ctx context.Context, node string) (net.Conn, error) {
	const op = "raftnet.dial"
	addr, name, ok := n.opts.Resolve(node)
	if !ok {
		return nil, fault.New(fault.Unavailable, op, node, "no address is known")
	}
	try, cancel := context.WithTimeout(ctx, handshakeMax)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: control}
	raw, err := d.DialContext(try, "tcp", addr)
	if err != nil {
		return nil, n.dialFault(ctx, node, err)
	}
	c := tls.Client(raw, n.opts.TLS.Client(name))
	if err := c.HandshakeContext(try); err != nil {
		raw.Close()
		return nil, n.dialFault(ctx, node, err)
	}
	return n.keep(c, node)
}

func (n *Network) dialFault(ctx context.Context, node string, err error) error {
	kind := fault.Unavailable
	var wrong *tls.CertificateVerificationError
	switch {
	case n.ctx.Err() != nil:
		err = net.ErrClosed
	case ctx.Err() != nil:
		kind = fault.Timeout
	case errors.As(err, &wrong) || fault.KindOf(err) == fault.Refused:
		kind = fault.Refused
	}
	f := fault.New(kind, "raftnet.dial", node, "%w", err)
	if kind == fault.Refused {
		return f.WithRemedy("check the addresses that the nodes advertise, and that all have certificates of one cluster")
	}
	return f
}

// Accept returns the next connection whose other end proved its name, with the id of the node that has this name now, or
// net.ErrClosed after Close.
func (n *Network) Accept() (net.Conn, string, error) {
	select {
	case in := <-n.proven:
		return in.conn, in.node, nil
	case <-n.ctx.Done():
		return nil, "", net.ErrClosed
	}
}

// Close stops listening, ends Accept, Dial and every connection, and waits for the goroutines. It is safe to call twice.
func (n *Network) Close() error {
	n.cancel()
	err := n.listener.Close()
	n.mu.Lock()
	n.closed = true
	open := n.conns
	n.conns = map[*conn]struct{}{}
	n.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
	n.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil // the second time
	}
	return err
}

func (n *Network) accept() {
	for rest := acceptRest; ; {
		raw, err := n.listener.Accept()
		switch {
		case err == nil:
			rest = acceptRest
		case n.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			n.refused("accept", err)
			t := time.NewTimer(rest)
			select {
			case <-t.C:
			case <-n.ctx.Done():
			}
			t.Stop()
			rest = min(2*rest, acceptRestMax)
			continue
		}
		select {
		case n.slots <- struct{}{}:
			n.work.Go(func() {
				defer func() { <-n.slots }()
				n.admit(raw)
			})
		default:
			raw.Close()
			n.refused(host(raw), fault.New(fault.Overloaded, "raftnet.accept", host(raw), "handshakesMax %d is reached", handshakesMax))
		}
	}
}

// admit lets a stranger prove its name, in time, and hands the connection to Accept.
func (n *Network) admit(raw net.Conn) {
	ctx, cancel := context.WithTimeout(n.ctx, handshakeMax)
	defer cancel()
	c := tls.Server(raw, n.opts.TLS.Server())
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		n.refused(host(raw), err)
		return
	}
	name, err := pki.PeerName(c.ConnectionState())
	var node string
	if err == nil {
		var ok bool
		if node, ok = n.opts.NodeOf(name); !ok {
			err = fault.New(fault.Refused, "raftnet.accept", name, "no node of this name is known now")
		}
	}
	if err != nil {
		c.Close()
		n.refused(name, err)
		return
	}
	kept, err := n.keep(c, node)
	if err != nil {
		n.refused(name, err)
		return
	}
	select {
	case n.proven <- inbound{kept, node}:
	case <-ctx.Done():
		kept.Close()
		n.refused(name, fault.New(fault.Overloaded, "raftnet.accept", name, "nobody accepted the connection for %v", handshakeMax))
	}
}

// keep notes a connection for Close.
func (n *Network) keep(c net.Conn, node string) (net.Conn, error) {
	k := &conn{Conn: c, net: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		c.Close()
		return nil, fault.New(fault.Unavailable, "raftnet.conn", node, "%w", net.ErrClosed)
	case len(n.conns) >= connsMax:
		c.Close()
		return nil, fault.New(fault.Overloaded, "raftnet.conn", node, "connsMax %d is reached", connsMax)
	}
	n.conns[k] = struct{}{}
	return k, nil
}

// conn is a connection that is forgotten when it is closed.
type conn struct {
	net.Conn
	net *Network
}

// Close closes the connection.
func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

// refused logs why somebody was not let in, once in a while for each host or name.
func (n *Network) refused(who string, err error) {
	if n.ctx.Err() != nil {
		return // everything ends now
	}
	n.mu.Lock()
	now := time.Now()
	if len(n.told) >= refusalsMax {
		clear(n.told)
	}
	due := now.Sub(n.told[who]) >= refusalLogGap
	if due {
		n.told[who] = now
	}
	n.mu.Unlock()
	if due {
		n.log.Warn("raftnet: refused", "peer", who, "error", err)
	}
}

func host(c net.Conn) string {
	h, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return h
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeInterval, Count: probeCount}
