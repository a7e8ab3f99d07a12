package actorclient_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/actors/gate"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/clustertest"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/actorclient"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// server is one node's HTTP API, which a test may stop as if the node were gone.
type server struct {
	url  string
	stop func()
}

func serve(t *testing.T, router *cluster.Router) server {
	t.Helper()
	g, err := gate.New(router, bank.Kinds()...)
	require.NoError(t, err)
	s, err := api.New(apitest.New(), api.WithLogger(slog.New(slog.DiscardHandler)), api.WithActors(g))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(l) }()
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	}
	t.Cleanup(stop)
	return server{"http://" + l.Addr().String(), stop}
}

func client(t *testing.T, urls []string, opts ...actorclient.Option) *actorclient.Client {
	t.Helper()
	c, err := actorclient.New(urls, opts...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestEveryProtocol(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bank.Kinds)
	s := serve(t, nodes.Router(0))
	for _, p := range []actorclient.Protocol{actorclient.Connect, actorclient.GRPC, actorclient.GRPCWeb} {
		c := client(t, []string{s.url}, actorclient.WithProtocol(p))
		a := c.Actor("account", fmt.Sprint("p", p))
		b, err := actorclient.Ask[bank.Balance](t.Context(), a, "Open", bank.Open{})
		require.NoError(t, err)
		require.True(t, b.Open)
		b, err = actorclient.Ask[bank.Balance](t.Context(), a, "Deposit", bank.Deposit{Cents: 1 << 52})
		require.NoError(t, err)
		require.EqualValues(t, 1<<52, b.Cents)
		_, err = actorclient.Ask[bank.Balance](t.Context(), a, "Withdraw", bank.Withdraw{Cents: 1 << 53})
		require.Equal(t, fault.Conflict, fault.KindOf(err), "%v", err)
		_, err = actorclient.Ask[bank.Balance](t.Context(), a, "Reserve", bank.Reserve{})
		require.Equal(t, fault.Refused, fault.KindOf(err), "%v", err)
		require.ErrorContains(t, err, "Deposit", "the remedy says what is open")
		require.NoError(t, a.Tell(t.Context(), "Deposit", bank.Deposit{Cents: 1}))
		for st, err := range a.Watch(t.Context(), 0) {
			require.NoError(t, err)
			if st.Version == 3 {
				break
			}
		}
		st, err := a.State(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 3, st.Version)
		require.NoError(t, st.Decode(&b))
		require.EqualValues(t, 1<<52+1, b.Cents)
	}
}

// TestALostAnswerIsAskedForAgain: a proxy brings each request to the node and drops the first answer; the deposit counts once.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bank.Kinds)
	s := serve(t, nodes.Router(0))
	target, err := url.Parse(s.url)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	var n atomic.Int32
	cutter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			proxy.ServeHTTP(w, r)
			return
		}
		proxy.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}))
	defer cutter.Close()
	a := client(t, []string{cutter.URL}).Actor("account", "a")
	for i := range 5 {
		_, err := actorclient.Ask[bank.Balance](t.Context(), a, "Open", bank.Open{})
		require.NoError(t, err)
		b, err := actorclient.Ask[bank.Balance](t.Context(), a, "Deposit", bank.Deposit{Cents: 10})
		require.NoError(t, err)
		require.EqualValues(t, 10*(i+1), b.Cents)
	}
}

// TestARefusalAfterASilence: a node takes a withdrawal, is stopped, and carries it out when it goes on. Meanwhile the client has asked the next
// node, which refused: there was no money yet. Such a refusal settles nothing, for a refusal is not remembered.
func TestARefusalAfterASilence(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bank.Kinds)
	s := serve(t, nodes.Router(0))
	target, err := url.Parse(s.url)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	goOn, wentOn := make(chan struct{}), make(chan int, 64) // more than there are tries
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		<-goOn
		r = r.WithContext(context.Background())
		r.Body = io.NopCloser(bytes.NewReader(body))
		w := httptest.NewRecorder()
		proxy.ServeHTTP(w, r)
		wentOn <- w.Code
	}))
	defer hangs.Close()
	direct := client(t, []string{s.url}).Actor("account", "a")
	_, err = actorclient.Ask[bank.Balance](t.Context(), direct, "Open", bank.Open{})
	require.NoError(t, err)

	a := client(t, []string{hangs.URL, s.url}, actorclient.WithTry(time.Second)).Actor("account", "a")
	withdraw := actorclient.Message{Type: "Withdraw", Body: []byte(`{"cents":5}`), RequestID: "w"}
	_, refused := a.Ask(t.Context(), withdraw)
	_, err = actorclient.Ask[bank.Balance](t.Context(), direct, "Deposit", bank.Deposit{Cents: 20})
	require.NoError(t, err)
	close(goOn)
	require.Equal(t, http.StatusOK, <-wentOn)
	b, err := actorclient.Ask[bank.Balance](t.Context(), direct, "Get", bank.Get{})
	require.NoError(t, err)
	require.EqualValues(t, 15, b.Cents, "it was carried out after all")

	require.Equal(t, fault.Unavailable, fault.KindOf(refused), "%v", refused)
	require.ErrorContains(t, refused, "0 cents are free", "why it was refused")
	require.Contains(t, fault.RemedyOf(refused), "the same request id")
	ans, err := a.Ask(t.Context(), withdraw)
	require.NoError(t, err)
	require.JSONEq(t, `{"open":true,"cents":15,"free":15}`, string(ans.Body))
}

// TestARefusalIsARefusal: a node that was never reached carries nothing out.
func TestARefusalIsARefusal(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bank.Kinds)
	s := serve(t, nodes.Router(0))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	for _, p := range []actorclient.Protocol{actorclient.Connect, actorclient.GRPC, actorclient.GRPCWeb} {
		a := client(t, []string{nobody, s.url}, actorclient.WithProtocol(p)).Actor("account", "a")
		_, err = actorclient.Ask[bank.Balance](t.Context(), a, "Withdraw", bank.Withdraw{Cents: 5})
		require.Equal(t, fault.NotFound, fault.KindOf(err), "%v", err)
	}
}

// TestTheLossOfANode: the node that has the actor, and that the client talks to, goes away while deposits and a watch
// are under way. Each deposit counts once, and the watch goes on at the other node.
func TestTheLossOfANode(t *testing.T) {
	nodes := clustertest.New(t, 2, 2, bank.Kinds)
	first, second := serve(t, nodes.Router(0)), serve(t, nodes.Router(1))
	c := client(t, []string{first.url, second.url}, actorclient.WithTry(2*time.Second))
	a := c.Actor("account", "a")
	_, err := actorclient.Ask[bank.Balance](t.Context(), a, "Open", bank.Open{})
	require.NoError(t, err)
	const deposits = 60
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		last := uint64(0)
		for st, err := range a.Watch(ctx, 0) {
			switch {
			case err != nil:
				watched <- err
				return
			case st.Version <= last && last > 0:
				watched <- fmt.Errorf("version %d after %d", st.Version, last)
				return
			}
			if last = st.Version; last == deposits+1 {
				watched <- nil
				return
			}
		}
	}()
	for i := range deposits {
		if i == deposits/2 {
			go func() {
				nodes.Cut(0, true)
				nodes.Move(1)
				first.stop()
			}()
		}
		b, err := actorclient.Ask[bank.Balance](ctx, a, "Deposit", bank.Deposit{Cents: 1})
		require.NoError(t, err)
		require.EqualValues(t, i+1, b.Cents)
	}
	require.NoError(t, <-watched)
}

// TestANodeThatHangs: it takes requests and says nothing, like a process that was stopped.
func TestANodeThatHangs(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bank.Kinds)
	s := serve(t, nodes.Router(0))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		}
	}()
	defer l.Close()
	c := client(t, []string{"http://" + l.Addr().String(), s.url}, actorclient.WithTry(200*time.Millisecond))
	a := c.Actor("account", "a")
	for st, err := range a.Watch(t.Context(), 0) {
		require.NoError(t, err)
		require.Zero(t, st.Version)
		break
	}
	_, err = actorclient.Ask[bank.Balance](t.Context(), a, "Open", bank.Open{})
	require.NoError(t, err)
}

func TestNobodyIsThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := l.Addr().String()
	require.NoError(t, l.Close())
	c := client(t, []string{nobody}, actorclient.WithPatience(200*time.Millisecond))
	a := c.Actor("account", "a")
	_, err = a.State(t.Context())
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	n := 0
	for _, err := range a.Watch(t.Context(), 0) {
		require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
		n++
	}
	require.Equal(t, 1, n)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range a.Watch(ctx, 0) {
		require.ErrorIs(t, err, context.Canceled)
	}
	for _, bad := range [][]string{nil, {"ftp://x"}, {"http://"}} {
		_, err := actorclient.New(bad)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%v", bad)
	}
}

// TestNothingIsLeftBehind: no goroutine outlives a Watch or a client.
func TestNothingIsLeftBehind(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bank.Kinds)
	s := serve(t, nodes.Router(0))
	before := goleak.IgnoreCurrent()
	c, err := actorclient.New([]string{s.url})
	require.NoError(t, err)
	for range 3 {
		for _, err := range c.Actor("account", "a").Watch(t.Context(), 0) {
			require.NoError(t, err)
			break
		}
	}
	c.Close()
	s.stop()
	goleak.VerifyNone(t, before)
}
