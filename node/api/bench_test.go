package api_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
)

// instant accepts everything at once, so that only the HTTP layer is measured.
type instant struct{ *apitest.Fake }

func (instant) Submit(_ context.Context, specs []*task.Spec) []api.Submitted {
	out := make([]api.Submitted, len(specs))
	for i, s := range specs {
		out[i] = api.Submitted{ID: s.ID, Version: 1, State: task.Pending}
	}
	return out
}

// BenchmarkStream is one line of a bulk submit, decoded and answered; making the line and
// sending it over loopback are in it.
func BenchmarkStream(b *testing.B) {
	base := apitest.Serve(b, instant{apitest.New()})
	b.ReportAllocs()
	resp, err := http.Post(base+"/v1/tasks", "application/x-ndjson", generator(b.N))
	require.NoError(b, err)
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(b, err)
	b.SetBytes(n / int64(b.N))
}
