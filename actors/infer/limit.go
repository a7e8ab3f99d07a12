package infer

import (
	"fmt"
	"time"
)

// LimitCoolDown is how long after a cut further Overloaded answers change nothing: those requests
// were sent before the cut, so they say nothing about the smaller limit.
const LimitCoolDown = time.Second

// Limit says how many requests an engine may have in flight: additive increase, multiplicative
// decrease. It is a value without a clock: every method returns the next Limit.
//
//	good answers while the limit is reached ──► +1 per round of answers, up to max
//	Overloaded                              ──► half, at least 1, then LimitCoolDown of patience
type Limit struct {
	size  float64   // 1 <= size <= max; the whole part counts
	max   float64   // as configured
	until time.Time // end of the cool-down after a cut
	pause time.Time // the engine asked for nothing before then (Retry-After)
}

// NewLimit starts at max: an engine is trusted until it complains. max is the concurrency that
// its owner configured, at least 1.
func NewLimit(max int) (Limit, error) {
	if max < 1 {
		return Limit{}, fmt.Errorf("infer.limit: max is %d: use at least 1", max)
	}
	return Limit{size: float64(max), max: float64(max)}, nil
}

// Size is the number of requests allowed in flight, 1 to Max.
func (l Limit) Size() int { return int(l.size) }

// Max is the limit as configured.
func (l Limit) Max() int { return int(l.max) }

// Free is how many requests may be sent at now with inFlight under way: none while the engine
// has asked for a pause.
func (l Limit) Free(now time.Time, inFlight int) int {
	if now.Before(l.pause) {
		return 0
	}
	return max(0, l.Size()-inFlight)
}

// PausedUntil is the end of the pause that the engine asked for; zero when it never did.
func (l Limit) PausedUntil() time.Time { return l.pause }

// Good is called for each answer. inFlight counts the requests under way, this one included; an
// idle engine proves nothing about a higher limit, so only a reached limit grows.
func (l Limit) Good(inFlight int) Limit {
	if inFlight < l.Size() {
		return l
	}
	l.size = min(l.max, l.size+1/float64(l.Size()))
	return l
}

// AtMost is called where no more than n were under way, for another reason: an error says something of those.
func (l Limit) AtMost(n int) Limit {
	l.size = max(1, min(l.size, float64(n)))
	return l
}

// Overloaded is called for each error of that kind, with the pause that the engine asked for (0:
// none).
func (l Limit) Overloaded(now time.Time, retryAfter time.Duration) Limit {
	if p := now.Add(retryAfter); retryAfter > 0 && p.After(l.pause) {
		l.pause = p
	}
	if now.Before(l.until) {
		return l
	}
	l.size = max(1, float64(l.Size()/2))
	l.until = now.Add(LimitCoolDown)
	return l
}
