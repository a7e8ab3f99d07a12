package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRefusedAttemptsAreBounded: nobody fills the disk with them, and strangers do not hide what a key tried.
func TestRefusedAttemptsAreBounded(t *testing.T) {
	a, now := newAttempts(), time.Unix(1e9, 0)
	written := func(key, addr string, n int) (count int) {
		for range n {
			if _, ok := a.take(key, addr, now); ok {
				count++
			}
		}
		return count
	}
	require.Equal(t, attemptsAtOnce, written("k1", "10.0.0.1:1", 100))
	require.Equal(t, attemptsAtOnce, written("k2", "10.0.0.1:1", 100), "another key")
	require.Equal(t, attemptsAtOnce, written("", "10.0.0.1:1", 100))
	require.Zero(t, written("", "10.0.0.1:2", 100), "the same address")
	require.Equal(t, attemptsAtOnce, written("", "[2001:db8::1]:1", 100))
	require.Zero(t, written("", "[2001:db8::2]:1", 100), "the same network")
	now = now.Add(attemptsEvery)
	dropped, ok := a.take("k1", "", now)
	require.True(t, ok)
	require.Equal(t, 97+100, dropped, "since the last one that was written down")
	require.Zero(t, written("k1", "", 100))

	all := 0
	for i := range 10 * attemptersMax {
		all += written("", fmt.Sprintf("10.%d.%d.1:1", i/256, i%256), 1)
	}
	require.LessOrEqual(t, all, strangersAtOnce)
	require.LessOrEqual(t, len(a.by), attemptersMax)
	require.Equal(t, 1, written("k3", "", 1), "of a key there is room")
	for i := range 1000 {
		all += written(fmt.Sprint("key", i), "", 1)
	}
	require.LessOrEqual(t, all, strangersAtOnce+knownAtOnce)
}
