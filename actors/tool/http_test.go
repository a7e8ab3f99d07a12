package tool

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// allowed reaches loopback, as an operator may allow it.
func allowed(t *testing.T) *HTTP {
	h := NewHTTP(egress.Policy{AllowLoopback: true})
	t.Cleanup(h.Close)
	return h
}

func do(t *testing.T, h *HTTP, c *task.Call) (*infer.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if c.Method == "" {
		c.Method = http.MethodGet
	}
	return h.Do(ctx, &infer.Request{Tool: c, Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
}

func TestARequestIsSentAsItsStepSays(t *testing.T) {
	var got *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		fmt.Fprint(w, `{"id":7}`)
	}))
	defer s.Close()
	h := allowed(t)
	out, err := do(t, h, &task.Call{Method: "PUT", URL: s.URL + "/a%2Fb?q=1", Headers: map[string]string{"X-Version": "2", "Accept": "text/csv"}, Input: []byte(`{"x":1}`), InputJSON: true, Key: "k1"})
	require.NoError(t, err)
	require.Equal(t, `{"id":7}`, out.Text)
	require.Equal(t, "PUT /a%2Fb?q=1", got.Method+" "+got.URL.RequestURI())
	require.Equal(t, `{"x":1}`, string(body))
	for name, want := range map[string]string{"X-Version": "2", "Accept": "text/csv", "Content-Type": "application/json", KeyHeader: "k1", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "User-Agent": userAgent} {
		require.Equal(t, want, got.Header.Get(name), name)
	}
	_, err = do(t, h, &task.Call{Method: "POST", URL: s.URL, Input: []byte("text")})
	require.NoError(t, err)
	require.Equal(t, "text/plain; charset=utf-8", got.Header.Get("Content-Type"))
	_, err = do(t, h, &task.Call{Method: "POST", URL: s.URL, Headers: map[string]string{"content-type": "text/csv"}, Input: []byte("text")})
	require.NoError(t, err)
	require.Equal(t, "text/csv", got.Header.Get("Content-Type"), "the step's own")
}

func TestStatusesAndTheirKinds(t *testing.T) {
	h := allowed(t)
	for _, c := range []struct {
		status int
		retry  []int
		kind   fault.Kind
	}{
		{200, nil, fault.Unknown}, {201, nil, fault.Unknown}, {204, nil, fault.Unknown},
		{302, nil, fault.Invalid}, {304, nil, fault.Invalid}, // without a place to go to
		{400, nil, fault.Invalid}, {401, nil, fault.Refused}, {403, nil, fault.Refused}, {404, nil, fault.NotFound}, {410, nil, fault.NotFound}, {413, nil, fault.TooLarge}, {422, nil, fault.Invalid},
		{404, []int{404}, fault.Unavailable}, {409, []int{404, 409}, fault.Unavailable},
		{408, nil, fault.Timeout}, {429, nil, fault.Overloaded}, {429, []int{429}, fault.Overloaded}, {503, nil, fault.Overloaded},
		{500, nil, fault.Unavailable}, {502, nil, fault.Unavailable}, {504, nil, fault.Unavailable},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(c.status)
			if c.status != 204 && c.status != 304 {
				fmt.Fprint(w, "because ", strings.Repeat("é", 2*saidMax))
			}
		}))
		_, err := do(t, h, &task.Call{URL: s.URL, RetryOn: c.retry})
		if s.Close(); c.kind == fault.Unknown {
			require.NoError(t, err, c.status)
			continue
		}
		require.Equal(t, c.kind, fault.KindOf(err), "%d: %v", c.status, err)
		require.ErrorContains(t, err, fmt.Sprintf("the tool answered %d", c.status))
		require.Less(t, len(err.Error()), 2*saidMax)
		wait := time.Duration(0)
		if c.kind == fault.Overloaded {
			wait = 7 * time.Second
		}
		require.Equal(t, wait, backoff.AskedBy(err), c.status)
	}
}

// TestAToolThatMisbehaves: whatever it does, the node reads no more than it may, waits no longer, and goes nowhere else.
func TestAToolThatMisbehaves(t *testing.T) {
	h := allowed(t)
	done := make(chan struct{})
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.Header.Get("X-Own"), r.Header.Get(KeyHeader), r.Header.Get("Referer"))
	}))
	defer far.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					break
				}
			}
			close(done)
		case "/full":
			fmt.Fprint(w, strings.Repeat("x", task.ToolOutputMax))
		case "/binary":
			_, _ = w.Write([]byte{0xff, 0xfe})
		case "/slow":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/cut":
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "short")
		case "/loop":
			http.Redirect(w, r, "/loop", 302)
		case "/metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/", 302)
		case "/number":
			http.Redirect(w, r, "http://2130706433/", 302)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", 302)
		case "/far":
			http.Redirect(w, r, strings.Replace(far.URL, "127.0.0.1", "localhost", 1)+"/", 307)
		case "/seen":
			http.Redirect(w, r, strings.Replace(far.URL, "127.0.0.1", "localhost", 1)+"/", 303)
		case "/near":
			http.Redirect(w, r, "/own", 307)
		case "/own":
			fmt.Fprint(w, r.Method, " ", r.Header.Get("X-Own"), r.Header.Get(KeyHeader))
		}
	}))
	defer s.Close()
	for path, want := range map[string]fault.Kind{"/endless": fault.TooLarge, "/binary": fault.Invalid, "/cut": fault.Unavailable, "/loop": fault.Refused, "/metadata": fault.Refused,
		"/number": fault.Refused, "/file": fault.Refused} {
		_, err := do(t, h, &task.Call{URL: s.URL + path})
		require.Equal(t, want, fault.KindOf(err), "%s: %v", path, err)
	}
	<-done
	out, err := do(t, h, &task.Call{URL: s.URL + "/full"})
	require.NoError(t, err)
	require.Len(t, out.Text, task.ToolOutputMax)
	for path, want := range map[string]string{"/near": "POST minek", "/seen": "GET k"} { // what it says in headers is for its host
		out, err := do(t, h, &task.Call{Method: "POST", URL: s.URL + path, Headers: map[string]string{"X-Own": "mine"}, Key: "k", Input: []byte("x")})
		require.NoError(t, err)
		require.Equal(t, want, out.Text)
	}

	out, err = do(t, h, &task.Call{Method: "DELETE", URL: s.URL + "/far?secret=1", Key: "k"})
	require.NoError(t, err)
	require.Equal(t, "DELETE k", out.Text)
	_, err = do(t, h, &task.Call{Method: "POST", URL: s.URL + "/far", Key: "k", Input: []byte("x")})
	require.Equal(t, fault.Refused, fault.KindOf(err))
	require.ErrorContains(t, err, "redirects to another host, localhost:")

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = h.Do(ctx, &infer.Request{Tool: &task.Call{Method: "GET", URL: s.URL + "/slow"}})
	require.Equal(t, fault.Timeout, fault.KindOf(err))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = do(t, h, &task.Call{URL: "http://" + l.Addr().String()})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "nobody is there")

	_, err = do(t, h, &task.Call{URL: "http://h/%zz"})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

// TestPrivateAddressesAreTheOperators: loopback is not reached unless it is allowed, and what that says names the setting.
func TestPrivateAddressesAreTheOperators(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer s.Close()
	for _, p := range []egress.Policy{{}, {Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}} {
		h := NewHTTP(p)
		_, err := do(t, h, &task.Call{URL: s.URL})
		require.Equal(t, fault.Refused, fault.KindOf(err), "%v", err)
		require.Contains(t, fault.RemedyOf(err), "tools.allowed_nets")
		h.Close()
	}
}
