package api_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A client's trace, or a new one where it gave none that is valid, is in all that a request logs.
func TestTraceOfARequest(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	var log bytes.Buffer
	f := apitest.New()
	f.BeforeSubmit = func([]*task.Spec) error { return fault.New(fault.Unavailable, "x", "", "down") }
	s, err := api.New(f, api.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	require.NoError(t, err)
	traceID := regexp.MustCompile(`trace_id=(\w+)`)
	seen := map[string]bool{}
	for _, given := range [][]string{{parent}, nil, {""}, {"00-zz"}, {strings.ToUpper(parent)}, {parent, parent}} {
		log.Reset()
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/tasks", strings.NewReader(`{"prompt":"p"}`))
		req.Header.Set("Content-Type", "application/json")
		req.Header["Traceparent"] = given
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, req)
		require.Equal(t, http.StatusServiceUnavailable, rec.Code, rec.Body.String())
		ids := traceID.FindAllStringSubmatch(log.String(), -1)
		require.Len(t, ids, 2, "the failure and the request: %s", log.String())
		require.Equal(t, ids[0], ids[1])
		id := ids[0][1]
		require.Len(t, id, 32)
		require.False(t, seen[id], "each request without a trace begins one")
		seen[id] = true
		require.Equal(t, len(given) == 1 && given[0] == parent, strings.Contains(parent, id), "%q", given)
	}
}
