// Package pkitest makes identities for tests, forged ones too.
package pkitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/open-autoglm/autoglm/cluster/pki"
)

// New makes a cluster with these nodes in a folder of the test and returns the folder.
func New(t testing.TB, nodes ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := pki.Init(dir, pki.InitOptions{Cluster: "test", Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Load loads a node of a folder that New made.
func Load(t testing.TB, dir, node string) *pki.Identity {
	t.Helper()
	id, err := pki.Load(filepath.Join(dir, "nodes", node))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Forge has the authority of dir sign whatever is asked: a certificate with these URIs and DNS names, as somebody with
// the authority's key could. It is good for both ends.
func Forge(t testing.TB, dir string, uris, dns []string) tls.Certificate {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: dns,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		tpl.URIs = append(tpl.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Trust returns the authority of dir as a pool.
func Trust(t testing.TB, dir string) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("no certificate in ca.crt")
	}
	return pool
}
