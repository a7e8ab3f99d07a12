package infer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewLimitWantsRoom(t *testing.T) {
	_, err := NewLimit(0)
	require.ErrorContains(t, err, "at least 1")
}

// Each row is a story: a limit, then what happens to it, then the size after each step.
func TestLimit(t *testing.T) {
	t0 := time.Unix(1000, 0)
	good := func(inFlight int) func(Limit, time.Time) Limit {
		return func(l Limit, _ time.Time) Limit { return l.Good(inFlight) }
	}
	over := func(after time.Duration) func(Limit, time.Time) Limit {
		return func(l Limit, now time.Time) Limit { return l.Overloaded(now, after) }
	}
	type step struct {
		at   time.Duration
		do   func(Limit, time.Time) Limit
		size int
	}
	for _, c := range []struct {
		name  string
		max   int
		steps []step
	}{
		{"starts at max and stays there", 4, []step{{0, good(4), 4}, {0, good(4), 4}}},
		{"halves", 8, []step{{0, over(0), 4}}},
		{"odd halves down", 7, []step{{0, over(0), 3}}},
		{"never below one", 1, []step{{0, over(0), 1}, {2 * LimitCoolDown, over(0), 1}}},
		{"once per cool-down", 16, []step{{0, over(0), 8}, {LimitCoolDown / 2, over(0), 8}, {LimitCoolDown, over(0), 4}}},
		{"halves what was under way", 64, []step{{0, func(l Limit, _ time.Time) Limit { return l.AtMost(20) }, 20}, {0, over(0), 10}}},
		{"grows by one a round", 4, []step{{0, over(0), 2}, {0, good(2), 2}, {0, good(2), 3}, {0, good(3), 3}, {0, good(3), 3}, {0, good(3), 4}, {0, good(4), 4}}},
		{"an idle engine proves nothing", 4, []step{{0, over(0), 2}, {0, good(1), 2}, {0, good(1), 2}, {0, good(1), 2}, {0, good(1), 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := NewLimit(c.max)
			require.NoError(t, err)
			for i, s := range c.steps {
				l = s.do(l, t0.Add(s.at))
				require.Equal(t, s.size, l.Size(), "step %d", i)
				require.Equal(t, c.max, l.Max())
			}
		})
	}
}

func TestLimitPause(t *testing.T) {
	t0 := time.Unix(1000, 0)
	l, err := NewLimit(8)
	require.NoError(t, err)
	require.Equal(t, 5, l.Free(t0, 3))
	require.Equal(t, 0, l.Free(t0, 9), "a cut limit may be below what is in flight")
	l = l.Overloaded(t0, 10*time.Second)
	require.Equal(t, t0.Add(10*time.Second), l.PausedUntil())
	require.Equal(t, 0, l.Free(t0.Add(9*time.Second), 0))
	require.Equal(t, 4, l.Free(t0.Add(10*time.Second), 0))
	l = l.Overloaded(t0, time.Second)
	require.Equal(t, t0.Add(10*time.Second), l.PausedUntil(), "a shorter pause does not end a longer one")
}
