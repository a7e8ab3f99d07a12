package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func listenFront(t *testing.T, f *api.Front) (addr string, served chan error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served = make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	return l.Addr().String(), served
}

// TestAStopResetsNobody: clients that send one request after the other get an answer to each while the node stops, until they are
// told to send no more.
func TestAStopResetsNobody(t *testing.T) {
	lim := api.DefaultLimits()
	lim.StopGrace = 200 * time.Millisecond
	f := api.NewFront(lim, slog.New(slog.DiscardHandler), nil, func() string { return "" })
	f.Open(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	addr, served := listenFront(t, f)
	var answers, kept atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			in := bufio.NewReader(c)
			for n := 0; ; n++ {
				_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
				var res *http.Response
				if err == nil {
					res, err = http.ReadResponse(in, nil)
				}
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
				}
				if err != nil {
					t.Errorf("request %d of a connection got no answer: %v", n, err)
					c.Close()
					return
				}
				answers.Add(1)
				if n > 0 {
					kept.Add(1)
				}
				if res.Close {
					c.Close()
					return
				}
			}
		})
	}
	require.Eventually(t, func() bool { return kept.Load() > 100 }, 20*time.Second, time.Millisecond)
	require.NoError(t, f.Shutdown(t.Context()))
	wg.Wait()
	require.NoError(t, <-served)
	t.Logf("%d answers", answers.Load())
}

// TestAStopWithoutClientsIsQuick: nobody is there to say goodbye to.
func TestAStopWithoutClientsIsQuick(t *testing.T) {
	lim := api.DefaultLimits()
	lim.StopGrace = time.Hour
	f := api.NewFront(lim, slog.New(slog.DiscardHandler), nil, func() string { return "" })
	addr, served := listenFront(t, f)
	f.Open(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get("http://" + addr)
	require.NoError(t, err)
	res.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, f.Shutdown(ctx))
	require.NoError(t, <-served)
	require.NoError(t, f.Shutdown(ctx), "twice is harmless")
}

// TestAStoppingNodeSaysSo, on each connection, and ends it, while it still answers.
func TestAStoppingNodeSaysSo(t *testing.T) {
	lim := api.DefaultLimits()
	lim.StopGrace = time.Hour
	s, err := api.New(apitest.New(), api.WithLimits(lim), api.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	get := func(path string) *http.Response {
		res, err := http.Get("http://" + l.Addr().String() + path)
		require.NoError(t, err)
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		return res
	}
	idle, err := net.Dial("tcp", l.Addr().String()) // as long as it is there the port stays open
	require.NoError(t, err)
	defer idle.Close()
	require.False(t, get("/v1/status").Close)
	ctx, cut := context.WithCancel(t.Context())
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	require.Eventually(t, func() bool { return get("/readyz").StatusCode == http.StatusServiceUnavailable }, 10*time.Second, time.Millisecond)
	res := get("/v1/status")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.True(t, res.Close)
	cut()
	<-down
	require.NoError(t, <-served)
}

// TestAPortThatIsOpenBeforeTheAPI says what the node waits for.
func TestAPortThatIsOpenBeforeTheAPI(t *testing.T) {
	f := api.NewFront(api.DefaultLimits(), slog.New(slog.DiscardHandler), nil, func() string { return "waiting for the cluster: 1 of 3 nodes seen" })
	addr, served := listenFront(t, f)
	ask := func(method, path string, out any) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader("{}"))
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		require.NoError(t, json.NewDecoder(res.Body).Decode(out))
		return res
	}
	var h wire.Health
	require.Equal(t, http.StatusOK, ask("GET", "/healthz", &h).StatusCode)
	require.Equal(t, wire.Health{Status: "ok"}, h)
	res := ask("GET", "/readyz", &h)
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.Equal(t, wire.Health{Status: wire.HealthStarting, Reason: "waiting for the cluster: 1 of 3 nodes seen"}, h)
	var p wire.Problem
	res = ask("POST", "/v1/tasks", &p)
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.Equal(t, wire.ProblemType, res.Header.Get("Content-Type"))
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	require.Equal(t, "unavailable", p.Kind)
	require.Contains(t, p.Detail, "waiting for the cluster: 1 of 3 nodes seen")
	require.Equal(t, res.Header.Get("X-Request-Id"), p.RequestID)
	var e struct {
		Error struct{ Message, Type string }
	}
	res = ask("POST", "/v1/files", &e) // its clients know only OpenAI's errors
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.Equal(t, "server_error", e.Error.Type)
	require.Contains(t, e.Error.Message, "1 of 3 nodes seen")

	f.Open(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"open"}`) }))
	require.Equal(t, http.StatusOK, ask("GET", "/readyz", &h).StatusCode)
	require.Equal(t, "open", h.Status)
	require.NoError(t, f.Shutdown(t.Context()))
	require.NoError(t, <-served)
}
