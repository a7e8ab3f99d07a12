package raftnet

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/cluster/pki/pkitest"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world knows where nodes are; a node's id is "id-" and its name.
type world struct {
	mu    sync.Mutex
	addrs map[string]string
	alias map[string]string // name by id, where it is not the usual one
}

func newWorld() *world { return &world{addrs: map[string]string{}, alias: map[string]string{}} }

func (w *world) set(id, addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addrs[id] = addr
}

func (w *world) resolve(id string) (string, string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	addr, ok := w.addrs[id]
	name := strings.TrimPrefix(id, "id-")
	if other := w.alias[id]; other != "" {
		name = other
	}
	return addr, name, ok
}

func (w *world) nodeOf(name string) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.addrs["id-"+name]
	return "id-" + name, ok
}

// records counts log lines.
type records struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newRecords() *records {
	return &records{Handler: slog.DiscardHandler, more: make(chan struct{}, 100)}
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	s := rec.Message
	rec.Attrs(func(a slog.Attr) bool { s += " " + a.String(); return true })
	r.mu.Lock()
	r.lines = append(r.lines, s)
	r.mu.Unlock()
	r.more <- struct{}{}
	return nil
}

func (r *records) count(part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.lines {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

// wait waits until part was logged.
func (r *records) wait(t *testing.T, part string) {
	t.Helper()
	for late := time.After(patience); r.count(part) == 0; {
		select {
		case <-r.more:
		case <-late:
			t.Fatalf("not logged: %s", part)
		}
	}
}

func listen(t *testing.T, w *world, id *pki.Identity, log *slog.Logger) *Network {
	t.Helper()
	n, err := Listen(Options{Listen: "127.0.0.1:0", TLS: id, Resolve: w.resolve, NodeOf: w.nodeOf, Log: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	w.set("id-"+id.Name, n.Addr())
	return n
}

func accept(t *testing.T, n *Network) (net.Conn, string) {
	t.Helper()
	type got struct {
		c    net.Conn
		node string
		err  error
	}
	ch := make(chan got, 1)
	go func() {
		c, node, err := n.Accept()
		ch <- got{c, node, err}
	}()
	select {
	case g := <-ch:
		require.NoError(t, g.err)
		return g.c, g.node
	case <-time.After(patience):
		t.Fatal("nothing to accept")
	}
	return nil, ""
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ended requires that the other side ends a connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.ReadAll(c)
	var late net.Error
	require.False(t, errors.As(err, &late) && late.Timeout(), "it stays open")
}

func TestNodesConnect(t *testing.T) {
	dir := pkitest.New(t, "a", "b")
	w := newWorld()
	a, b := listen(t, w, pkitest.Load(t, dir, "a"), nil), listen(t, w, pkitest.Load(t, dir, "b"), nil)
	out, err := b.Dial(within(t), "id-a")
	require.NoError(t, err)
	in, who := accept(t, a)
	require.Equal(t, "id-b", who)
	big := make([]byte, 1<<20)
	go func() {
		_, _ = out.Write(big)
		out.Close()
	}()
	got, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Len(t, got, len(big))
	require.NoError(t, in.Close())

	_, err = b.Dial(within(t), "id-nobody")
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = b.Dial(over, "id-a")
	require.Equal(t, fault.Timeout, fault.KindOf(err))
	a.mu.Lock()
	require.Empty(t, a.conns, "a closed connection is forgotten")
	a.mu.Unlock()
}

func TestOnlyThatNodeIsDialled(t *testing.T) {
	dir, other := pkitest.New(t, "a", "b", "c"), pkitest.New(t, "a")
	w := newWorld()
	b := listen(t, w, pkitest.Load(t, dir, "b"), nil)
	c := listen(t, w, pkitest.Load(t, dir, "c"), nil)
	w.set("id-a", c.Addr()) // c where a was
	_, err := b.Dial(within(t), "id-a")
	require.Equal(t, fault.Refused, fault.KindOf(err), "%v", err)
	require.NotEmpty(t, fault.RemedyOf(err))
	listen(t, w, pkitest.Load(t, other, "a"), nil) // the right name, of another authority
	_, err = b.Dial(within(t), "id-a")
	require.Equal(t, fault.Refused, fault.KindOf(err), "%v", err)

	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone.Close()
	w.set("id-a", gone.Addr().String())
	_, err = b.Dial(within(t), "id-a")
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
}

func TestWhoIsNotLetIn(t *testing.T) {
	dir, other := pkitest.New(t, "a", "b", "unknown"), pkitest.New(t, "b")
	w := newWorld()
	rec := newRecords()
	a := listen(t, w, pkitest.Load(t, dir, "a"), slog.New(rec))
	b := listen(t, w, pkitest.Load(t, dir, "b"), nil)
	trust := pkitest.Trust(t, dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(other, "nodes", "b", "node.crt"), filepath.Join(other, "nodes", "b", "node.key"))
	require.NoError(t, err)
	conf := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: trust, ServerName: "a", Certificates: certs}
	}
	for what, cfg := range map[string]*tls.Config{
		"no certificate":    conf(),
		"another authority": conf(pair),
		"another cluster":   conf(pkitest.Forge(t, dir, []string{"autoglm://elsewhere/b"}, []string{"b"})),
		"no node's name":    conf(pkitest.Forge(t, dir, nil, []string{"b"})),
		"a name of others":  conf(pkitest.Forge(t, dir, []string{"autoglm://test/b"}, []string{"a"})),
		"a node not known":  pkitest.Load(t, dir, "unknown").Client("a"),
	} {
		t.Run(what, func(t *testing.T) {
			raw, err := net.Dial("tcp", a.Addr())
			require.NoError(t, err)
			defer raw.Close()
			c := tls.Client(raw, cfg)
			if c.Handshake() == nil {
				ended(t, c)
			}
		})
	}
	t.Run("plaintext", func(t *testing.T) {
		raw, err := net.Dial("tcp", a.Addr())
		require.NoError(t, err)
		defer raw.Close()
		_, err = raw.Write([]byte("hello, I am node b\n"))
		require.NoError(t, err)
		ended(t, raw)
	})
	rec.wait(t, "peer=unknown")
	rec.wait(t, "peer=127.0.0.1")
	require.Equal(t, 1, rec.count("peer=unknown"))
	require.Equal(t, 1, rec.count("peer=127.0.0.1"), "told once, not five times: %q", rec.lines)

	_, err = b.Dial(within(t), "id-a")
	require.NoError(t, err)
	_, who := accept(t, a)
	require.Equal(t, "id-b", who, "a good one gets in, and it is the first that is accepted")
}

func TestStrangersAreBoundedInNumberAndTime(t *testing.T) {
	dir := pkitest.New(t, "a", "b")
	w := newWorld()
	rec := newRecords()
	a, b := listen(t, w, pkitest.Load(t, dir, "a"), slog.New(rec)), listen(t, w, pkitest.Load(t, dir, "b"), nil)
	begin := time.Now()
	var silent []net.Conn
	for range handshakesMax { // half a hello each, and then nothing
		c, err := net.Dial("tcp", a.Addr())
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Write([]byte{22, 3, 1, 2, 0, 1})
		require.NoError(t, err)
		silent = append(silent, c)
	}
	one, err := net.Dial("tcp", a.Addr()) // too many: closed at once
	require.NoError(t, err)
	defer one.Close()
	ended(t, one)
	rec.wait(t, "handshakesMax")
	require.Less(t, time.Since(begin), handshakeMax, "before any of the others ran out of time")
	for _, c := range silent {
		ended(t, c)
	}
	_, err = b.Dial(within(t), "id-a")
	require.NoError(t, err)
	_, who := accept(t, a)
	require.Equal(t, "id-b", who)

	unheard, err := b.Dial(within(t), "id-a") // proven, and nobody accepts
	require.NoError(t, err)
	ended(t, unheard)
}

func TestClose(t *testing.T) {
	dir := pkitest.New(t, "a", "b")
	w := newWorld()
	a, b := listen(t, w, pkitest.Load(t, dir, "a"), nil), listen(t, w, pkitest.Load(t, dir, "b"), nil)
	out, err := b.Dial(within(t), "id-a")
	require.NoError(t, err)
	in, _ := accept(t, a)
	half, err := net.Dial("tcp", a.Addr()) // in the middle of its handshake
	require.NoError(t, err)
	defer half.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	w.set("id-c", silent.Addr().String())
	dialled, accepted := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := a.Dial(context.Background(), "id-c")
		dialled <- err
	}()
	go func() {
		_, _, err := a.Accept()
		accepted <- err
	}()
	c, err := silent.Accept() // the dial is in its handshake
	require.NoError(t, err)
	defer c.Close()

	begin := time.Now()
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	require.Less(t, time.Since(begin), handshakeMax)
	require.ErrorIs(t, <-accepted, net.ErrClosed)
	require.ErrorIs(t, <-dialled, net.ErrClosed)
	_, err = in.Read(make([]byte, 1))
	require.Error(t, err)
	ended(t, out)
	ended(t, half)
	_, err = a.Dial(within(t), "id-b")
	require.ErrorIs(t, err, net.ErrClosed)
	_, _, err = a.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestListenRefuses(t *testing.T) {
	dir := pkitest.New(t, "a")
	w := newWorld()
	a := listen(t, w, pkitest.Load(t, dir, "a"), nil)
	_, err := Listen(Options{})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	_, err = Listen(Options{Listen: a.Addr(), TLS: pkitest.Load(t, dir, "a"), Resolve: w.resolve, NodeOf: w.nodeOf})
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))
}
