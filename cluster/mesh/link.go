package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	connectMax    = 3 * time.Second  // TCP, TLS and protoactor's greeting together
	sendMax       = 5 * time.Second  // a peer that takes nothing for so long is gone
	pingAfter     = 10 * time.Second // of silence; gRPC allows no less
	pingMax       = 3 * time.Second
	restMin       = 50 * time.Millisecond // between two tries to reach a node; doubled with each failure
	restMax       = time.Second
	handshakesMax = 64 // of strangers at once
	handshakeMax  = 3 * time.Second
	batchBytesMax = batchMax*letterMax + 1<<20
	answerBytes   = 64 << 10 // what a server says on a stream that only carries letters to it
)

// links are this node's connections to others, one for each, made by protoactor's writers with what is given to them
// here. A PID's address is a node's name, so that is what is dialled, and what the certificate must say.
type links struct {
	id      *pki.Identity
	resolve func(node string) (addr string, ok bool)
	lost    func(node string, err error) // called without a lock
	log     *slog.Logger
	gate    chan struct{} // handshakesMax tokens of the listener

	mu sync.Mutex
	by map[string]*link
}

// link is what is known of the way to one node.
type link struct {
	addr     string // dialled last
	up       bool
	why      error         // of the last failure; nil after a success
	cause    error         // why the try under way fails, as far as the dialler or TLS knows; more precise than gRPC's error
	failures int           // in a row
	rested   chan struct{} // closed when the next try may begin; nil: it may
	cancel   map[*stream]context.CancelCauseFunc
}

func newLinks(id *pki.Identity, resolve func(string) (string, bool), lost func(string, error), log *slog.Logger) *links {
	return &links{id: id, resolve: resolve, lost: lost, log: log, gate: make(chan struct{}, handshakesMax), by: map[string]*link{}}
}

// of returns the link to a node; the caller holds mu.
func (s *links) of(node string) *link {
	l := s.by[node]
	if l == nil {
		l = &link{cancel: map[*stream]context.CancelCauseFunc{}}
		s.by[node] = l
	}
	return l
}

// usable tells whether a letter to node may go: an error at once is better than a letter to a writer that rests. A
// connection to an address that is no longer the node's is given up here.
func (s *links) usable(node string) error {
	addr, ok := s.resolve(node)
	if !ok {
		return fault.New(fault.Unavailable, "mesh.link", node, "no address is known")
	}
	s.mu.Lock()
	l := s.by[node]
	if l == nil {
		s.mu.Unlock()
		return nil
	}
	old := l.addr
	moved := l.up && old != addr
	var err error
	if l.rested != nil {
		err = fault.New(fault.Unavailable, "mesh.link", node, "%w", l.why)
	}
	s.mu.Unlock()
	if moved {
		s.cut(node, fmt.Errorf("it moved from %s to %s", old, addr))
		return fault.New(fault.Unavailable, "mesh.link", node, "it moved to %s", addr)
	}
	return err
}

// wait returns when a letter to node may go, or when ctx ends.
func (s *links) wait(ctx context.Context, node string) {
	s.mu.Lock()
	var rested chan struct{}
	if l := s.by[node]; l != nil {
		rested = l.rested
	}
	s.mu.Unlock()
	if rested == nil {
		return
	}
	select {
	case <-rested:
	case <-ctx.Done():
	}
}

// rest is how long a node is left alone after so many failures in a row.
func rest(failures int) time.Duration {
	return min(restMin<<min(failures-1, 10), restMax)
}

// fail notes that a try to reach node failed, fails what waits for it, and returns how long to rest.
func (s *links) fail(node string, err error) time.Duration {
	s.mu.Lock()
	l := s.of(node)
	if l.cause != nil {
		err, l.cause = l.cause, nil
	}
	first := l.why == nil || l.up
	l.up, l.why = false, err
	l.failures++
	if l.rested == nil {
		l.rested = make(chan struct{})
	}
	pause := rest(l.failures)
	s.mu.Unlock()
	if first && !errors.Is(err, errStopped) {
		s.log.Warn("mesh: a node cannot be reached", "node", node, "error", err)
	}
	s.lost(node, fault.New(fault.Unavailable, "mesh.link", node, "%w", err))
	return pause
}

// ended is told when protoactor gave up a writer: the next letter makes a new one. It returns why, as far as is known.
func (s *links) ended(node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.by[node]
	if l == nil {
		return nil
	}
	if l.rested != nil {
		close(l.rested)
		l.rested = nil
	}
	return l.why
}

// because notes why the try under way fails.
func (s *links) because(node string, err error) {
	s.mu.Lock()
	s.of(node).cause = err
	s.mu.Unlock()
}

// cut ends the connections to a node; their writers then end, and their letters are lost.
func (s *links) cut(node string, why error) {
	s.mu.Lock()
	var cancels []context.CancelCauseFunc
	for name, l := range s.by {
		if node != "" && name != node {
			continue
		}
		for st, c := range l.cancel {
			cancels = append(cancels, c)
			delete(l.cancel, st)
		}
		l.up = false
	}
	s.mu.Unlock()
	for _, c := range cancels {
		c(why)
	}
}

// dialOptions are those of protoactor's writers.
func (s *links) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithNoProxy(),
		grpc.WithContextDialer(s.dial),
		grpc.WithTransportCredentials(&creds{links: s}),
		grpc.WithStreamInterceptor(s.stream),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectMax}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingMax}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answerBytes), grpc.MaxCallSendMsgSize(batchBytesMax)),
	}
}

// serverOptions are those of the listener, but for the guard's.
func (s *links) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(&creds{links: s}),
		grpc.MaxRecvMsgSize(batchBytesMax),
		grpc.ConnectionTimeout(handshakeMax),
		grpc.MaxConcurrentStreams(4), // on one connection; a peer uses one
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingMax}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
	}
}

// dial connects to wherever the node is now.
func (s *links) dial(ctx context.Context, node string) (net.Conn, error) {
	addr, ok := s.resolve(node)
	if !ok {
		err := errors.New("no address is known")
		s.because(node, err)
		return nil, err
	}
	s.mu.Lock()
	s.of(node).addr = addr
	s.mu.Unlock()
	d := net.Dialer{Timeout: connectMax, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: pingMax, Interval: time.Second, Count: 3}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		s.because(node, err)
	}
	return c, err
}

// creds puts pki in the place of gRPC's credentials: who dials expects the node it dialled, whatever the address.
type creds struct{ links *links }

// ClientHandshake is called with the dialled node's name as authority.
func (c *creds) ClientHandshake(ctx context.Context, node string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := credentials.NewTLS(c.links.id.Client(node)).ClientHandshake(ctx, node, raw)
	if err != nil {
		c.links.because(node, fmt.Errorf("TLS with %s: %w", raw.RemoteAddr(), err))
	}
	return conn, info, err
}

// ServerHandshake bounds how many strangers may be half way in.
func (c *creds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	select {
	case c.links.gate <- struct{}{}:
		defer func() { <-c.links.gate }()
	default:
		raw.Close()
		return nil, nil, fault.New(fault.Overloaded, "mesh.accept", raw.RemoteAddr().String(), "handshakesMax %d is reached", handshakesMax)
	}
	return credentials.NewTLS(c.links.id.Server()).ServerHandshake(raw)
}

// Info describes the protocol to gRPC.
func (c *creds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3"}
}

// Clone returns c: it holds nothing of a connection.
func (c *creds) Clone() credentials.TransportCredentials { return c }

// OverrideServerName is refused: the name is the node's.
func (c *creds) OverrideServerName(string) error {
	return errors.New("mesh: the server's name is the node's")
}
