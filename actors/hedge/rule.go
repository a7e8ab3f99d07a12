package hedge

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of a Rule.
const (
	FactorMin  = 1.5
	FactorMax  = 1000
	PercentMax = 100
	budgetMax  = 16  // second runs at most that follow each other at once, though more were earned
	lateMax    = 256 // runs at most that a place is looked for at once
)

// Rule says what is late. The zero rule: nothing is.
type Rule struct {
	Factor  float64       // times as old as runs like it take
	After   time.Duration // and so old at least
	Percent float64       // of all runs may have a second one
}

// Validate checks the bounds of a rule that is not zero.
func (r Rule) Validate() error {
	if !(r.Factor >= FactorMin && r.Factor <= FactorMax) || r.After < 0 || !(r.Percent > 0 && r.Percent <= PercentMax) {
		return fmt.Errorf("hedge.rule: factor %v must be %v to %d, percent %v more than 0 and at most %d, after %v not negative", r.Factor, FactorMin, FactorMax, r.Percent, PercentMax, r.After)
	}
	return nil
}

// Run is a first run that is at an engine.
type Run struct {
	Engine string
	Since  time.Time
	Usual  time.Duration // what those like it take; 0: not known
	Left   time.Duration // of its lease
}

// limit is the age from which a run is late.
func (r Rule) limit(usual time.Duration) time.Duration {
	return max(r.After, time.Duration(r.Factor*float64(usual)))
}

// Late returns by index the runs that are late, the latest first, when it is known that a second run can still end in time: lateMax at most: which of them find
// a place is not known here.
func (r Rule) Late(now time.Time, runs []Run) (late []int) {
	if r.Factor == 0 {
		return nil
	}
	for i, x := range runs {
		if x.Usual > 0 && x.Left > x.Usual && now.Sub(x.Since) >= r.limit(x.Usual) {
			late = append(late, i)
		}
	}
	over := func(i int) time.Duration { return now.Sub(runs[i].Since) - r.limit(runs[i].Usual) }
	slices.SortStableFunc(late, func(a, b int) int { return cmp.Compare(over(b), over(a)) })
	return late[:min(len(late), lateMax)]
}
