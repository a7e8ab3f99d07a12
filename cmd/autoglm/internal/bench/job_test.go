package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func TestTimesOfAJob(t *testing.T) {
	at := func(ms int) *time.Time {
		when := time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond)
		return &when
	}
	good := []wire.Result{
		{ID: "j-1", State: task.Completed, Answer: "a", CreatedAt: at(10), EndedAt: at(110), RunSeconds: 0.05, Usage: &wire.Usage{CompletionTokens: 2}},
		{ID: "j-0", State: task.Completed, Answer: "b", CreatedAt: at(0), EndedAt: at(50), RunSeconds: 0.03, Usage: &wire.Usage{CompletionTokens: 4}},
	}
	got, err := timesOf(good)
	require.NoError(t, err)
	require.Equal(t, jobTimes{mean: 80 * time.Millisecond, run: 40 * time.Millisecond, tokens: 3}, got, "from the moment the first was there")
	_, err = timesOf(append(good, wire.Result{ID: "j-2", State: task.Failed, CreatedAt: at(0), EndedAt: at(1), Usage: &wire.Usage{}}))
	require.ErrorContains(t, err, "task j-2 ended as failed without an answer")
}

func TestOneByOne(t *testing.T) {
	e, err := startFixed(4, 5*time.Millisecond)
	require.NoError(t, err)
	defer e.stop()
	h, err := infer.NewHTTP(infer.HTTPOptions{URL: e.url, Concurrency: 4})
	require.NoError(t, err)
	defer h.Close()
	d := &driven{engines: []infer.Engine{h}, model: "fixed", prompts: []prompt{{Text: "x"}}}
	s, err := d.oneByOne(t.Context(), 100*time.Millisecond)
	require.NoError(t, err)
	require.LessOrEqual(t, s.answers, 21, "one after the other")
	require.GreaterOrEqual(t, s.took, time.Duration(s.answers)*5*time.Millisecond)
	require.GreaterOrEqual(t, s.mean, s.took/2-5*time.Millisecond)
	require.Less(t, s.mean, s.took)
	e.stop()
	_, err = d.oneByOne(t.Context(), time.Second)
	require.ErrorContains(t, err, "bench.single")
}
