package backoff

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDelay(t *testing.T) {
	const s = time.Second
	plain := Exponential{Min: s, Max: 10 * s}
	full := Exponential{Min: s, Max: 10 * s, Jitter: 1}
	half := Exponential{Min: s, Max: 10 * s, Jitter: 0.5}
	long := Exponential{Min: s, Max: math.MaxInt64}
	for _, c := range []struct {
		e      Exponential
		n      int
		random float64
		want   time.Duration
	}{
		{plain, -1, 0, s}, {plain, 0, 0, s}, {plain, 1, 0, s}, {plain, 2, 0, 2 * s}, {plain, 3, 0.9, 4 * s}, {plain, 4, 0, 8 * s},
		{plain, 5, 0, 10 * s}, {plain, 6, 0, 10 * s}, {plain, math.MaxInt, 0, 10 * s},
		{full, 1, 0, 0}, {full, 1, 0.5, s / 2}, {full, 3, 0.25, s}, {full, 99, 0.5, 5 * s},
		{half, 1, 0, s / 2}, {half, 2, 0.5, 3 * s / 2}, {half, 99, 0, 5 * s},
		{long, math.MaxInt, 0, math.MaxInt64},
		{Exponential{Min: s, Max: s}, 7, 0, s},
	} {
		require.Equal(t, c.want, c.e.Delay(c.n, c.random), "%+v n=%d random=%g", c.e, c.n, c.random)
	}
}

func TestValidate(t *testing.T) {
	require.NoError(t, Exponential{1, 1, 1}.Validate())
	require.NoError(t, Exponential{1, 2, 0}.Validate())
	for _, e := range []Exponential{{0, 1, 0}, {2, 1, 0}, {-1, 1, 0}, {1, 1, -0.1}, {1, 1, 1.1}, {1, 1, math.NaN()}} {
		require.Error(t, e.Validate(), "%+v", e)
	}
}
