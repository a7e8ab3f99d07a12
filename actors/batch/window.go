package batch

import (
	"fmt"
	"time"
)

// Window says when a batch is ripe. It is pure: the batcher feeds it and carries
// out what it decides.
type Window struct {
	SizeMax   int           // works of one batch; 256
	TokensMax int           // estimated prompt tokens of one batch; 65536
	AgeMax    time.Duration // the first work of a batch waits at most this for company; 5 ms
}

// Rules say which waiting works an engine gets together, beside their order.
type Rules struct {
	Prefix bool // those whose prompts begin alike: engines keep what they have read of a prompt for the next one
	Length bool // those of about the same length: an engine that answers a batch as a whole waits for its longest
}

// DefaultWindow fills an engine quickly: an engine with continuous batching loses
// nothing by a small batch, so age is short.
func DefaultWindow() Window {
	return Window{SizeMax: 256, TokensMax: 65536, AgeMax: 5 * time.Millisecond}
}

// Validate checks the bounds.
func (w Window) Validate() error {
	if w.SizeMax < 1 || w.TokensMax < 1 || w.AgeMax < 0 {
		return fmt.Errorf("batch.window: size_max %d and tokens_max %d must be positive, age_max %v not negative", w.SizeMax, w.TokensMax, w.AgeMax)
	}
	return nil
}

// Load is what has gathered for one engine.
type Load struct {
	Count  int           // works
	Tokens int           // estimated
	Age    time.Duration // of the oldest
	Coming int           // works asked for and not answered yet
}

// Cause names why a batch left, for metrics.
type Cause string

const (
	NotRipe  Cause = ""
	BySize   Cause = "size"
	ByTokens Cause = "tokens"
	ByAge    Cause = "age"
	ByDrain  Cause = "drain" // nothing else is on its way: waiting would be for nothing
	ByHedge  Cause = "hedge" // a second run
)

// Ripe decides whether to send what has gathered. When it is not ripe, wait says
// when age will make it so.
func (w Window) Ripe(l Load) (c Cause, wait time.Duration) {
	switch {
	case l.Count == 0:
		return NotRipe, 0
	case l.Count >= w.SizeMax:
		return BySize, 0
	case l.Tokens >= w.TokensMax:
		return ByTokens, 0
	case l.Coming == 0:
		return ByDrain, 0
	case l.Age >= w.AgeMax:
		return ByAge, 0
	}
	return NotRipe, w.AgeMax - l.Age
}

// Cut returns how many of the first works, with these token estimates, make one
// batch: as many as both budgets allow, but at least one.
func (w Window) Cut(tokens []int) int {
	sum := 0
	for i, t := range tokens {
		if i == w.SizeMax || i > 0 && sum+t > w.TokensMax {
			return i
		}
		sum += t
	}
	return len(tokens)
}
