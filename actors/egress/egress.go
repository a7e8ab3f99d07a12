// Package egress hides which network addresses the node may be sent to by a task.
//
// A task names URLs (data_url, callback_url), so whoever may submit a task may make this node
// connect somewhere. The decision is taken on the address that is about to be dialled, after name
// resolution and for every connection, redirects included:
//
//	URL ─► CheckURL: scheme, a host that is no disguised number
//	    ─► resolver ─► address ─► Policy ─► dial
//	                                └─ loopback, private, link-local (cloud metadata), multicast,
//	                                   reserved, NAT64, mapped: refused unless allowed
//
// So a name that changes its address between a check and its use (DNS rebinding) gains nothing.
// No proxy is used: behind one the address would be somebody else's to check.
//
// Left to others: how many redirects, sizes, time limits.
package egress

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"code.dny.dev/ssrf"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Policy says which addresses beside the public internet may be dialled. The zero value allows none.
type Policy struct {
	AllowLoopback bool           // 127.0.0.0/8 and ::1
	AllowPrivate  bool           // RFC 1918, RFC 6598, fc00::/7 and loopback; never link-local, where clouds keep their secrets
	Allow         []netip.Prefix // these, whatever they are
	Resolver      *net.Resolver  // the system's when nil
	DialTimeout   time.Duration  // of one connection; DialTimeout when 0
}

// Limits of the transport.
const (
	DialTimeout  = 10 * time.Second
	idleTimeout  = 30 * time.Second
	idlePerHost  = 8
	idleMax      = 64
	headersBytes = 64 << 10
)

var (
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	private  = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fc00::/7")}
)

// Transport dials only what the policy allows. The caller closes its idle connections in the end.
func (p Policy) Transport() *http.Transport {
	allow := slices.Clone(p.Allow)
	if p.AllowLoopback || p.AllowPrivate {
		allow = append(allow, loopback...)
	}
	if p.AllowPrivate {
		allow = append(allow, private...)
	}
	var v4, v6 []netip.Prefix
	for _, a := range allow {
		if a.Addr().Is4() {
			v4 = append(v4, a.Masked())
		} else {
			v6 = append(v6, a.Masked())
		}
	}
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	if p.DialTimeout == 0 {
		p.DialTimeout = DialTimeout
	}
	d := &net.Dialer{Timeout: p.DialTimeout, KeepAlive: 30 * time.Second, Resolver: p.Resolver, Control: guard.Safe}
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            d.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    p.DialTimeout,
		MaxIdleConns:           idleMax,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: headersBytes,
		DisableCompression:     true, // so a limit on bytes is a limit on content
	}
}

// Refused tells whether err is the policy's: this address is not for tasks.
func Refused(err error) bool {
	return errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedNetwork) || errors.Is(err, ssrf.ErrProhibitedPort)
}

// CheckURL refuses what no policy can judge: other schemes, no host, and hosts such as 2130706433
// or 0x7f.1 that some resolvers read as an address.
func CheckURL(u *url.URL, op string) error {
	host := u.Hostname()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fault.New(fault.Refused, op, u.Redacted(), "scheme %q is not allowed", u.Scheme)
	case host == "":
		return fault.New(fault.Invalid, op, u.Redacted(), "the URL names no host")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil // the dialer judges it
	}
	if endsInNumber(host) {
		return fault.New(fault.Refused, op, u.Redacted(), "host %q is a number in disguise", host).WithRemedy("write the address as a.b.c.d")
	}
	return nil
}

// endsInNumber is the WHATWG URL standard's test for hosts that must be IPv4 addresses.
func endsInNumber(host string) bool {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := strings.ToLower(labels[len(labels)-1])
	if last == "" {
		return false
	}
	digits := "0123456789"
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		last, digits = hex, "0123456789abcdef"
	}
	return strings.Trim(last, digits) == ""
}
