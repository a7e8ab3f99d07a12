package pki

import (
	"crypto/x509"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Scheme is that of the URI that names a node in its certificate: autoglm://CLUSTER/NAME.
const Scheme = "autoglm"

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// CheckName refuses what is no name for a node or a cluster (Invalid): at most 63 lower-case letters, digits,
// dots and hyphens, with a letter or digit at both ends of each part between dots, and no IP address.
func CheckName(name string) error {
	bad := !nameForm.MatchString(name)
	for _, part := range strings.Split(name, ".") { // else no host name, and TLS matches those only
		bad = bad || part == "" || part[0] == '-' || part[len(part)-1] == '-'
	}
	if _, err := netip.ParseAddr(name); err == nil {
		bad = true // TLS would look for an address in the certificate
	}
	if bad {
		return fault.New(fault.Invalid, "pki.name", name, "%q is no name", name).
			WithRemedy("use up to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a letter or digit")
	}
	return nil
}

// nodeURI names a node in its certificate.
func nodeURI(cluster, name string) *url.URL {
	return &url.URL{Scheme: Scheme, Host: cluster, Path: "/" + name}
}

// whose reads cluster and node name out of a certificate. It must hold exactly one URI, of our scheme, and the
// node's name as its one DNS name, so that no two readers of it can disagree.
func whose(crt *x509.Certificate) (cluster, name string, err error) {
	refuse := func(format string, args ...any) (string, string, error) {
		return "", "", fault.New(fault.Refused, "pki.name", "", format, args...)
	}
	if len(crt.URIs) != 1 {
		return refuse("the certificate names %d nodes by URI, want one", len(crt.URIs))
	}
	u := crt.URIs[0]
	name = strings.TrimPrefix(u.Path, "/")
	if *u != *nodeURI(u.Host, name) || CheckName(u.Host) != nil || CheckName(name) != nil {
		return refuse("the certificate's URI %q is not %s://CLUSTER/NODE", u, Scheme)
	}
	if len(crt.DNSNames) != 1 || crt.DNSNames[0] != name {
		return refuse("the certificate of %q is for the hosts %q", name, crt.DNSNames)
	}
	return u.Host, name, nil
}
