package backoff

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "", 0},
		{"Retry-After", "3", 3 * time.Second},
		{"Retry-After", " 0.5 ", 500 * time.Millisecond},
		{"Retry-After", "-3", 0},
		{"Retry-After", "NaN", 0},
		{"Retry-After", "1e300", RetryAfterMax},
		{"Retry-After", "soon", 0},
		{"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		{"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0},
		{"Retry-After", now.AddDate(1, 0, 0).Format(http.TimeFormat), RetryAfterMax},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
	} {
		require.Equal(t, c.want, RetryAfter(http.Header{c.name: {c.value}}, now), "%s: %s", c.name, c.value)
	}
}

func TestAskedRidesOnAnError(t *testing.T) {
	cause := errors.New("busy")
	err := fmt.Errorf("attempt: %w", Asked(cause, time.Second))
	require.ErrorIs(t, err, cause)
	require.Equal(t, time.Second, AskedBy(err))
	require.Equal(t, RetryAfterMax, AskedBy(Asked(cause, 48*time.Hour)))
	require.Equal(t, cause, Asked(cause, 0))
	require.NoError(t, Asked(nil, time.Second))
	require.Zero(t, AskedBy(cause))
	require.Zero(t, AskedBy(nil))
}
