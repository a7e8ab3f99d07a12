package infer

import "time"

// Limits of a Knee.
const (
	KneeMin      = 8    // it goes no lower, and leaves a limit that is no more than twice that alone
	kneeStart    = 800  // it starts with no more
	kneeAnswers  = 384  // of one measurement, or as many as there are at once
	kneeUp       = 1.25 // a try upwards
	kneeFine     = 0.8  // and down; the first ones by half
	kneeGain     = 1.04 // more at once must bring so much more, or it is for nothing
	kneeHalf     = 0.92 // and half at once not less than that: what is lost by a wrong guess is found again upwards
	kneeLoss     = 0.97 // and less at once must not bring less than that
	kneeSlow     = 0.75 // an engine that does so much of what it did has changed
	kneeUpEvery  = 8    // measurements between two tries upwards, which cost nothing but latency
	kneeDownEach = 4    // of those, at most, to one try down, which may cost some of what the engine does meanwhile
)

// Knee says how many requests at once an engine can make something of. Past that it only lets them wait inside itself: they take longer in
// proportion, and no more are answered. It goes by the tokens a second that the engine answers and not by latency, which grows long before
// the knee where an engine batches. It is a value without a clock, like Limit:
//
//	first, a little below max ──► up to max: is it more? ── yes ──► that is it: max stays, until the engine slows down
//	                                              └─ no ──► down by halves, then by a fifth, while it is no less ──► hold
//	hold ── from time to time ──► a quarter more: is it more? ── yes ──► and again
//
// Only answers at a reached limit count.
type Knee struct {
	max, size int
	ref       int     // size that is known to be good; size != ref: a try is under way
	rate      float64 // tokens a second at ref; 0: not measured yet
	full      bool    // more than ref brought nothing
	fine      bool    // tries down are small ones
	slow      int     // measurements in a row that say that the engine slowed down
	held      int     // measurements since the newest try
	ups       int     // tries upwards since the newest one down
	each      int     // of those, to the next one down: twice as many after each that lost something, at most kneeDownEach
	downs     int     // small tries down in a row that lost nothing

	skip   int // answers to requests of before the newest change
	n      int // answers since
	tokens float64
	took   float64 // seconds of each of them, together
	since  time.Time
}

// NewKnee starts at a little less than max, to see whether max is more.
func NewKnee(max int) Knee {
	k := Knee{max: max, size: max, ref: max}
	if k.on() {
		k.size = min(kneeStart, int(float64(max)*kneeFine+0.5))
		k.ref, k.skip = k.size, 2*k.size // they all begin at once, and end in waves
	}
	return k
}

func (k Knee) on() bool { return k.max > 2*KneeMin }

// Size is the number of requests that are worth sending at once, KneeMin to max.
func (k Knee) Size() int { return k.size }

// Good is called for each answer, with the requests under way, this one included, how long it took, and its tokens; 0 where the engine did not say.
func (k Knee) Good(now time.Time, inFlight int, took time.Duration, tokens int) Knee {
	switch {
	case !k.on() || inFlight > k.size: // those above a limit that was lowered have to end first
		return k
	case inFlight*10 < k.size*9:
		k.n, k.tokens, k.took, k.since = 0, 0, 0, time.Time{}
		return k
	case k.skip > 0:
		k.skip--
		return k
	case k.since.IsZero():
		k.since = now
		return k
	}
	k.n++
	k.tokens += float64(max(1, tokens))
	k.took += took.Seconds()
	wall := now.Sub(k.since).Seconds()
	if k.n < max(kneeAnswers, k.size) || wall <= 0 || k.took <= 0 {
		return k
	}
	// Both are the tokens a second. The first one, Little's law, is off by how much answers differ in length where they wait inside the engine; the other by what is
	// half answered at both ends, which is much where many began together. The mean is off by less than either.
	rate := k.tokens / k.took * float64(k.size)
	if k.size <= kneeAnswers {
		rate = (rate + k.tokens/wall) / 2
	}
	k.n, k.tokens, k.took, k.since = 0, 0, 0, now
	return k.measured(rate)
}

func (k Knee) measured(rate float64) Knee {
	switch {
	case k.rate == 0:
		k.rate = rate
		return k.up()
	case k.size > k.ref:
		if rate >= k.rate*k.gain() {
			k.ref, k.rate, k.full = k.size, rate, false
			return k.up()
		}
		first := !k.full && !k.fine
		k.full = true
		k.ups++
		if first || k.ups >= k.each {
			return k.down()
		}
		return k.try(k.ref)
	case k.size < k.ref:
		switch {
		case !k.fine && rate >= k.rate*kneeHalf:
			k.ref, k.rate = k.size, rate
			return k.down()
		case !k.fine:
			k.fine = true
			return k.down()
		case rate >= k.rate*kneeLoss:
			k.ref, k.rate, k.each = k.size, max(k.rate, rate), 1 // or it would creep down
			if k.downs++; k.downs == 2 {                         // the knee is far: an odd measurement stopped the halving
				k.downs, k.fine = 0, false
			}
			return k.down()
		}
		k.each = min(kneeDownEach, max(1, 2*k.each))
		return k.try(k.ref)
	}
	return k.hold(rate)
}

// gain is what a try upwards must bring: the first one half as much as the engine got more, as an odd measurement would let it keep max for good.
func (k Knee) gain() float64 {
	if k.full || k.fine {
		return kneeGain
	}
	return 1 + (float64(k.size)/float64(k.ref)-1)/2
}

func (k Knee) hold(rate float64) Knee {
	if rate < k.rate*kneeSlow {
		if k.slow++; k.slow == 2 { // one may be an odd one
			k.slow, k.rate, k.fine = 0, rate, false
			return k.down()
		}
		return k
	}
	k.slow = 0
	k.rate += (rate - k.rate) / 4
	if k.held++; k.held >= kneeUpEvery {
		return k.up()
	}
	return k
}

// up tries more than what is known to be good.
func (k Knee) up() Knee {
	size := max(k.ref+1, int(float64(k.ref)*kneeUp))
	if size*10 > k.max*9 {
		size = k.max // less would be left than can be measured
	}
	return k.try(size)
}

// down tries less than what is known to be good.
func (k Knee) down() Knee {
	k.ups = 0
	step := 0.5
	if k.fine {
		step = kneeFine
	}
	return k.try(max(KneeMin, int(float64(k.ref)*step+0.5)))
}

func (k Knee) try(size int) Knee {
	k.held = 0
	if size >= k.ref {
		k.downs = 0
	}
	if size != k.size {
		k.skip, k.since = size, time.Time{}
		k.size = size
	}
	return k
}
