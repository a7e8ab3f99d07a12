package task

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBudget(t *testing.T) {
	l := Limits{Percent: 20, Floor: 10, Window: time.Minute}
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name     string
		attempts int
		retries  int
		atOnce   int           // that wait for nothing but their backoff
		longest  time.Duration // about
	}{
		{"nothing", 0, 0, 0, 0},
		{"the floor alone", 0, 10, 10, 0},
		{"over the floor", 0, 20, 11, 54 * time.Second},
		{"a share of many", 1000, 200, 200, 0},
		{"all of many fail", 1000, 1000, 211, 225 * time.Second},
		{"there is an end to waiting", 0, 1000, 11, budgetWaitMax},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := 0
			b := NewBudget(l, func() { held++ })
			for range c.attempts {
				b.Attempt("m", noon)
			}
			atOnce, longest := 0, time.Duration(0)
			for range c.retries {
				if wait := b.Retry("m", noon, time.Second); wait == time.Second {
					atOnce++
				} else {
					longest = max(longest, wait)
				}
			}
			require.InDelta(t, c.atOnce, atOnce, 4)
			require.InDelta(t, c.longest.Seconds(), longest.Seconds(), 6)
			require.Equal(t, c.retries-atOnce, held)
			require.Equal(t, time.Second, b.Retry("another", noon, time.Second), "another model has its own")
		})
	}
	b := NewBudget(l, nil)
	for range 50 {
		b.Retry("m", noon, 0)
	}
	require.Positive(t, b.Retry("m", noon, 0))
	require.Zero(t, b.Retry("m", noon.Add(10*time.Minute), 0), "a window later it is as if nothing had been")
	for i := range budgetModels + 1 {
		b.Attempt(fmt.Sprint(i), noon)
	}
	require.LessOrEqual(t, len(b.models), budgetModels)
	var none *Budget
	none.Attempt("m", noon)
	require.Equal(t, time.Hour, none.Retry("m", noon, time.Hour))
	off := NewBudget(Limits{}, nil)
	off.Attempt("m", noon)
	require.Zero(t, off.Retry("m", noon, 0))
}

// TestABudgetIsKept over any stretch: of an engine that fails all, no more than twice what a window allows comes back within one.
func TestABudgetIsKept(t *testing.T) {
	l := Limits{Percent: 10, Floor: 5, Window: time.Minute}
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	var s spent
	var at []time.Time
	for range 120 { // one attempt a second, and each fails; with many more it would be budgetWaitMax that counts
		now = now.Add(time.Second)
		var wait time.Duration
		s = s.attempt(now, l)
		s, wait = s.retry(now, l)
		at = append(at, now.Add(wait))
	}
	for i := range at {
		within := 0
		for j := i; j < len(at) && at[j].Before(at[i].Add(l.Window)); j++ {
			within++
		}
		require.LessOrEqual(t, within, 2*(5+6+1), "from %v", at[i])
	}
}
