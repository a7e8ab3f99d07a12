package apitest

import (
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/open-autoglm/autoglm/node/api"
)

// Serve runs the HTTP API over svc on a loopback port until the test ends, and returns its
// base URL.
func Serve(t testing.TB, svc api.Service, opts ...api.Option) string {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s, err := api.New(svc, append([]api.Option{api.WithLogger(quiet)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}
