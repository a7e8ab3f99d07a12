package infer

import (
	"math"
	"time"
)

// paceOver is how far a Pace looks back, roughly.
const paceOver = 30 * time.Second

// Pace is how many tokens a second an engine answered lately. It is a value without a clock, like Limit.
type Pace struct {
	rate float64
	at   time.Time
}

// Add counts tokens.
func (p Pace) Add(now time.Time, tokens int) Pace {
	return Pace{p.At(now) + float64(tokens)/paceOver.Seconds(), now}
}

// At is the pace at a time.
func (p Pace) At(now time.Time) float64 {
	if p.rate == 0 {
		return 0
	}
	return p.rate * math.Exp(-max(0, now.Sub(p.at).Seconds())/paceOver.Seconds())
}
