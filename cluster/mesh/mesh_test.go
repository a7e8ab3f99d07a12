package mesh

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/open-autoglm/autoglm/cluster/pki/pkitest"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestAsk(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b")
	bk := newBook()
	told := make(chan string, 16)
	a := startMesh(t, dir, "a", bk, Options{Version: "v2"}, testOps(told))
	b := startNode(t, dir, "b", bk, nodeOptions{Version: "v1"})
	b.do("peer a %s", a.Addr())
	require.Equal(t, "ok", b.line())
	ctx := within(t, time.Minute)

	_, err := a.Ask(ctx, "a", &Request{Op: "later"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "a node that starts may have the op in a moment")
	a.Complete()
	_, err = a.Ask(ctx, "a", &Request{Op: "later"})
	require.Equal(t, fault.Invalid, fault.KindOf(err))

	for _, to := range []string{"b", "a"} { // another node, and itself: the same answers
		t.Run("to "+to, func(t *testing.T) {
			got, err := a.Ask(ctx, to, &Request{ID: "1", Op: "echo", Body: []byte("hello"), Shard: 7})
			require.NoError(t, err)
			require.Equal(t, Answer{Type: "a 1", Body: []byte("hello")}, got)

			got, err = a.Ask(ctx, to, &Request{Op: "echo"})
			require.NoError(t, err)
			require.Len(t, got.Type, len("a ")+36, "an id is made")

			parent := trace.New()
			got, err = a.Ask(trace.With(ctx, parent), to, &Request{Op: "trace"})
			require.NoError(t, err)
			require.Equal(t, string(parent), string(got.Body), "the handler's context is of the asker's trace")
			got, err = a.Ask(ctx, to, &Request{Op: "trace", Trace: "nonsense"})
			require.NoError(t, err)
			require.Empty(t, got.Body)

			_, err = a.Ask(ctx, to, &Request{Op: "fail", Key: "k"})
			require.Equal(t, fault.Fenced, fault.KindOf(err))
			require.Equal(t, "look the route up again", fault.RemedyOf(err))
			require.Contains(t, err.Error(), "step: x.do k: epoch 3 is old")

			_, err = a.Ask(ctx, to, &Request{Op: "panic"})
			require.Equal(t, fault.Unknown, fault.KindOf(err))
			require.ErrorContains(t, err, "oops")

			_, err = a.Ask(ctx, to, &Request{Op: "new.op"})
			require.Equal(t, fault.Invalid, fault.KindOf(err))

			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, err = a.Ask(short, to, &Request{Op: "hang"})
			require.Equal(t, fault.Timeout, fault.KindOf(err))
			require.ErrorIs(t, err, context.DeadlineExceeded)

			big := make([]byte, BodyMax)
			_, _ = rand.NewChaCha8([32]byte{}).Read(big)
			got, err = a.Ask(ctx, to, &Request{Op: "echo", Body: big})
			require.NoError(t, err)
			require.True(t, bytes.Equal(big, got.Body))

			_, err = a.Ask(ctx, to, &Request{Op: "size", Key: fmt.Sprint(BodyMax + 1)})
			if to == "b" {
				require.Equal(t, fault.TooLarge, fault.KindOf(err))
			}
			require.NoError(t, a.Tell(to, &Request{Op: "tell", Key: "notice"}))
			if to == "a" {
				require.Equal(t, "hanging ", <-told)
				require.Equal(t, "a notice", <-told)
			} else {
				require.Equal(t, "hanging ", b.line())
				require.Equal(t, "a notice", b.line())
			}
		})
	}

	_, err = a.Ask(ctx, "b", &Request{Op: "new.op"})
	require.ErrorContains(t, err, `node b (version "v1") does not know this op`)
	require.Contains(t, fault.RemedyOf(err), `version "v2" of a may know it`)
	b.do("ask a echo k")
	require.Equal(t, "answer 0 <nil>", b.line())

	for what, c := range map[string]struct {
		r    *Request
		kind fault.Kind
	}{
		"no op":      {&Request{}, fault.Invalid},
		"not UTF-8":  {&Request{Op: "echo", Key: "\xff"}, fault.Invalid},
		"large body": {&Request{Op: "echo", Body: make([]byte, BodyMax+1)}, fault.TooLarge},
		"large key":  {&Request{Op: "echo", Key: string(make([]byte, fieldsMax))}, fault.TooLarge},
	} {
		_, err := a.Ask(ctx, "b", c.r)
		require.Equal(t, c.kind, fault.KindOf(err), what)
		require.Equal(t, c.kind, fault.KindOf(a.Tell("b", c.r)), what)
	}
	_, err = a.Ask(ctx, "nobody", &Request{Op: "echo"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err = a.Ask(over, "b", &Request{Op: "echo"})
	require.Equal(t, fault.Timeout, fault.KindOf(err))

	count, size := a.asked.used()
	require.Zero(t, count+size, "all room is given back")
}

func TestManyAtOnce(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b")
	bk := newBook()
	a := startMesh(t, dir, "a", bk, Options{}, nil)
	b := startNode(t, dir, "b", bk, nodeOptions{})
	b.do("peer a %s", a.Addr())
	require.Equal(t, "ok", b.line())
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 6 {
				body := bytes.Repeat([]byte{byte(i)}, 1+(i*j*997)%(3*partMax)) // some in parts, some not
				got, err := a.Ask(ctx, "b", &Request{Op: "echo", Body: body})
				if err != nil || !bytes.Equal(got.Body, body) {
					t.Errorf("%d/%d: %v, %d bytes of %d", i, j, err, len(got.Body), len(body))
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLimits(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b")
	bk := newBook()
	told := make(chan string, 4)
	a := startMesh(t, dir, "a", bk, Options{InFlight: 2}, testOps(told))
	b := startNode(t, dir, "b", bk, nodeOptions{InFlight: 1})
	b.do("peer a %s", a.Addr())
	require.Equal(t, "ok", b.line())
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	var wg sync.WaitGroup
	hang := func(to string) {
		wg.Go(func() {
			_, err := a.Ask(ctx, to, &Request{Op: "hang"})
			if fault.KindOf(err) != fault.Timeout {
				t.Errorf("%s: %v", to, err)
			}
		})
	}
	hang("b")
	require.Equal(t, "hanging ", b.line())
	_, err := a.Ask(ctx, "b", &Request{Op: "echo"})
	require.Equal(t, fault.Overloaded, fault.KindOf(err), "it serves one at once")
	require.ErrorContains(t, err, "mesh.serve b")

	hang("a")
	hang("a")
	<-told
	<-told
	_, err = a.Ask(ctx, "a", &Request{Op: "echo"})
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
	require.True(t, a.asked.take(0))
	_, err = a.Ask(ctx, "b", &Request{Op: "echo"})
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
	require.ErrorContains(t, err, "mesh.ask b", "its own limit, before anything is sent")
	a.asked.give(0)
	cancel()
	wg.Wait()
}

func TestAPeerThatDiesFailsItsAsksAtOnce(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b", "c")
	bk := newBook()
	a := startMesh(t, dir, "a", bk, Options{}, testOps(nil))
	b, c := startNode(t, dir, "b", bk, nodeOptions{}), startNode(t, dir, "c", bk, nodeOptions{})
	for _, n := range []*node{b, c} {
		n.do("peer a %s", a.Addr())
		require.Equal(t, "ok", n.line())
	}
	ask := func(n *node) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := a.Ask(within(t, time.Minute), n.name, &Request{Op: "hang"})
			done <- err
		}()
		require.Equal(t, "hanging ", n.line())
		return done
	}
	wait := func(done chan error) error {
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			t.Fatal("the ask hangs")
		}
		return nil
	}

	onC := ask(c)
	done := ask(b)
	b.kill()
	err := wait(done)
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	begin := time.Now()
	_, err = a.Ask(within(t, time.Minute), "b", &Request{Op: "echo"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	require.Less(t, time.Since(begin), askMax/2, "refused, not waited for")

	// on another port, as a pod that was replaced
	b = startNode(t, dir, "b", bk, nodeOptions{})
	b.do("peer a %s", a.Addr())
	require.Equal(t, "ok", b.line())
	askUntil(t, a, "b")

	// gossip says that it is gone, although its connection stands
	done = ask(b)
	b.signal(syscall.SIGSTOP)
	a.Gone("b")
	err = wait(done)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.ErrorContains(t, err, "gone")
	b.signal(syscall.SIGCONT)
	askUntil(t, a, "b")

	select {
	case err := <-onC:
		t.Fatalf("the ask to another node ended too: %v", err)
	default:
	}
	a.Stop()
	err = wait(onC)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.ErrorIs(t, err, errStopped)
}

func TestANodeThatMovesIsDialledAnew(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b")
	bk := newBook()
	a := startMesh(t, dir, "a", bk, Options{}, testOps(nil))
	old := startNode(t, dir, "b", bk, nodeOptions{})
	old.do("peer a %s", a.Addr())
	require.Equal(t, "ok", old.line())
	askUntil(t, a, "b")
	old.signal(syscall.SIGSTOP) // a host that vanished: its connection ends by itself only after a long time
	now := startNode(t, dir, "b", bk, nodeOptions{})
	now.do("peer a %s", a.Addr())
	require.Equal(t, "ok", now.line())
	askUntil(t, a, "b")
}

func TestAnotherNodeAtTheAddressIsRefused(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b", "c")
	other := pkitest.New(t, "c")
	bk := newBook()
	a := startMesh(t, dir, "a", bk, Options{}, testOps(nil))
	b := startNode(t, dir, "b", bk, nodeOptions{})
	bk.set("c", b.addr)
	_, err := a.Ask(within(t, time.Minute), "c", &Request{Op: "echo"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	require.ErrorContains(t, err, "certificate is valid for b, not c")

	startNode(t, other, "c", bk, nodeOptions{}) // the right name, of another authority
	ctx := within(t, patience)
	for {
		_, err = a.Ask(ctx, "c", &Request{Op: "echo"})
		require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
		require.NoError(t, ctx.Err(), "last: %v", err)
		if strings.Contains(err.Error(), "unknown authority") {
			break
		}
		tick(ctx)
	}
}

func TestStartAndStop(t *testing.T) {
	if isolated(t) {
		return
	}
	before := goleak.IgnoreCurrent()
	dir := pkitest.New(t, "a")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	id := pkitest.Load(t, dir, "a")
	bk := newBook()
	m, err := New(Options{Listen: taken.Addr().String(), TLS: id, Resolve: bk.resolve})
	require.NoError(t, err)
	err = m.Start()
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))
	_, err = m.Ask(within(t, time.Minute), "a", &Request{Op: "echo"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "not started")
	m.Stop()
	m.Stop()
	require.Equal(t, fault.Invalid, fault.KindOf(m.Start()))

	for _, o := range []Options{{}, {TLS: id, Resolve: bk.resolve, Listen: "x"}, {TLS: id, Resolve: bk.resolve, Listen: "x:99999"},
		{TLS: id, Resolve: bk.resolve, Listen: ":0", InFlight: -1}} {
		_, err := New(o)
		require.Equal(t, fault.Invalid, fault.KindOf(err))
	}

	m = startMesh(t, dir, "a", bk, Options{}, testOps(nil))
	require.Equal(t, "a", m.Self())
	require.Equal(t, fault.Invalid, fault.KindOf(m.Start()))
	bk.set("b", taken.Addr().String()) // accepts and says nothing
	_, err = m.Ask(within(t, time.Minute), "b", &Request{Op: "echo"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	done := make(chan error, 1)
	go func() {
		_, err := m.Ask(context.Background(), "a", &Request{Op: "hang"})
		done <- err
	}()
	m.Stop()
	m.Stop()
	require.Error(t, <-done)
	_, err = m.Ask(context.Background(), "a", &Request{Op: "echo"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.Equal(t, fault.Unavailable, fault.KindOf(m.Tell("a", &Request{Op: "echo"})))
	c, err := net.Dial("tcp", m.Addr())
	if err == nil {
		c.Close()
	}
	require.Error(t, err, "the port is closed")
	taken.Close()
	require.NoError(t, goleak.Find(before,
		goleak.IgnoreAnyFunction("github.com/asynkron/protoactor-go/actor.NewDeadLetter.NewThrottle.func4.1"))) // ends by itself within seconds
}

// A peer that comes back asks at once; its answer must not get lost because it could not be reached a moment ago.
func TestAPeerThatComesBackIsAnswered(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b")
	bk := newBook()
	a := startMesh(t, dir, "a", bk, Options{}, testOps(nil))
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := reserved.Addr().String()
	reserved.Close()
	bk.set("b", addr)
	for range 8 { // it is asked for all the time while it is down
		_, err := a.Ask(within(t, patience), "b", &Request{Op: "echo"})
		require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	}
	b := startNode(t, dir, "b", bk, nodeOptions{Listen: addr})
	b.do("peer a %s", a.Addr())
	require.Equal(t, "ok", b.line())
	_, _ = a.Ask(within(t, patience), "b", &Request{Op: "echo"}) // may still be refused
	begin := time.Now()
	b.do("ask a echo k")
	require.Equal(t, "answer 0 <nil>", b.line())
	require.Less(t, time.Since(begin), askMax/6)
	askUntil(t, a, "b")
}

// A peer that takes nothing any more is given up, and what waits for it is let go.
func TestAPeerThatStallsIsGivenUp(t *testing.T) {
	if isolated(t) {
		return
	}
	dir := pkitest.New(t, "a", "b")
	bk := newBook()
	a := startMesh(t, dir, "a", bk, Options{}, testOps(nil))
	b := startNode(t, dir, "b", bk, nodeOptions{})
	b.do("peer a %s", a.Addr())
	require.Equal(t, "ok", b.line())
	askUntil(t, a, "b")
	b.signal(syscall.SIGSTOP)
	var wg sync.WaitGroup
	begin := time.Now()
	for range 4 {
		wg.Go(func() {
			_, err := a.Ask(within(t, time.Minute), "b", &Request{Op: "echo", Body: make([]byte, BodyMax)})
			if fault.KindOf(err) != fault.Unavailable {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Less(t, time.Since(begin), askMax/2)
	count, size := a.asked.used()
	require.Zero(t, count+size)
	b.signal(syscall.SIGCONT)
	askUntil(t, a, "b")
}

func TestRest(t *testing.T) {
	require.Equal(t, restMin, rest(1))
	require.Equal(t, 2*restMin, rest(2))
	require.Equal(t, restMax, rest(9))
	require.Equal(t, restMax, rest(1<<40))
}
