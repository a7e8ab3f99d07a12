package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func newCluster(t *testing.T, id string, nodes ...string) string {
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, Init(dir, InitOptions{Cluster: id, Nodes: nodes}))
	return dir
}

func nodeDir(dir, name string) string { return filepath.Join(dir, nodesDir, name) }

func load(t *testing.T, dir, name string) *Identity {
	id, err := Load(nodeDir(dir, name))
	require.NoError(t, err)
	return id
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "node-1": true, "1": true, "autoglm-0.autoglm": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a_b": false, "a/b": false, "..": false, "a..b": false, "a.-b": false, "a-.b": false,
		"10.0.0.1": false, "é": false, "a b": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		err := CheckName(name)
		require.Equal(t, ok, err == nil, "%q: %v", name, err)
		if !ok {
			require.Equal(t, fault.Invalid, fault.KindOf(err))
			require.NotEmpty(t, fault.RemedyOf(err))
		}
	}
}

func TestInitMakesAWholeCluster(t *testing.T) {
	dir := newCluster(t, "", "a", "b")
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		st, err := d.Info()
		require.NoError(t, err)
		if d.IsDir() {
			require.EqualValues(t, 0o700, st.Mode().Perm(), path)
			return nil
		}
		require.EqualValues(t, 0o600, st.Mode().Perm(), path)
		rel, _ := filepath.Rel(dir, path)
		found = append(found, rel)
		return nil
	}))
	require.Equal(t, []string{"ca.crt", "ca.key", "callback.secret", "cluster.json", "gossip.key",
		"nodes/a/api.crt", "nodes/a/api.key", "nodes/a/ca.crt", "nodes/a/callback.secret", "nodes/a/cluster.json", "nodes/a/gossip.key", "nodes/a/node.crt", "nodes/a/node.key",
		"nodes/b/api.crt", "nodes/b/api.key", "nodes/b/ca.crt", "nodes/b/callback.secret", "nodes/b/cluster.json", "nodes/b/gossip.key", "nodes/b/node.crt", "nodes/b/node.key"}, found)
	beside, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, beside, 1, "nothing half made is left")

	a, b := load(t, dir, "a"), load(t, dir, "b")
	require.Equal(t, "a", a.Name)
	require.Regexp(t, "^whsec_[A-Za-z0-9+/]{43}=$", a.Callback)
	require.Equal(t, a.Callback, b.Callback, "a receiver checks the callbacks of all nodes with one secret")
	require.Equal(t, a.Cluster, b.Cluster)
	require.Len(t, a.Cluster, 36, "a uuid when no id is given")
	require.Len(t, a.GossipKeys, 1)
	require.Len(t, a.GossipKeys[0], 32)
	require.Equal(t, a.GossipKeys, b.GossipKeys)
	id, err := Cluster(dir)
	require.NoError(t, err)
	require.Equal(t, a.Cluster, id)

	require.NoError(t, AddNode(dir, "c"))
	require.Equal(t, a.Cluster, load(t, dir, "c").Cluster)
	names, err := Nodes(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, names)
}

func TestInitRefuses(t *testing.T) {
	dir := newCluster(t, "test", "a")
	before, err := os.ReadFile(filepath.Join(dir, caKey))
	require.NoError(t, err)
	err = Init(dir, InitOptions{Nodes: []string{"a"}})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))
	after, err := os.ReadFile(filepath.Join(dir, caKey))
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Equal(t, fault.Conflict, fault.KindOf(AddNode(dir, "a")))
	require.Equal(t, fault.Invalid, fault.KindOf(AddNode(dir, "../a")))
	require.Equal(t, fault.NotFound, fault.KindOf(AddNode(t.TempDir(), "a")))

	for what, o := range map[string]InitOptions{
		"bad name":    {Nodes: []string{"A"}},
		"twice":       {Nodes: []string{"a", "a"}},
		"bad cluster": {Cluster: "a/b"},
		"too long":    {ValidFor: 2 * caValid},
		"negative":    {ValidFor: -time.Hour},
	} {
		require.Equal(t, fault.Invalid, fault.KindOf(Init(filepath.Join(t.TempDir(), "x"), o)), what)
	}
	empty := t.TempDir()
	require.NoError(t, Init(empty, InitOptions{Nodes: []string{"a"}}), "an empty folder will do")
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	other := newCluster(t, "other", "a")
	for what, c := range map[string]struct {
		harm   func(t *testing.T, dir string) // dir: the cluster's folder, with nodes a and b
		kind   fault.Kind
		remedy string
	}{
		"no key":         {func(t *testing.T, d string) { require.NoError(t, os.Remove(filepath.Join(nodeDir(d, "a"), nodeKey))) }, fault.NotFound, "copy"},
		"no description": {func(t *testing.T, d string) { require.NoError(t, os.Remove(filepath.Join(nodeDir(d, "a"), about))) }, fault.NotFound, "init"},
		"open key": {func(t *testing.T, d string) {
			require.NoError(t, os.Chmod(filepath.Join(nodeDir(d, "a"), nodeKey), 0o644))
		}, fault.Refused, "chmod 600"},
		"open gossip": {func(t *testing.T, d string) {
			require.NoError(t, os.Chmod(filepath.Join(nodeDir(d, "a"), gossipFile), 0o604))
		}, fault.Refused, "chmod 600"},
		"another's key": {func(t *testing.T, d string) { move(t, nodeDir(d, "b"), nodeDir(d, "a"), nodeKey) }, fault.Invalid, "same folder"},
		"another node": {func(t *testing.T, d string) {
			move(t, nodeDir(d, "b"), nodeDir(d, "a"), nodeKey)
			move(t, nodeDir(d, "b"), nodeDir(d, "a"), nodeCrt)
		}, fault.Refused, "nodes/a"},
		"another authority": {func(t *testing.T, d string) { move(t, nodeDir(other, "a"), nodeDir(d, "a"), caCrt) }, fault.Refused, "whole"},
		"no authority": {func(t *testing.T, d string) {
			require.NoError(t, os.WriteFile(filepath.Join(nodeDir(d, "a"), caCrt), []byte("?"), 0o600))
		}, fault.Corrupt, "copy"},
		"no gossip key": {func(t *testing.T, d string) {
			require.NoError(t, os.WriteFile(filepath.Join(nodeDir(d, "a"), gossipFile), []byte("# none\n"), 0o600))
		}, fault.Corrupt, ""},
		"newer": {func(t *testing.T, d string) {
			require.NoError(t, os.WriteFile(filepath.Join(nodeDir(d, "a"), about), []byte(`{"format":9,"cluster":"test","name":"a"}`), 0o600))
		}, fault.Invalid, "newer"},
		"too large": {func(t *testing.T, d string) {
			require.NoError(t, os.WriteFile(filepath.Join(nodeDir(d, "a"), nodeCrt), make([]byte, fileMax+1), 0o600))
		}, fault.TooLarge, ""},
		"expired": {func(t *testing.T, d string) { remint(t, d, "a", time.Now().Add(-2*time.Hour)) }, fault.Refused, "mint"},
		"not yet": {func(t *testing.T, d string) { remint(t, d, "a", time.Now().Add(2*time.Hour)) }, fault.Refused, "clock"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := newCluster(t, "test", "a", "b")
			c.harm(t, dir)
			_, err := Load(nodeDir(dir, "a"))
			require.Error(t, err)
			require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
			require.Contains(t, fault.RemedyOf(err), c.remedy)
		})
	}
	_, err := Load(newCluster(t, "test", "a"))
	require.Equal(t, fault.Invalid, fault.KindOf(err), "the cluster's folder")
	require.Contains(t, fault.RemedyOf(err), "nodes")
	dir := newCluster(t, "test", "a")
	require.NoError(t, os.Chmod(filepath.Join(nodeDir(dir, "a"), nodeKey), 0o440))
	_, err = Load(nodeDir(dir, "a"))
	require.NoError(t, err, "a group may read it: Kubernetes mounts secrets so")
}

func move(t *testing.T, from, to, name string) {
	b, err := os.ReadFile(filepath.Join(from, name))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
}

// remint gives a node a certificate of one hour from begin.
func remint(t *testing.T, dir, name string, begin time.Time) {
	a, _, desc, _, err := open(dir)
	require.NoError(t, err)
	crt, key, err := a.node(desc.Cluster, name, begin, time.Hour)
	require.NoError(t, err)
	require.NoError(t, writeAll(nodeDir(dir, name), map[string][]byte{nodeCrt: crt, nodeKey: key}))
}

// handshake returns what each side says, and whom the server saw.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error, saw string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	cs, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	ss, err := l.Accept()
	require.NoError(t, err)
	deadline := time.Now().Add(10 * time.Second)
	require.NoError(t, cs.SetDeadline(deadline))
	require.NoError(t, ss.SetDeadline(deadline))
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer ss.Close()
		s := tls.Server(ss, server)
		if serverErr = s.Handshake(); serverErr == nil {
			saw, serverErr = PeerName(s.ConnectionState())
			_, _ = s.Write([]byte("!"))
		}
	}()
	c := tls.Client(cs, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1)) // in TLS 1.3 the server's refusal comes after the client's handshake
	}
	cs.Close()
	<-done
	return serverErr, clientErr, saw
}

func TestWhoMayTalkToWhom(t *testing.T) {
	dir, other := newCluster(t, "test", "a", "b", "c"), newCluster(t, "test", "a", "b")
	a, b := load(t, dir, "a"), load(t, dir, "b")
	forge := func(cluster, uri, dns string) *tls.Config {
		au, _, _, _, err := open(dir)
		require.NoError(t, err)
		crt, key, err := au.node(cluster, uri, time.Now(), time.Hour)
		require.NoError(t, err)
		pair, err := tls.X509KeyPair(crt, key)
		require.NoError(t, err)
		return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: a.current().trust, ClientCAs: a.current().trust, ServerName: dns, MinVersion: tls.VersionTLS13}
	}

	s, c, saw := handshake(t, a.Server(), b.Client("a"))
	require.NoError(t, s)
	require.NoError(t, c)
	require.Equal(t, "b", saw)

	for what, pair := range map[string]struct{ server, client *tls.Config }{
		"another node in its place":      {load(t, dir, "c").Server(), b.Client("a")},
		"another authority's server":     {load(t, other, "a").Server(), b.Client("a")},
		"another authority's client":     {a.Server(), load(t, other, "b").Client("a")},
		"no client certificate":          {a.Server(), &tls.Config{RootCAs: a.current().trust, ServerName: "a"}},
		"client of another cluster":      {a.Server(), forge("elsewhere", "b", "a")},
		"server of another cluster":      {forge("elsewhere", "a", "a"), b.Client("a")},
		"client that is no node":         {a.Server(), forge("test", "NO NODE", "a")},
		"TLS 1.2":                        {a.Server(), &tls.Config{Certificates: []tls.Certificate{b.current().cert}, RootCAs: a.current().trust, ServerName: "a", MaxVersion: tls.VersionTLS12}},
		"the authority itself as a peer": {a.Server(), authorityAsClient(t, dir)},
	} {
		t.Run(what, func(t *testing.T) {
			s, c, _ := handshake(t, pair.server, pair.client)
			require.Error(t, c, "the client")
			_ = s // in TLS 1.3 a client may refuse after the server is content
		})
	}
	_, err := PeerName(tls.ConnectionState{})
	require.Equal(t, fault.Refused, fault.KindOf(err))
}

func authorityAsClient(t *testing.T, dir string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, caCrt), filepath.Join(dir, caKey))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "a"}
}

func TestNewFilesAreUsedWithoutARestart(t *testing.T) {
	dir := newCluster(t, "test", "a", "b")
	a, b := load(t, dir, "a"), load(t, dir, "b")
	now := time.Now()
	a.now = func() time.Time { return now }
	var told []error
	a.OnReload = func(err error) { told = append(told, err) }
	old := a.current().cert.Leaf.SerialNumber

	remint(t, dir, "a", time.Now())
	require.Equal(t, old, a.current().cert.Leaf.SerialNumber, "not looked at within a second")
	now = now.Add(recheck)
	require.NotEqual(t, old, a.current().cert.Leaf.SerialNumber)
	require.Equal(t, []error{nil}, told)
	s, c, _ := handshake(t, a.Server(), b.Client("a"))
	require.NoError(t, s)
	require.NoError(t, c)

	// half copied: the old pair stays in use until the rest is there
	used := a.current().cert.Leaf.SerialNumber
	key, err := os.ReadFile(filepath.Join(nodeDir(dir, "a"), nodeKey))
	require.NoError(t, err)
	move(t, nodeDir(dir, "b"), nodeDir(dir, "a"), nodeKey)
	now = now.Add(recheck)
	require.Equal(t, used, a.current().cert.Leaf.SerialNumber)
	require.Len(t, told, 2)
	require.Error(t, told[1])
	require.NoError(t, os.WriteFile(filepath.Join(nodeDir(dir, "a"), nodeKey), key, 0o600))
	now = now.Add(recheck)
	require.Equal(t, used, a.current().cert.Leaf.SerialNumber)
	require.Len(t, told, 3)
	require.NoError(t, told[2])

	// a certificate that runs out while the node works is refused by the others
	now = time.Now().Add(nodeValid + time.Hour)
	b.now = a.now
	s, _, _ = handshake(t, a.Server(), b.Client("a"))
	require.Error(t, s)
}

func TestGossipKeysRotateInThreeSteps(t *testing.T) {
	dir := newCluster(t, "test", "a", "b")
	keys := func() [][]byte {
		a, b := load(t, dir, "a").GossipKeys, load(t, dir, "b").GossipKeys
		require.Equal(t, a, b)
		return a
	}
	first := keys()[0]
	var second []byte
	for round, step := range []Step{Announced, Switched, Retired, Announced} {
		before := keys()
		got, err := RotateGossipKey(dir, false)
		if step == Switched || step == Retired { // who does not say that the last step is on all nodes gets no further
			require.Equal(t, fault.Conflict, fault.KindOf(err))
			require.Equal(t, before, keys())
			got, err = RotateGossipKey(dir, true)
		}
		require.NoError(t, err)
		require.Equal(t, step, got, "round %d", round)
		require.NotEmpty(t, got.Next())
		after := keys()
		require.True(t, holds(before, after[0]), "what is used now was accepted before")
		require.True(t, holds(after, before[0]), "what was used before is accepted still")
		if round == 0 {
			second = after[1]
		}
	}
	require.NotEqual(t, first, second)
	require.Equal(t, second, keys()[0])
	require.False(t, holds(keys(), first))
	require.NoError(t, AddNode(dir, "c"))
	require.Equal(t, keys(), load(t, dir, "c").GossipKeys)
}

func holds(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

func FuzzGossipRing(f *testing.F) {
	f.Add([]byte("# x\nAAAA new\n"))
	f.Add(ring{[][]byte{make([]byte, 32), bytes.Repeat([]byte{1}, 32)}, 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRing(b)
		if err != nil {
			return
		}
		again, err := decodeRing(r.encode())
		require.NoError(t, err)
		require.Equal(t, r, again)
		next, _ := r.rotate(make([]byte, 32))
		require.NotEmpty(t, next.keys)
		require.LessOrEqual(t, len(next.keys), gossipKeysMax)
	})
}
