package chaos

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/infer"
)

func TestPeak(t *testing.T) {
	ms := time.Millisecond
	a, b, c := stay{id: "a", begin: 0, end: 100 * ms}, stay{id: "b", begin: 50 * ms, end: 150 * ms}, stay{id: "c", begin: 100 * ms, end: 200 * ms}
	most, who := peak([]stay{a, b, c}, 0)
	require.Equal(t, 2, most, "one that ends as another begins is not there with it")
	require.Equal(t, []stay{a, b}, who)
	b.begin = 99 * ms
	b.broken = true
	most, _ = peak([]stay{a, b, c}, 0)
	require.Equal(t, 2, most)
	most, who = peak([]stay{a, b, c}, 250*ms)
	require.Equal(t, 1, most, "it was gone before")
	require.Equal(t, []stay{a}, who)
	require.InDelta(t, 1.25, mean([]stay{a, {begin: 0, end: 25 * ms}}, 100*ms), 1e-9)
}

// TestCrowdCounts what comes over its socket.
func TestCrowdCounts(t *testing.T) {
	c, err := newCrowd(filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer c.close()
	h, err := infer.NewHTTP(infer.HTTPOptions{URL: "unix://" + c.path, Concurrency: 4})
	require.NoError(t, err)
	defer h.Close()
	begin := time.Now()
	res, err := h.Do(t.Context(), &infer.Request{Model: "crowd", Messages: []infer.Message{{Role: "user", Content: infer.EchoMark + "latency=20ms\nhello"}}, Key: "t/1"})
	require.NoError(t, err)
	require.Equal(t, "hello", res.Text)
	all, _ := c.all(begin)
	require.Len(t, all, 1)
	require.Equal(t, "t/1", all[0].id)
	require.False(t, all[0].broken)
	require.GreaterOrEqual(t, all[0].end-all[0].begin, 20*time.Millisecond)
}
