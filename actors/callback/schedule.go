package callback

import "time"

// schedule is the wait after each failed try, as Standard Webhooks suggests: about 76 hours.
var schedule = [...]time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
	14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

// TriesMax is how often a callback is tried at most, the first time included.
const TriesMax = len(schedule) + 1

// jitter is how much longer, as a part, a wait may be: receivers that were down must not meet all
// of their callbacks in one moment.
const jitter = 0.2

// Next tells when to try again after try failed tries (1 or more): after delay, or never. The
// receiver's own wish (0: none) only makes a wait longer. random is in [0, 1).
func Next(try int, retryAfter time.Duration, random float64) (delay time.Duration, giveUp bool) {
	if try >= TriesMax {
		return 0, true
	}
	delay = max(schedule[max(try, 1)-1], retryAfter)
	return delay + time.Duration(jitter*random*float64(delay)), false
}
