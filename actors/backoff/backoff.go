// Package backoff hides one decision: how long to wait before trying again.
//
// Three supervisors wait (actors of tasks, worker processes, callbacks); all of them wait longer
// after each failure, up to a cap, and never all at the same moment:
//
//	delay │                ┌──── Max
//	      │            ┌───┤        random part: Jitter of the delay,
//	      │        ┌───┤░░░│        1 is "full jitter", 0 is none
//	      │    ┌───┤░░░│░░░│
//	  Min │┌───┤░░░│░░░│░░░│
//	      └─1───2───3───4───5── failures in a row
//
// It is pure: the caller brings the count and the random number, and keeps the clock.
package backoff

import (
	"fmt"
	"time"
)

// Exponential doubles from Min to Max.
type Exponential struct {
	Min    time.Duration // after the first failure; > 0
	Max    time.Duration // never longer; >= Min
	Jitter float64       // 0 to 1: which part of the delay is random
}

// Validate tells which bound is wrong.
func (e Exponential) Validate() error {
	switch {
	case e.Min <= 0 || e.Max < e.Min:
		return fmt.Errorf("backoff: min %v and max %v: use 0 < min <= max", e.Min, e.Max)
	case !(e.Jitter >= 0 && e.Jitter <= 1):
		return fmt.Errorf("backoff: jitter %g: use 0 to 1", e.Jitter)
	}
	return nil
}

// Delay is the wait after the n-th failure in a row (n >= 1); random is in [0, 1). The result is
// between (1-Jitter) of the doubled delay and the whole of it.
func (e Exponential) Delay(n int, random float64) time.Duration {
	d := e.Min
	for i := 1; i < n && d < e.Max; i++ {
		if d > e.Max/2 { // doubling would pass the cap, or overflow
			d = e.Max
			break
		}
		d *= 2
	}
	return d - time.Duration(e.Jitter*(1-random)*float64(d))
}
