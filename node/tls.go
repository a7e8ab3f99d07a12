package node

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const certRecheck = time.Second // how often the files' times are looked at, at most

// shownCert is the certificate that clients of the API see. Files that change are used from the next connection on; files that
// are wrong, half copied ones say, leave the old certificate in use.
type shownCert struct {
	crt, key string // files
	log      *slog.Logger

	mu     sync.Mutex
	used   *tls.Certificate
	seen   [2]time.Time
	looked time.Time
}

// serverTLS is nil where the API is served without TLS.
func (c *Config) serverTLS(log *slog.Logger) (*tls.Config, error) {
	crt, key := c.HTTP.TLSCert, c.HTTP.TLSKey
	if crt == "" && c.Cluster.Identity != "" && !c.local() && !c.HTTP.AllowPlaintext {
		if crt, key = pki.APIFiles(c.Cluster.Identity); crt == "" {
			return nil, fault.New(fault.Invalid, "config", "http.tls_cert", "is empty, and %s has no api.crt: an older autoglm made it", c.Cluster.Identity).
				WithRemedy("mint the node again with autoglm init, or name a certificate, or set http.allow_plaintext where a proxy in front ends TLS")
		}
	}
	if crt == "" {
		return nil, nil
	}
	s := &shownCert{crt: crt, key: key, log: log}
	if _, err := s.current(nil); err != nil {
		return nil, fault.New(fault.Invalid, "config", "http.tls_cert", "%w", err).WithRemedy("name a certificate and its key, in PEM, readable by this user")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.current}, nil
}

func (s *shownCert) stamps() (t [2]time.Time) {
	for i, path := range []string{s.crt, s.key} {
		if st, err := os.Stat(path); err == nil {
			t[i] = st.ModTime()
		}
	}
	return t
}

// current is the certificate as of now.
func (s *shownCert) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.used != nil && now.Sub(s.looked) < certRecheck {
		return s.used, nil
	}
	s.looked = now
	seen := s.stamps()
	if s.used != nil && seen == s.seen {
		return s.used, nil
	}
	pair, err := tls.LoadX509KeyPair(s.crt, s.key)
	switch {
	case err == nil:
		if s.used != nil {
			s.log.Info("the API has another certificate", "file", s.crt, "good_until", pair.Leaf.NotAfter)
		}
		s.used, s.seen = &pair, seen
	case s.used == nil:
		return nil, err
	default:
		s.log.Warn("the API's certificate changed and cannot be used; the old one stays", "file", s.crt, "err", err)
		s.seen = seen // until they change again
	}
	return s.used, nil
}
