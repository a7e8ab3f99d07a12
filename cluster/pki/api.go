package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// What a node shows to clients of its API, and what it knows the operator's first key by. The key itself stays in the cluster's folder.
const (
	apiCrt    = "api.crt"
	apiKey    = "api.key"
	adminKey  = "admin.key"
	adminHash = "admin.hash"
	namesMax  = 100 // of the API
)

// AdminKey is the operator's first API key, as text, and what nodes know it by. What they look like is not this package's business.
type AdminKey struct{ Key, Hash string }

// api makes the certificate that a node shows to clients. It is for servers only and has no name of a node in it, so that nobody
// passes for a node with it.
func (a authority) api(node string, names []string, now time.Time, valid time.Duration) (crtPEM, keyPEM []byte, err error) {
	end := now.Add(valid)
	if end.After(a.crt.NotAfter) {
		end = a.crt.NotAfter
	}
	tpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "API of " + node},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{node, "localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tpl.IPAddresses = append(tpl.IPAddresses, ip)
		} else {
			tpl.DNSNames = append(tpl.DNSNames, n)
		}
	}
	_, _, crtPEM, keyPEM, err = mint(tpl, a.crt, a.key)
	return crtPEM, keyPEM, err
}

// checkAPINames refuses what no certificate can be for.
func checkAPINames(names []string) error {
	if len(names) > namesMax {
		return fault.New(fault.Invalid, "pki.init", "", "%d names of the API: at most %d", len(names), namesMax)
	}
	for _, n := range names {
		bare := strings.TrimPrefix(n, "*.")
		if net.ParseIP(n) != nil {
			continue
		}
		if bare == "" || len(bare) > 253 || strings.ContainsFunc(bare, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
		}) {
			return fault.New(fault.Invalid, "pki.init", "", "%.80q is no name of a server", n).
				WithRemedy("write host names, IP addresses, or *.DOMAIN; without a port")
		}
	}
	return nil
}

// SetAdminKey replaces the operator's first API key, in the cluster's folder and in its nodes' folders: those are to be copied
// again, and the nodes restarted.
func SetAdminKey(dir string, k AdminKey) error {
	if _, _, _, _, err := open(dir); err != nil { // a cluster's folder, not a node's
		return err
	}
	names, err := Nodes(dir)
	if err != nil {
		return err
	}
	files := map[string][]byte{adminHash: []byte(k.Hash + "\n")}
	for _, name := range names {
		if err := writeAll(filepath.Join(dir, nodesDir, name), files); err != nil {
			return err
		}
	}
	files[adminKey] = []byte(k.Key + "\n")
	return writeAll(dir, files)
}

// AdminKeyFile is where the operator's first API key is, in a cluster's folder.
func AdminKeyFile(dir string) string { return filepath.Join(dir, adminKey) }

// AdminHash is what node folder dir knows the operator's first API key by; "" in one that an older program made.
func AdminHash(dir string) (string, error) {
	b, err := optional(dir, adminHash)
	return strings.TrimSpace(string(b)), err
}

// APIFiles are the certificate that the node of folder dir shows to clients, and its key; both "" in one that an older program made.
func APIFiles(dir string) (crt, key string) {
	crt, key = filepath.Join(dir, apiCrt), filepath.Join(dir, apiKey)
	for _, path := range []string{crt, key} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return "", ""
		}
	}
	return crt, key
}

// optional is read of a file that may not be there.
func optional(dir, name string) ([]byte, error) {
	b, err := read(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
