package api

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// guard keeps web pages out of a node that trusts everybody on its machine: a page from
// elsewhere may make a browser send requests to 127.0.0.1, directly or by pointing its own
// name there (DNS rebinding). So on loopback the Host must be a local name where no key is
// asked for, and a request that a browser says is cross-site is refused.
func (s *Server) guard(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.open() && onLoopback(r) && !s.localHost(r.Host) {
			p := wire.NewProblem(http.StatusMisdirectedRequest, fault.Refused, "Host",
				fmt.Sprintf("Host %q is no name of this machine", r.Host))
			s.refuse(w, r, p.With("", "use localhost or 127.0.0.1, or list a proxy's name in http.allowed_hosts"))
			return
		}
		if err := cross.Check(r); err != nil {
			p := wire.NewProblem(http.StatusForbidden, fault.Refused, "Origin", "requests from pages of other sites are refused")
			s.refuse(w, r, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limit bounds the requests served at once. Probes and metrics always pass: an operator
// must see an overload.
func (s *Server) limit(next http.Handler) http.Handler {
	tokens := make(chan struct{}, s.lim.RequestsMax)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
			next.ServeHTTP(w, r)
			return
		}
		select {
		case tokens <- struct{}{}:
			defer func() { <-tokens }()
			next.ServeHTTP(w, r)
		default:
			s.refuse(w, r, overloaded("http.requests_max", s.lim.RequestsMax))
		}
	})
}

func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && isLoopback(addr.String())
}

// fromLoopback tells whether the client itself is on this machine: not one behind a proxy.
func fromLoopback(r *http.Request) bool {
	return isLoopback(r.RemoteAddr) && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
}

func isLoopback(hostport string) bool {
	ap, err := netip.ParseAddrPort(hostport)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

func (s *Server) localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return slices.ContainsFunc(s.hosts, func(h string) bool { return strings.EqualFold(h, host) })
}
