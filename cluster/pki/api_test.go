package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestWhatClientsOfTheAPISee(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, Init(dir, InitOptions{Nodes: []string{"a"}, APINames: []string{"llm.example.com", "10.1.2.3"}, Admin: AdminKey{"the key", "its hash"}}))
	require.NoError(t, AddNode(dir, "b"))
	ca, err := os.ReadFile(filepath.Join(dir, caCrt))
	require.NoError(t, err)
	trust := x509.NewCertPool()
	require.True(t, trust.AppendCertsFromPEM(ca))
	for _, node := range []string{"a", "b"} {
		own := filepath.Join(dir, nodesDir, node)
		crt, key := APIFiles(own)
		pair, err := tls.LoadX509KeyPair(crt, key)
		require.NoError(t, err)
		for _, name := range []string{node, "localhost", "127.0.0.1", "::1", "llm.example.com", "10.1.2.3"} {
			_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: trust, DNSName: name})
			require.NoError(t, err, name)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: trust, DNSName: "other.example.com"})
		require.Error(t, err)
		hash, err := AdminHash(own)
		require.NoError(t, err)
		require.Equal(t, "its hash", hash)
		require.NoFileExists(t, filepath.Join(own, adminKey), "the key itself stays with the operator")
	}
	require.NoError(t, SetAdminKey(dir, AdminKey{"another", "another hash"}))
	for _, node := range []string{"a", "b"} {
		hash, err := AdminHash(filepath.Join(dir, nodesDir, node))
		require.NoError(t, err)
		require.Equal(t, "another hash", hash)
	}
	b, err := os.ReadFile(AdminKeyFile(dir))
	require.NoError(t, err)
	require.Equal(t, "another\n", string(b))
	require.Error(t, SetAdminKey(filepath.Join(dir, nodesDir, "a"), AdminKey{}), "a node's folder is no cluster's")
	hash, err := AdminHash(t.TempDir())
	require.NoError(t, err)
	require.Empty(t, hash)
	crt, _ := APIFiles(t.TempDir())
	require.Empty(t, crt)
	for _, bad := range []string{"", "a b", "https://a", "a:80", "*."} {
		require.Equal(t, fault.Invalid, fault.KindOf(Init(filepath.Join(t.TempDir(), "x"), InitOptions{Nodes: []string{"a"}, APINames: []string{bad}})), bad)
	}
}

// TestTheAPIsCertificateIsNoNodes: whoever gets hold of it can neither join nor pass for the node.
func TestTheAPIsCertificateIsNoNodes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, Init(dir, InitOptions{Nodes: []string{"a", "b"}}))
	a := load(t, dir, "a")
	pair, err := tls.LoadX509KeyPair(APIFiles(filepath.Join(dir, nodesDir, "b")))
	require.NoError(t, err)
	for what, conf := range map[string][2]*tls.Config{
		"as a client": {a.Server(), {Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}},
		"as a server": {{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, a.Client("b")},
	} {
		t.Run(what, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			served := make(chan error, 1)
			go func() {
				left, err := l.Accept()
				if err == nil {
					err = tls.Server(left, conf[0]).Handshake()
					left.Close()
				}
				served <- err
			}()
			right, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			defer right.Close()
			c := tls.Client(right, conf[1])
			if err = c.Handshake(); err == nil { // the server speaks last in TLS 1.3
				_, err = c.Read(make([]byte, 1))
			}
			require.Error(t, err)
			if what == "as a client" {
				require.Error(t, <-served)
			}
		})
	}
}
