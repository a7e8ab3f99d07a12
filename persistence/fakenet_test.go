package persistence

import (
	"context"
	"errors"
	"net"
	"sync"
)

// fakeNet connects stores in this process. A link may be cut in one direction: bytes that are under way
// then, and after, vanish without a word, as on a real network, and dialing fails. A connection that lost
// bytes stays dead.
type fakeNet struct {
	mu    sync.Mutex
	ends  map[string]*fakeEnd
	cuts  map[[2]string]bool // from, to
	conns map[*fakeConn]bool
}

func newFakeNet() *fakeNet {
	return &fakeNet{ends: map[string]*fakeEnd{}, cuts: map[[2]string]bool{}, conns: map[*fakeConn]bool{}}
}

// end returns a Network for a store, which is nobody before it is named.
func (n *fakeNet) end() *fakeEnd {
	return &fakeEnd{net: n, come: make(chan fakeCall, 16), closed: make(chan struct{})}
}

// name lets the end be reached as a node.
func (n *fakeNet) name(e *fakeEnd, node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e.node = node
	n.ends[node] = e
}

// cut cuts both directions between two nodes, or joins them again.
func (n *fakeNet) cut(a, b string, cut bool) {
	n.cutOneWay(a, b, cut)
	n.cutOneWay(b, a, cut)
}

func (n *fakeNet) cutOneWay(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]string{from, to}] = cut
}

// reset ends all connections, as hosts do that come back: nobody has to find out that they are dead.
func (n *fakeNet) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Conn.Close()
	}
}

type fakeCall struct {
	conn net.Conn
	from string
}

type fakeEnd struct {
	net    *fakeNet
	node   string
	come   chan fakeCall
	once   sync.Once
	closed chan struct{}
}

func (e *fakeEnd) Dial(ctx context.Context, node string) (net.Conn, error) {
	n := e.net
	n.mu.Lock()
	to := n.ends[node]
	if e.node == "" || to == nil || n.cuts[[2]string{e.node, node}] || n.cuts[[2]string{node, e.node}] {
		n.mu.Unlock()
		return nil, errors.New("unreachable")
	}
	mine, theirs := net.Pipe()
	a := &fakeConn{Conn: mine, net: n, from: e.node, to: node}
	b := &fakeConn{Conn: theirs, net: n, from: node, to: e.node}
	n.conns[a], n.conns[b] = true, true
	n.mu.Unlock()
	select {
	case to.come <- fakeCall{b, e.node}:
		return a, nil
	case <-to.closed:
	case <-e.closed:
	case <-ctx.Done():
	}
	a.Close()
	b.Close()
	return nil, errors.New("unreachable")
}

func (e *fakeEnd) Accept() (net.Conn, string, error) {
	select {
	case c := <-e.come:
		return c.conn, c.from, nil
	case <-e.closed:
		return nil, "", net.ErrClosed
	}
}

func (e *fakeEnd) Close() error {
	e.once.Do(func() {
		close(e.closed)
		e.net.mu.Lock()
		defer e.net.mu.Unlock()
		if e.net.ends[e.node] == e {
			delete(e.net.ends, e.node)
		}
		for c := range e.net.conns {
			if c.from == e.node {
				c.Conn.Close()
			}
		}
	})
	return nil
}

type fakeConn struct {
	net.Conn
	net      *fakeNet
	from, to string
	dead     bool
}

func (c *fakeConn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	c.dead = c.dead || c.net.cuts[[2]string{c.from, c.to}]
	dead := c.dead
	c.net.mu.Unlock()
	if dead {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *fakeConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}
