package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// only127001 is a policy under which the test servers are the public internet, and 127.0.0.2 is not.
var only127001 = egress.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}

func newFetcher(t *testing.T, o Options) *Fetcher {
	t.Helper()
	f, err := New(o)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return f
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func fetch(t *testing.T, o Options, url string) (Data, error) {
	t.Helper()
	return newFetcher(t, o).Fetch(t.Context(), url)
}

func TestFetchText(t *testing.T) {
	const csv = "name,age\nÅsa,3\n"
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "Open-AutoGLM", r.UserAgent())
		require.Empty(t, r.Header.Get("Accept-Encoding"))
		w.Header().Set("Content-Type", "text/csv; charset=UTF-8")
		io.WriteString(w, csv)
	})
	d, err := fetch(t, Options{Egress: only127001}, u+"/x")
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(csv))
	require.Equal(t, Data{Text: csv, MediaType: "text/csv", SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(csv))}, d)
}

// What the bytes are, whatever was said of them.
func TestFetchJudgesTheBytes(t *testing.T) {
	for _, c := range []struct {
		name, path, contentType, body string
		text, mediaType, err          string
	}{
		{"nothing said", "/x", "-", "hi", "hi", "text/plain", ""},
		{"nothing said, csv", "/x.CSV", "-", "a,b", "a,b", "text/csv", ""},
		{"some bytes, json", "/x.json", "application/octet-stream", "{}", "{}", "application/json", ""},
		{"empty", "/x", "text/plain", "", "", "text/plain", ""},
		{"json", "/x", "application/json", ` {"a": [1]} `, ` {"a": [1]} `, "application/json", ""},
		{"problem", "/x", "application/problem+json", `{}`, `{}`, "application/problem+json", ""},
		{"bad json", "/x", "application/json", "{\n\"a\": }\n", "", "", "no JSON: line 2"},
		{"two jsons", "/x", "application/json", "{}{}", "", "", "no JSON"},
		{"empty json", "/x", "application/json", "", "", "", "no JSON"},
		{"lines", "/x.jsonl", "-", "{}\n\n[1]\r\n", "{}\n\n[1]\r\n", "application/x-ndjson", ""},
		{"bad line", "/x", "application/x-ndjson", "{}\n{\n", "", "", "line 2 is no JSON"},
		{"odd type", "/x", "text/x-odd; a=b; a=c", "hi", "", "", "content type"},
		{"bad parameter", "/x", "text/csv; header", "hi", "hi", "text/csv", ""},
		{"utf-8 mark", "/x", "application/json", "\xef\xbb\xbf{}", "{}", "application/json", ""},
		{"mark beats charset", "/x", "text/plain; charset=latin1", "\xef\xbb\xbfå", "å", "text/plain", ""},
		{"latin1", "/x", "text/plain; charset=ISO-8859-1", "caf\xe9", "café", "text/plain", ""},
		{"gbk", "/x", "text/plain; charset=gb2312", "\xc4\xe3\xba\xc3", "你好", "text/plain", ""},
		{"utf-16le", "/x", "text/csv", "\xff\xfea\x00,\x00\xe5\x00", "a,å", "text/csv", ""},
		{"utf-16be", "/x", "-", "\xfe\xff\x00a", "a", "text/plain", ""},
		{"utf-16 declared", "/x", "text/plain; charset=utf-16le", "a\x00", "a", "text/plain", ""},
		{"half a rune", "/x", "text/plain", "\xff\xfea", "", "", "no valid utf-16le"},
		{"bad gbk", "/x", "text/plain; charset=gbk", "\xff\xff", "", "", "no valid gbk"},
		{"utf-32", "/x", "text/plain", "\xff\xfe\x00\x00a\x00\x00\x00", "", "", "UTF-32"},
		{"unknown charset", "/x", "text/plain; charset=klingon", "x", "", "", `charset "klingon" is not known`},
		{"latin1 unsaid", "/x", "text/plain", "caf\xe9", "", "", "no valid UTF-8"},
		{"zero byte", "/x", "text/plain", "a\x00b", "", "", "binary: a zero byte at 1"},
		{"png as text", "/x", "text/plain", "\x89PNG\r\n\x1a\n\x00\x00", "", "", "no valid UTF-8"},
		{"png", "/x.png", "image/png", "\x89PNG", "", "", `content type "image/png" is not text`},
		{"pdf unsaid", "/x", "-", "%PDF-1.7\n%\xe2\xe3\xcf\xd3", "", "", "no valid UTF-8"},
		{"type nonsense", "/x", "///", "x", "", "", "content type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = []string{c.contentType}
				if c.contentType == "-" {
					w.Header()["Content-Type"] = nil
				}
				io.WriteString(w, c.body)
			})
			d, err := fetch(t, Options{Egress: only127001}, u+c.path)
			if c.err != "" {
				require.Equal(t, fault.Invalid, fault.KindOf(err), "%v", err)
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.text, d.Text)
			require.Equal(t, c.mediaType, d.MediaType)
			require.EqualValues(t, len(c.body), d.Bytes)
		})
	}
}

func TestFetchMapsStatus(t *testing.T) {
	for status, want := range map[int]fault.Kind{201: fault.Invalid, 204: fault.Invalid, 206: fault.Invalid, 302: fault.Invalid, 304: fault.Invalid,
		400: fault.Invalid, 401: fault.Refused, 403: fault.Refused, 404: fault.NotFound, 408: fault.Timeout, 410: fault.NotFound,
		429: fault.Overloaded, 500: fault.Unavailable, 502: fault.Unavailable, 503: fault.Unavailable} {
		u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(status)
		})
		_, err := fetch(t, Options{Egress: only127001}, u)
		require.Equal(t, want, fault.KindOf(err), "%d: %v", status, err)
		if status == 429 {
			require.Equal(t, 3*time.Second, backoff.AskedBy(err))
		}
	}
}

func TestFetchRefusesURLs(t *testing.T) {
	f := newFetcher(t, Options{})
	for in, want := range map[string]fault.Kind{"": fault.Refused, "x": fault.Refused, "ftp://a/b": fault.Refused, "http://": fault.Invalid,
		"http://2130706433/": fault.Refused, "http://127.0.0.1:1/": fault.Refused, "http://[::1]:1/": fault.Refused,
		"http://169.254.169.254/latest/meta-data/": fault.Refused, "http://[::ffff:127.0.0.1]:1/": fault.Refused,
		"http://localhost:1/": fault.Refused, "file:///etc/passwd": fault.Refused, "\x00": fault.Invalid, "data:text/plain,x": fault.Refused} {
		_, err := f.Fetch(t.Context(), in)
		require.Equal(t, want, fault.KindOf(err), "%q: %v", in, err)
	}
}

// A server that may be reached sends us to ones that may not; none of them hears of it.
func TestFetchRefusesRedirects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	require.NoError(t, err)
	var heard atomic.Int32
	secret := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }),
		ConnState: func(net.Conn, http.ConnState) { heard.Add(1) }}
	go secret.Serve(l)
	t.Cleanup(func() { secret.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	for _, to := range []string{fmt.Sprintf("http://127.0.0.2:%d/", port), fmt.Sprintf("http://[::1]:%d/", port),
		fmt.Sprintf("http://0.0.0.0:%d/", port), fmt.Sprintf("http://[::ffff:127.0.0.2]:%d/", port), fmt.Sprintf("http://2130706434:%d/", port),
		fmt.Sprintf("http://0x7f000002:%d/", port), fmt.Sprintf("http://127.2:%d/", port),
		"http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://10.0.0.1/"} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		_, err := fetch(t, Options{Egress: only127001}, u)
		require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", to, err)
	}
	require.Zero(t, heard.Load())
}

func TestFetchBoundsRedirects(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n := len(r.URL.Path); n <= 4 { // "/" and three more
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
			return
		}
		io.WriteString(w, "done")
	})
	d, err := fetch(t, Options{Egress: only127001, RedirectsMax: 4}, u)
	require.NoError(t, err)
	require.Equal(t, "done", d.Text)
	for _, n := range []int{3, -1} {
		_, err = fetch(t, Options{Egress: only127001, RedirectsMax: n}, u)
		require.Equal(t, fault.Refused, fault.KindOf(err))
		require.ErrorContains(t, err, "redirects_max")
	}
}

func TestFetchRefusesADowngrade(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain, 302) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of the client that distrusts it
	s.StartTLS()
	t.Cleanup(s.Close)
	f := newFetcher(t, Options{Egress: only127001})
	f.client.Transport.(*http.Transport).TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	_, err := f.Fetch(t.Context(), s.URL)
	require.Equal(t, fault.Refused, fault.KindOf(err))
	require.ErrorContains(t, err, "https redirects to http")

	_, err = fetch(t, Options{Egress: only127001}, s.URL) // a certificate nobody trusts
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
}

// A name that is innocent when it is asked for first and internal when it is dialled.
func TestFetchSurvivesDNSRebinding(t *testing.T) {
	var heard atomic.Int32
	port := portOf(t, serve(t, func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
	for name, answers := range map[string][][4]byte{
		"internal":            {{127, 0, 0, 1}},
		"metadata":            {{169, 254, 169, 254}},
		"public and then not": {{192, 0, 2, 1}, {127, 0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t, Options{Egress: egress.Policy{Resolver: fakeDNS(answers)}})
			for range 3 {
				_, err := f.Fetch(t.Context(), "http://rebind.example.com:"+port+"/")
				require.Equal(t, fault.Refused, fault.KindOf(err), "%v", err)
			}
		})
	}
	require.Zero(t, heard.Load())
	// The resolver works: allowed, the same name is reached.
	p := only127001
	p.Resolver = fakeDNS([][4]byte{{127, 0, 0, 1}})
	_, err := fetch(t, Options{Egress: p}, "http://rebind.example.com:"+port+"/")
	require.NoError(t, err)
	require.EqualValues(t, 1, heard.Load())
}

func portOf(t *testing.T, raw string) string {
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Port()
}

// fakeDNS gives the answers to A queries in turn, the last one for ever.
func fakeDNS(answers [][4]byte) *net.Resolver {
	var n atomic.Int32
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			var size uint16
			for binary.Read(server, binary.BigEndian, &size) == nil {
				q := make([]byte, size)
				if _, err := io.ReadFull(server, q); err != nil {
					return
				}
				var m dnsmessage.Message
				if m.Unpack(q) != nil || len(m.Questions) != 1 {
					return
				}
				m.Response, m.Authoritative, m.Additionals = true, true, nil
				if m.Questions[0].Type == dnsmessage.TypeA {
					i := min(int(n.Add(1)), len(answers)) - 1
					m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
						Body: &dnsmessage.AResource{A: answers[i]}}}
				}
				out, err := m.Pack()
				if err != nil {
					return
				}
				server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
			}
		}()
		return client, nil
	}}
}

func TestFetchBoundsBytes(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil { // no Content-Length
			if _, err := w.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
				return
			}
		}
	}
	promise := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000000")
		w.WriteHeader(200)
	}
	bomb := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(make([]byte, 10<<20))
		z.Close()
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		kind fault.Kind
		text string
	}{"endless": {endless, fault.TooLarge, "size_max = 1000"}, "promise": {promise, fault.TooLarge, "size_max = 1000"}, "bomb": {bomb, fault.Invalid, `content encoding "gzip"`}} {
		t.Run(name, func(t *testing.T) {
			_, err := fetch(t, Options{Egress: only127001, SizeMax: 1000}, serve(t, c.h))
			require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
			require.ErrorContains(t, err, c.text)
		})
	}
	for size, ok := range map[int]bool{999: true, 1000: true, 1001: false} {
		u := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", size)) })
		_, err := fetch(t, Options{Egress: only127001, SizeMax: 1000}, u)
		require.Equal(t, ok, err == nil, "%d: %v", size, err)
	}
}

func TestFetchBoundsTime(t *testing.T) {
	silent := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	drip := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	for _, h := range []http.HandlerFunc{silent, drip} {
		u := serve(t, h)
		_, err := fetch(t, Options{Egress: only127001, Timeout: 20 * time.Millisecond}, u)
		require.Equal(t, fault.Timeout, fault.KindOf(err), "%v", err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = newFetcher(t, Options{Egress: only127001}).Fetch(ctx, u)
		require.Equal(t, fault.Timeout, fault.KindOf(err), "%v", err)
		cancel()
	}
}

func TestFetchUnavailable(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")
			c.Close()
		}
	}
	_, err := fetch(t, Options{Egress: only127001}, serve(t, cut))
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	_, err = fetch(t, Options{Egress: only127001}, "http://u:geheim@"+l.Addr().String())
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	require.NotContains(t, err.Error(), "geheim")
}
