package bench

import (
	"math"
	"slices"
	"time"
)

// Latency sums up the times of many requests, in milliseconds.
type Latency struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// latencyOf sorts times and sums them up; nil when there are none.
func latencyOf(times []time.Duration) *Latency {
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	return &Latency{Count: len(times), P50: ms(quantile(times, 0.50)), P99: ms(quantile(times, 0.99)), Max: ms(times[len(times)-1])}
}

// quantile returns the smallest of sorted that at least the share q of them does not exceed (nearest rank, so it is
// a time that really happened). sorted is not empty.
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median returns the middle value, the mean of the two middle ones of an even number. values is not empty.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rate is n per second of took.
func rate(n int, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Seconds()
}
