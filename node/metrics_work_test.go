package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// TestMetricsOfBatchesAndSinks: lines by outcome, batches by status, and how far each sink is.
func TestMetricsOfBatchesAndSinks(t *testing.T) {
	out := t.TempDir()
	c, clock := testConfig(t), &shifted{}
	c.Sink.AllowedDirs = []string{out}
	n := boot(t, c, WithClock(clock.now))
	has := func(lines ...string) {
		t.Helper()
		text := "\n" + metrics(t, n)
		for _, line := range lines {
			require.Contains(t, text, "\n"+line)
		}
	}
	has(`autoglm_bulk_batches{status="in_progress"} 0`, `autoglm_tasks_deleted 0`, `autoglm_sink_failures_total 0`)
	_, err := n.sinks.Create(t.Context(), sink.Definition{Name: "s", URL: "file://" + out + "/s", Every: task.Duration(50 * time.Millisecond)})
	require.NoError(t, err)
	batchOf(t, n, bulk.NewID(), store(t, n, requests(7)), 0)
	sinkHas(t, n, "s", 7)
	const labels = `{sink="s",tenant="default"} `
	has(`autoglm_bulk_lines_total{outcome="completed"} 7`, `autoglm_bulk_lines_total{outcome="failed"} 0`, `autoglm_bulk_ended_total{status="completed"} 1`,
		`autoglm_sink_rows_total`+labels+"7\n", `autoglm_sink_running`+labels+"1\n", `autoglm_sink_behind_rows`+labels+"0\n", `autoglm_sink_lag_seconds`+labels+"0\n", `autoglm_sink_failing`+labels+"0\n")

	h := &bulk.Header{InputFile: store(t, n, `{"custom_id":"c","method":"POST","url":"/v1/tasks","body":{"prompt":"p","not_before":"`+time.Now().Add(time.Hour*20).Format(time.RFC3339)+`"}}`+"\n").ID,
		Endpoint: "/v1/tasks", Window: "24h"}
	require.NoError(t, h.Validate())
	running := bulk.NewID()
	moved, end := n.batches.Watch(running)
	defer end()
	s, err := n.batches.Create(t.Context(), running, h)
	for require.NoError(t, err); s.Phase != bulk.InProgress; s, err = n.batches.Get(t.Context(), running) {
		require.NoError(t, err)
		require.False(t, s.Phase.Final(), "%+v", s.Errors)
		select {
		case <-moved:
		case <-time.After(20 * time.Second):
			require.Fail(t, "the batch does not begin")
		}
	}
	has(`autoglm_bulk_batches{status="in_progress"} 1`)

	_, err = n.sinks.Say(t.Context(), "s", sink.Pause{})
	require.NoError(t, err)
	mustEnd(t, n, t.Context(), &task.Spec{ID: "late", Prompt: "p"})
	clock.forward(time.Hour)
	require.Eventually(t, func() bool { // results are complete a moment after they ended
		s, err := n.sinks.Get(t.Context(), "s")
		require.NoError(t, err)
		oldest, err := n.sinks.Waiting(t.Context(), &s)
		return err == nil && !oldest.IsZero()
	}, 20*time.Second, 50*time.Millisecond)
	has(`autoglm_sink_running`+labels+"0\n", `autoglm_sink_behind_rows`+labels+"1\n", `autoglm_sink_lag_seconds`+labels+"36")

	// A destination that fails.
	require.NoError(t, os.WriteFile(filepath.Join(out, "f"), nil, 0o600))
	_, err = n.sinks.Create(tenant.With(t.Context(), "acme"), sink.Definition{Name: "f", URL: "file://" + out + "/f/below", Every: task.Duration(50 * time.Millisecond)})
	require.NoError(t, err)
	changed, stop := n.sys.Router.Watch(sink.Key("/acme/f"))
	defer stop()
	mustEnd(t, n, tenant.With(t.Context(), "acme"), &task.Spec{ID: "t", Prompt: "p"})
	for {
		s, err := n.sinks.Whole(t.Context(), "/acme/f")
		require.NoError(t, err)
		if s.Error != nil {
			break
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			require.Fail(t, "the sink does not fail")
		}
	}
	has(`autoglm_sink_failing{sink="f",tenant="acme"} 1`)
	require.NotContains(t, metrics(t, n), `autoglm_sink_failures_total 0`)
}
