package sample

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Params say how to pick. The zero value is greedy.
type Params struct {
	Temperature float64 // 0 is greedy, at most 2
	TopP        float64 // keep the likeliest tokens up to this sum of probabilities; 0 and 1 keep all
	MinP        float64 // drop tokens less likely than this share of the likeliest; 0 keeps all
	TopK        int     // keep so many of the likeliest; 0 keeps all
	Seed        uint64
}

// Scratch is memory reused between picks; one goroutine's.
type Scratch struct {
	weights []float64
	kept    []int32
}

// Sampler picks for one answer.
type Sampler struct {
	params  Params
	rng     *rand.Rand
	scratch *Scratch
}

// New makes a sampler on the goroutine's scratch memory.
func New(params Params, scratch *Scratch) *Sampler {
	s := &Sampler{params: params, scratch: scratch}
	if params.Temperature > 0 {
		s.rng = rand.New(rand.NewPCG(params.Seed, 0x6c6d2d776f726b72)) // any constant: the seed alone decides
	}
	return s
}

// Pick returns a token, or -1 when every score is minus infinity or not a number.
func (s *Sampler) Pick(scores []float32) int32 {
	best := Best(scores)
	if best < 0 || s.rng == nil {
		return best
	}
	return s.draw(scores, float64(scores[best]))
}

// Best is the highest score's token, the lower id on a tie, or -1 when there is none.
func Best(scores []float32) int32 {
	best, top := int32(-1), float32(math.Inf(-1))
	for i, x := range scores {
		if x > top { // never true for a NaN
			best, top = int32(i), x
		}
	}
	return best
}

// draw puts the likeliest in order only as far as top k and top p ask, by popping them off a heap.
func (s *Sampler) draw(scores []float32, top float64) int32 {
	p, w := s.params, s.weigh(scores, top)
	kept := s.scratch.kept[:0]
	for i, x := range w {
		if x > 0 && x >= p.MinP { // the likeliest weighs 1, so MinP is a share of it
			kept = append(kept, int32(i))
		}
	}
	s.scratch.kept = kept
	if 0 < p.TopK && p.TopK < len(kept) {
		kept = lift(kept, w, func(n int, _ float64) bool { return n == p.TopK })
	}
	if 0 < p.TopP && p.TopP < 1 {
		enough := p.TopP * sum(kept, w)
		kept = lift(kept, w, func(_ int, have float64) bool { return have >= enough })
	}
	at := s.rng.Float64() * sum(kept, w)
	for _, i := range kept {
		if at -= w[i]; at < 0 {
			return i
		}
	}
	return kept[len(kept)-1] // rounding can leave a crumb
}

// weigh turns scores into weights relative to the likeliest, which gets 1.
func (s *Sampler) weigh(scores []float32, top float64) []float64 {
	s.scratch.weights = slices.Grow(s.scratch.weights[:0], len(scores))[:len(scores)]
	for i, x := range scores {
		weight := math.Exp((float64(x) - top) / s.params.Temperature)
		if math.IsNaN(weight) {
			weight = 0
		}
		s.scratch.weights[i] = weight
	}
	return s.scratch.weights
}

func sum(ids []int32, w []float64) (total float64) {
	for _, i := range ids {
		total += w[i]
	}
	return total
}

// lift takes the heaviest ids, heaviest first, until enough says so of their number and sum. It reorders ids.
func lift(ids []int32, w []float64, enough func(n int, have float64) bool) []int32 {
	for at := len(ids)/2 - 1; at >= 0; at-- {
		sift(ids, at, w)
	}
	have, rest := 0.0, len(ids)
	for rest > 0 {
		rest--
		ids[0], ids[rest] = ids[rest], ids[0]
		have += w[ids[rest]]
		if enough(len(ids)-rest, have) {
			break
		}
		sift(ids[:rest], 0, w)
	}
	taken := ids[rest:]
	slices.Reverse(taken)
	return taken
}

// sift restores the heap below one place: no id is lighter than its children; on a tie the lower id is the heavier.
func sift(ids []int32, at int, w []float64) {
	heavier := func(a, b int32) bool { return w[a] > w[b] || (w[a] == w[b] && a < b) }
	for {
		top := at
		for _, child := range [2]int{2*at + 1, 2*at + 2} {
			if child < len(ids) && heavier(ids[child], ids[top]) {
				top = child
			}
		}
		if top == at {
			return
		}
		ids[at], ids[top] = ids[top], ids[at]
		at = top
	}
}

// Scored is a token with the natural logarithm of its probability.
type Scored struct {
	Token int32
	Log   float64
}

// LogProbs are the log probabilities of one token and of the n likeliest, under the model's own scores: before
// temperature, and before a grammar.
func LogProbs(scores []float32, token int32, n int) (of float64, likeliest []Scored) {
	best := Best(scores)
	if best < 0 {
		return math.Inf(-1), nil
	}
	w, ids := make([]float64, len(scores)), make([]int32, 0, len(scores))
	var total float64
	for i, x := range scores {
		if x == x { // a NaN is no score
			w[i] = math.Exp(float64(x) - float64(scores[best]))
			total += w[i]
			ids = append(ids, int32(i))
		}
	}
	norm := float64(scores[best]) + math.Log(total)
	if n = min(n, len(ids)); n > 0 {
		for _, id := range lift(ids, w, func(have int, _ float64) bool { return have == n }) {
			likeliest = append(likeliest, Scored{id, float64(scores[id]) - norm})
		}
	}
	return float64(scores[token]) - norm, likeliest
}
