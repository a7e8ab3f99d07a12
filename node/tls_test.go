package node

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// certs makes a cluster's folder and returns the API's certificate and key of node a, and who certifies them.
func certs(t *testing.T) (crt, key string, trust *x509.CertPool) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, pki.Init(dir, pki.InitOptions{Nodes: []string{"a"}}))
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	require.NoError(t, err)
	trust = x509.NewCertPool()
	require.True(t, trust.AppendCertsFromPEM(ca))
	crt, key = pki.APIFiles(filepath.Join(dir, "nodes", "a"))
	return crt, key, trust
}

func TestTheAPIOverTLS(t *testing.T) {
	crt, key, trust := certs(t)
	l := bootLocked(t, func(c *Config) { c.HTTP.TLSCert, c.HTTP.TLSKey = crt, key })
	url := "https://" + l.n.HTTPAddr()
	c, err := client.New(url, client.WithTrust(trust), client.WithAPIKey(l.root))
	require.NoError(t, err)
	who, err := c.WhoAmI(t.Context())
	require.NoError(t, err)
	require.Equal(t, "root", who.Name)
	for _, http2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}, ForceAttemptHTTP2: http2}
		res, err := (&http.Client{Transport: tr}).Get(url + "/readyz")
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http2, res.ProtoMajor == 2)
		tr.CloseIdleConnections()
	}
	plain, err := client.New("http://"+l.n.HTTPAddr(), client.WithRetry(0))
	require.NoError(t, err)
	_, err = plain.WhoAmI(t.Context())
	require.Error(t, err)
	stranger, err := client.New(url, client.WithRetry(0))
	require.NoError(t, err)
	_, err = stranger.WhoAmI(t.Context())
	require.ErrorContains(t, err, "certificate")
}

func TestANewCertificateIsUsedWithoutARestart(t *testing.T) {
	crt, key, _ := certs(t)
	crt2, key2, _ := certs(t)
	s := &shownCert{crt: crt, key: key, log: slog.New(slog.DiscardHandler)}
	first, err := s.current(nil)
	require.NoError(t, err)
	replace := func(to, from string) {
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, b, 0o600))
		later := time.Now().Add(time.Hour)
		require.NoError(t, os.Chtimes(to, later, later))
		s.looked = time.Time{}
	}
	replace(crt, crt2) // half copied
	c, err := s.current(nil)
	require.NoError(t, err)
	require.Equal(t, first, c, "the old pair stays")
	replace(key, key2)
	c, err = s.current(nil)
	require.NoError(t, err)
	require.NotEqual(t, first.Certificate, c.Certificate)
	require.NoError(t, os.Remove(crt))
	s.looked = time.Time{}
	again, err := s.current(nil)
	require.NoError(t, err)
	require.Equal(t, c, again)
}

func TestWhichCertificateANodeShows(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	require.NoError(t, pki.Init(dir, pki.InitOptions{Nodes: []string{"a"}}))
	id := filepath.Join(dir, "nodes", "a")
	log := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		name   string
		edit   func(*Config)
		secure bool
	}{
		{"alone", func(*Config) {}, false},
		{"of a cluster, on loopback", func(c *Config) { c.Cluster.Identity = id }, false},
		{"of a cluster, for all", func(c *Config) { c.Cluster.Identity, c.HTTP.Listen = id, "0.0.0.0:0" }, true},
		{"behind a proxy", func(c *Config) { c.Cluster.Identity, c.HTTP.Listen, c.HTTP.AllowPlaintext = id, "0.0.0.0:0", true }, false},
	} {
		cfg := Default()
		c.edit(&cfg)
		got, err := cfg.serverTLS(log)
		require.NoError(t, err, c.name)
		require.Equal(t, c.secure, got != nil, c.name)
	}
	cfg := Default()
	cfg.HTTP.TLSCert, cfg.HTTP.TLSKey = "nowhere", "nowhere"
	_, err := cfg.serverTLS(log)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	cfg = Default()
	cfg.Cluster.Identity, cfg.HTTP.Listen = t.TempDir(), "0.0.0.0:0"
	_, err = cfg.serverTLS(log)
	require.ErrorContains(t, err, "older autoglm made it")
	_, err = cfg.root()
	require.ErrorContains(t, err, "--new-admin-key")
}
