package members

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const patience = 30 * time.Second // for what takes about a second

// quick makes tests short; a busy machine may see members come and go, so tests wait for what must become true.
var quick = Detect{Probe: 100 * time.Millisecond, Timeout: 60 * time.Millisecond, Suspicion: 4, Gossip: 20 * time.Millisecond, PushPull: 300 * time.Millisecond}

var key = bytes.Repeat([]byte{7}, keySize)

func options(name string, join ...string) Options {
	return Options{Self: Member{Name: name, Cluster: "c1", Node: "node-of-" + name}, Listen: "127.0.0.1:0", Keys: [][]byte{key},
		Join: join, Detect: quick, Rejoin: 300 * time.Millisecond}
}

func start(t testing.TB, o Options) *List {
	t.Helper()
	l, err := Start(o)
	require.NoError(t, err)
	t.Cleanup(func() { l.Stop() })
	return l
}

func names(l *List) string {
	var all []string
	for _, m := range l.Members() {
		all = append(all, m.Name)
	}
	return strings.Join(all, " ")
}

// until waits for a change of l's members that makes ok true.
func until(t testing.TB, l *List, what string, ok func() bool) {
	t.Helper()
	changed, end := l.Changed()
	defer end()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s sees %v: not %s", l.Self().Name, l.Members(), what)
		}
	}
}

func sees(t testing.TB, want string, lists ...*List) {
	t.Helper()
	for _, l := range lists {
		until(t, l, want, func() bool { return names(l) == want })
	}
}

func get(l *List, name string) Member {
	for _, m := range l.Members() {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

func TestJoinUpdateLeaveCrash(t *testing.T) {
	a := start(t, options("a"))
	b := start(t, options("b", a.Addr()))
	c := start(t, options("c", a.Addr()))
	sees(t, "a b c", a, b, c)
	require.Equal(t, "node-of-b", get(a, "b").Node)
	require.Equal(t, b.Addr(), get(a, "b").Gossip)

	require.NoError(t, b.Update(func(m *Member) { m.Founded, m.Engines, m.HTTP = true, 2, "10.0.0.1:8080" }))
	require.True(t, b.Self().Founded)
	for _, l := range []*List{a, c} {
		until(t, l, "b founded", func() bool { m := get(l, "b"); return m.Founded && m.Engines == 2 && m.HTTP == "10.0.0.1:8080" })
	}
	require.Equal(t, fault.Invalid, fault.KindOf(b.Update(func(m *Member) { m.Name = "x" })))
	require.Equal(t, "b", b.Self().Name)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, b.Leave(ctx))
	require.NoError(t, b.Leave(ctx))
	sees(t, "a c", a, c)
	require.NoError(t, b.Stop())
	require.NoError(t, b.Stop())
	require.NoError(t, b.Leave(ctx), "after Stop there is nothing to leave")
	require.Equal(t, fault.Unavailable, fault.KindOf(b.Update(func(m *Member) { m.Engines = 9 })))
	a.table.mu.Lock()
	require.Empty(t, a.table.lost, "one that left is not looked for")
	a.table.mu.Unlock()

	require.NoError(t, c.Stop()) // a crash: it says nothing
	sees(t, "a", a)
	a.table.mu.Lock()
	require.Len(t, a.table.lost, 1)
	a.table.mu.Unlock()
}

func TestRestart(t *testing.T) {
	for _, how := range []string{"the same port", "another port", "another port after a goodbye"} {
		t.Run(how, func(t *testing.T) {
			a := start(t, options("a"))
			b := start(t, options("b", a.Addr()))
			o := options("c", a.Addr())
			o.OnConflict = func(err error) { t.Errorf("conflict with its own past: %v", err) }
			c := start(t, o)
			sees(t, "a b c", a, b, c)
			if how == "the same port" {
				o.Listen = c.Addr()
			}
			if strings.HasSuffix(how, "goodbye") {
				require.NoError(t, c.Leave(t.Context()))
			}
			require.NoError(t, c.Stop())
			again := start(t, o)
			for _, l := range []*List{a, b} {
				until(t, l, "the new boot of c", func() bool {
					m := get(l, "c")
					return m.Boot == again.Self().Boot && m.Gossip == again.Addr()
				})
			}
			sees(t, "a b c", again)
		})
	}
}

func TestNameConflict(t *testing.T) {
	a := start(t, options("a"))
	ob := options("b", a.Addr())
	ob.OnConflict = func(err error) { t.Errorf("the elder was told: %v", err) }
	b := start(t, ob)
	sees(t, "a b", a, b)
	told := make(chan error, 1)
	o := options("b", a.Addr())
	var newcomer *List
	var ready sync.WaitGroup
	ready.Add(1)
	o.OnConflict = func(err error) {
		ready.Wait()
		if err := newcomer.Leave(t.Context()); err != nil { // as a program would
			t.Errorf("leave: %v", err)
		}
		newcomer.Stop()
		told <- err
	}
	newcomer = start(t, o)
	ready.Done()
	select {
	case err := <-told:
		require.Equal(t, fault.Conflict, fault.KindOf(err))
		require.Contains(t, err.Error(), b.Addr())
		require.NotEmpty(t, fault.RemedyOf(err))
	case <-time.After(patience):
		t.Fatal("the newcomer was not told")
	}
	until(t, a, "the elder", func() bool { return get(a, "b").Boot == b.Self().Boot })
	require.False(t, get(a, "b").Stopping, "the newcomer said goodbye in the elder's name")
	require.False(t, b.Self().Stopping)
}

// stranger starts a member that should not get in, lets it try, and shows that neither side saw the other.
func stranger(t *testing.T, o Options, others ...*List) {
	t.Helper()
	was := names(others[0])
	before := len(others)
	o.Join = []string{others[0].Addr()}
	l := start(t, o)
	// Three exchanges that it asks for itself, and one that is asked of it.
	for range 3 {
		l.gossip.Join([]string{others[0].Addr()})
	}
	others[0].gossip.Join([]string{l.Addr()})
	require.Equal(t, o.Self.Name, names(l))
	require.Equal(t, was, names(others[before-1]))
	require.NoError(t, l.Stop())
}

func TestStrangers(t *testing.T) {
	a := start(t, options("a"))
	b := start(t, options("b", a.Addr()))
	sees(t, "a b", a, b)
	other := func(f func(*Options)) Options { o := options("x"); f(&o); return o }
	t.Run("wrong key", func(t *testing.T) {
		stranger(t, other(func(o *Options) { o.Keys = [][]byte{bytes.Repeat([]byte{8}, keySize)} }), a, b)
	})
	t.Run("no key", func(t *testing.T) {
		stranger(t, other(func(o *Options) { o.Keys, o.Insecure = nil, true }), a, b)
	})
	t.Run("another cluster", func(t *testing.T) {
		stranger(t, other(func(o *Options) { o.Self.Cluster = "c2" }), a, b)
	})
	t.Run("another cluster under the right label", func(t *testing.T) {
		d := delegate{a}
		m := Member{Name: "x", Boot: "1", Cluster: "c2"}
		meta, err := encodeMeta(m)
		require.NoError(t, err)
		n := nodeOf("x", meta)
		require.ErrorContains(t, d.NotifyAlive(n), "c2")
		require.ErrorContains(t, d.NotifyMerge([]*node{n}), "c2")
		require.Error(t, d.NotifyAlive(nodeOf("x", []byte("{"))))
		require.Error(t, d.NotifyAlive(nodeOf("x", nil)))
		d.NotifyJoin(n)
		require.Equal(t, "a b", names(a))
	})
	t.Run("garbage", func(t *testing.T) {
		for _, network := range []string{"udp", "tcp"} {
			c, err := net.Dial(network, a.Addr())
			require.NoError(t, err)
			for range 50 {
				junk := make([]byte, 400)
				rand.Read(junk)
				c.Write(junk)
			}
			c.Close()
		}
		c := start(t, options("c", a.Addr()))
		sees(t, "a b c", a, b, c)
	})
}

func TestRotateKeys(t *testing.T) {
	a := start(t, options("a"))
	b := start(t, options("b", a.Addr()))
	sees(t, "a b", a, b)
	next := bytes.Repeat([]byte{9}, keySize)
	for i, keys := range [][][]byte{{key, next}, {next, key}, {next}} {
		require.NoError(t, a.SetKeys(keys))
		require.NoError(t, b.SetKeys(keys))
		require.NoError(t, a.Update(func(m *Member) { m.Engines = i + 1 }))
		until(t, b, "the update under these keys", func() bool { return get(b, "a").Engines == i+1 })
	}
	stranger(t, options("x"), a, b) // with the old key
	o := options("c", a.Addr())
	o.Keys = [][]byte{next}
	c := start(t, o)
	sees(t, "a b c", a, b, c)
	require.Equal(t, fault.Invalid, fault.KindOf(a.SetKeys(nil)))
	require.Equal(t, fault.Invalid, fault.KindOf(a.SetKeys([][]byte{[]byte("short")})))
	o = options("y")
	o.Keys, o.Insecure = nil, true
	require.Equal(t, fault.Refused, fault.KindOf(start(t, o).SetKeys([][]byte{key})))
}

func TestRumorsReachAllOnce(t *testing.T) {
	const nodes, each = 5, 20
	got := make(chan string, 4*nodes*nodes*each)
	var lists []*List
	for i := range nodes {
		o := options(fmt.Sprint("n", i))
		if i > 0 {
			o.Join = []string{lists[0].Addr()}
		}
		o.OnRumor = func(b []byte) { got <- o.Self.Name + " heard " + string(b) }
		lists = append(lists, start(t, o))
	}
	sees(t, "n0 n1 n2 n3 n4", lists...)
	want := map[string]int{}
	for i, l := range lists {
		for k := range each {
			require.NoError(t, l.Rumor(fmt.Appendf(nil, "%d of n%d", k, i)))
			for to := range nodes {
				if to != i {
					want[fmt.Sprintf("n%d heard %d of n%d", to, k, i)]++
				}
			}
		}
	}
	// Rumors go by UDP, some times over: on a machine that is short of time a few get lost, and the exchange of states
	// makes up for them.
	const quiet = 3 * time.Second // no more comes after this: a rumor is told for less than a second
	for n := len(want); n > 0; n-- {
		select {
		case s := <-got:
			require.Equal(t, 1, want[s], "%s: not for it, or once more", s)
			want[s]--
		case <-time.After(quiet):
			require.Less(t, n, len(want)/20, "rumors were not heard")
			n = 0
		}
	}
	require.Equal(t, fault.TooLarge, fault.KindOf(lists[0].Rumor(make([]byte, RumorMax+1))))
	require.NoError(t, lists[0].Rumor(make([]byte, RumorMax)))
	deadline := time.After(patience)
	for range nodes - 1 {
		select {
		case s := <-got:
			require.Contains(t, s, strings.Repeat("\x00", RumorMax))
		case <-deadline:
			t.Fatal("the largest rumor did not fit a packet")
		}
	}
}

func TestStatesAreExchanged(t *testing.T) {
	got := make(chan string, 1)
	oa := options("a")
	oa.State = func() []byte { return []byte("what a knows") }
	a := start(t, oa)
	ob := options("b", a.Addr())
	ob.State = func() []byte { return make([]byte, StateMax+1) } // not sent, and harms nobody
	ob.Merge = func(b []byte) {
		select {
		case got <- string(b):
		default:
		}
	}
	b := start(t, ob)
	for range 2 { // at the join, and again later
		select {
		case s := <-got:
			require.Equal(t, "what a knows", s)
		case <-time.After(patience):
			t.Fatal("nothing was merged")
		}
	}
	sees(t, "a b", a, b)
}

func TestSeedsAreNames(t *testing.T) {
	a := start(t, options("a"))
	_, port, err := hostPort(a.Addr())
	require.NoError(t, err)
	var mu sync.Mutex
	asked := 0
	o := options("b", fmt.Sprintf("glm.example:%d", port))
	o.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		mu.Lock()
		defer mu.Unlock()
		switch asked++; asked {
		case 1:
			return nil, &net.DNSError{Err: "no such host", Name: host}
		case 2:
			return nil, nil // no pod is ready
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil // the first is nobody
	}
	b := start(t, o)
	sees(t, "a b", a, b)
	mu.Lock()
	defer mu.Unlock()
	require.GreaterOrEqual(t, asked, 3)
}

// Two halves that gave each other up, and forgot each other, meet again through a seed.
func TestHalvesMeetAgain(t *testing.T) {
	a := start(t, options("a"))
	b := start(t, options("b"))
	require.Equal(t, "a", names(a))
	o := options("c", a.Addr(), b.Addr()) // sees a first; b is a seed that is not seen
	c := start(t, o)
	sees(t, "a b c", a, b, c)

	// All seeds are gone for a while: the addresses of the lost are tried.
	d := start(t, options("d", a.Addr()))
	sees(t, "a b c d", a, b, c, d)
	addr := d.Addr()
	require.NoError(t, d.Stop())
	sees(t, "a b c", a, b, c)
	od := options("d") // knows nobody
	od.Listen = addr
	again := start(t, od)
	sees(t, "a b c d", a, b, c, again)
}

func TestStartRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		f    func(*Options)
		kind fault.Kind
	}{
		"no name":         {func(o *Options) { o.Self.Name = "" }, fault.Invalid},
		"no cluster":      {func(o *Options) { o.Self.Cluster = "" }, fault.Invalid},
		"no key":          {func(o *Options) { o.Keys = nil }, fault.Refused},
		"a short key":     {func(o *Options) { o.Keys = [][]byte{[]byte("x")} }, fault.Invalid},
		"a long meta":     {func(o *Options) { o.Self.Zone = strings.Repeat("z", metaMax) }, fault.TooLarge},
		"a long cluster":  {func(o *Options) { o.Self.Cluster = strings.Repeat("z", labelMax+1) }, fault.Invalid},
		"a seed no port":  {func(o *Options) { o.Join = []string{"host"} }, fault.Invalid},
		"a bad listen":    {func(o *Options) { o.Listen = "127.0.0.1" }, fault.Invalid},
		"not its address": {func(o *Options) { o.Listen = "192.0.2.1:0" }, fault.Unavailable},
		"advertise ::":    {func(o *Options) { o.Listen = "[::]:0" }, fault.Invalid},
		"advertise :1":    {func(o *Options) { o.Advertise = ":1" }, fault.Invalid},
		"a slow timeout":  {func(o *Options) { o.Detect = quick; o.Detect.Timeout = time.Second }, fault.Invalid},
		"many seeds":      {func(o *Options) { o.Join = slices.Repeat([]string{"h:1"}, seedsMax+1) }, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			o := options("a")
			c.f(&o)
			l, err := Start(o)
			if err == nil {
				l.Stop()
			}
			require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
		})
	}
	a := start(t, options("a"))
	require.Equal(t, fault.TooLarge, fault.KindOf(a.Update(func(m *Member) { m.Zone = strings.Repeat("z", metaMax) })))
	require.Empty(t, a.Self().Zone)
}

func TestMeta(t *testing.T) {
	u := "0193a1b2-0000-7000-8000-000000000001"
	full := Member{Name: strings.Repeat("n", nameMax), Node: u, Boot: u, Cluster: u, Shards: 256, Founded: true, Raft: "255.255.255.255:65535",
		Remote: "255.255.255.255:65535", HTTP: "255.255.255.255:65535", Zone: "europe-west1-b", Version: "v1.20.30-45-gabcdef012-dirty", Engines: 16, Lineage: "1795453390285-00000000-0000-4000-8000-000000000001", Leaving: true, Stopping: true, Knows: 99}
	b, err := encodeMeta(full)
	require.NoError(t, err)
	require.Less(t, len(b), metaMax*3/4, "room for what is added later")
	got, err := decodeMeta(full.Name, b)
	require.NoError(t, err)
	require.Equal(t, full, got)
	got, err = decodeMeta("n", []byte(`{"v":2,"b":"1","c":"x","new":{"deep":[1]},"z":"here"}`))
	require.NoError(t, err, "a newer program's")
	require.Equal(t, Member{Name: "n", Boot: "1", Cluster: "x", Zone: "here"}, got)
	for _, bad := range []string{"", "{}", "null", `{"v":1}`, `{"v":1,"b":"1"}`, `{"v":"1"}`, "\x00"} {
		_, err := decodeMeta("n", []byte(bad))
		require.Equal(t, fault.Malformed, fault.KindOf(err), "%q", bad)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"v":1,"b":"1","c":"x","z":"here"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta("n", b)
		if err != nil {
			return
		}
		again, err := encodeMeta(m)
		if err != nil {
			return // too long: escapes
		}
		got, err := decodeMeta("n", again)
		if err != nil || got != m {
			t.Fatalf("%+v became %+v, %v", m, got, err)
		}
	})
}
