package backoff

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryAfterMax bounds what a server may ask for: a header must not park an engine for a week.
const RetryAfterMax = time.Hour

// RetryAfter reads a Retry-After header: seconds, or an HTTP date after now. 0 is none; the
// result is at most RetryAfterMax.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		return bound(ms / 1000)
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		return bound(sec)
	}
	if at, err := http.ParseTime(v); err == nil {
		return bound(at.Sub(now).Seconds())
	}
	return 0
}

func bound(sec float64) time.Duration {
	if math.IsNaN(sec) || sec <= 0 {
		return 0
	}
	return time.Duration(min(sec, RetryAfterMax.Seconds()) * float64(time.Second))
}

// asked is an error with the pause that the other side asked for.
type asked struct {
	error
	pause time.Duration
}

func (a *asked) Unwrap() error { return a.error }

// Asked attaches a pause to err; a pause of 0 or less leaves it as it is.
func Asked(err error, pause time.Duration) error {
	if err == nil || pause <= 0 {
		return err
	}
	return &asked{err, min(pause, RetryAfterMax)}
}

// AskedBy returns the pause that rides on err, 0 when there is none.
func AskedBy(err error) time.Duration {
	var a *asked
	if errors.As(err, &a) {
		return a.pause
	}
	return 0
}
