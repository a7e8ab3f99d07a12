package infer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	var p Pace
	require.Zero(t, p.At(now))
	for range 600 { // five minutes of 100 a second
		now = now.Add(500 * time.Millisecond)
		p = p.Add(now, 50)
	}
	require.InDelta(t, 100, p.At(now), 2)
	require.InDelta(t, 37, p.At(now.Add(paceOver)), 2, "what was long ago counts less and less")
	require.Equal(t, p.At(now), p.At(now.Add(-time.Hour)), "a clock that went back makes nothing up")
	require.Less(t, p.At(now.Add(time.Hour)), 0.01)
}
