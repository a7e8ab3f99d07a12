package egress

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Every address that must not be reached without leave. Nothing is sent: the dialer refuses.
func TestPolicyRefuses(t *testing.T) {
	never := []string{"0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "192.0.2.1", "[::]", "[fe80::1]", "[ff02::1]",
		"[64:ff9b::7f00:1]", "[2001:db8::1]", "[2002:7f00:1::]", "[::ffff:169.254.169.254]", "[::127.0.0.1]"}
	private := []string{"10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "[fc00::1]", "[fd12::1]", "[::ffff:10.0.0.1]"}
	loopback := []string{"127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"}
	for _, c := range []struct {
		name    string
		policy  Policy
		refused [][]string
	}{
		{"zero", Policy{}, [][]string{never, private, loopback}},
		{"loopback", Policy{AllowLoopback: true}, [][]string{never, private}},
		{"private", Policy{AllowPrivate: true}, [][]string{never}},
		{"one", Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, [][]string{never, private, {"127.9.9.9", "[::1]"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := c.policy.Transport()
			defer tr.CloseIdleConnections()
			require.Nil(t, tr.Proxy)
			for _, hosts := range c.refused {
				for _, host := range hosts {
					req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+":9/", nil)
					require.NoError(t, err)
					_, err = tr.RoundTrip(req)
					require.True(t, Refused(err), "%s: %v", host, err)
				}
			}
		})
	}
}

func TestPolicyAllows(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	for _, p := range []Policy{{AllowLoopback: true}, {AllowPrivate: true}, {Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}} {
		tr := p.Transport()
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		require.NoError(t, err)
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		tr.CloseIdleConnections()
	}
}

func TestCheckURL(t *testing.T) {
	for in, want := range map[string]fault.Kind{
		"http://example.com/x":   0,
		"https://example.com.":   0,
		"http://1.2.3.4:80/":     0,
		"http://[::1]/":          0,
		"http://a.b1/":           0,
		"http://xn--fiqs8s/":     0,
		"http://2130706433/":     fault.Refused,
		"http://0x7f000001/":     fault.Refused,
		"http://0x7F.1/":         fault.Refused,
		"http://127.1/":          fault.Refused,
		"http://0177.0.0.1/":     fault.Refused,
		"http://127.0.0.1./":     fault.Refused,
		"http://1.2.3.4.5/":      fault.Refused,
		"http://example.0x/":     fault.Refused,
		"ftp://example.com/":     fault.Refused,
		"gopher://example.com/":  fault.Refused,
		"file:///etc/passwd":     fault.Refused,
		"http:///x":              fault.Invalid,
		"http://u:geheim@2130/x": fault.Refused,
	} {
		u, err := url.Parse(in)
		require.NoError(t, err)
		err = CheckURL(u, "test")
		require.Equal(t, want, fault.KindOf(err), "%s: %v", in, err)
		if err != nil {
			require.NotContains(t, err.Error(), "geheim")
		}
	}
}
