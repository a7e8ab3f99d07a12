package client_test

import (
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestAConnectionThatIsReset is no end: every call but Backup is harmless when it comes twice, a submit because it has an id.
func TestAConnectionThatIsReset(t *testing.T) {
	var resets atomic.Int64
	url := flaky(t, apitest.New(), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if resets.Add(1)%2 == 1 { // each first try
				c, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_ = c.(*net.TCPConn).SetLinger(0) // its close is a reset
					c.Close()
				}
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	c := dial(t, url)
	sub, err := c.Submit(t.Context(), &task.Spec{Prompt: "p"})
	require.NoError(t, err)
	require.False(t, sub.Existed)
	_, err = c.Cancel(t.Context(), sub.ID, "")
	require.NoError(t, err)
	_, err = c.Status(t.Context())
	require.NoError(t, err)
	_, err = c.Backup(t.Context(), t.TempDir())
	require.Error(t, err, "a second one would find the folder")
	require.EqualValues(t, 7, resets.Load())
}

// TestHealth is asked once and tells what a node that starts waits for.
func TestHealth(t *testing.T) {
	f := api.NewFront(api.DefaultLimits(), slog.New(slog.DiscardHandler), nil, func() string { return "waiting for the cluster: 1 of 3 nodes seen" })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	c := dial(t, l.Addr().String(), client.WithRetry(0))
	h, err := c.Health(t.Context())
	require.NoError(t, err)
	require.Equal(t, wire.Health{Status: wire.HealthStarting, Reason: "waiting for the cluster: 1 of 3 nodes seen"}, h)
	_, err = c.Status(t.Context())
	require.ErrorContains(t, err, "waiting for the cluster: 1 of 3 nodes seen")

	f.Open(http.NotFoundHandler())
	_, err = c.Health(t.Context())
	require.Error(t, err, "that is no node")
	require.NoError(t, f.Shutdown(t.Context()))
	require.NoError(t, <-served)
	_, err = c.Health(t.Context())
	require.Error(t, err)
}
