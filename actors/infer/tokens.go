package infer

import (
	"math"
	"unicode"
	"unicode/utf8"
)

// What a GLM tokenizer makes of text on average, before any correction. Measured by nobody for
// every model, which is why Estimator learns; they only have to be of the right order.
const (
	bytesPerASCIIToken = 4.0 // English prose and CSV
	tokensPerCJKRune   = 0.7 // Chinese words are mostly one or two characters
	tokensPerOtherRune = 0.5 // accented Latin, Cyrillic, Arabic
	tokensPerMessage   = 4   // role marks of the chat template
)

// RoughTokens estimates how many tokens a GLM tokenizer makes of s: ASCII and CJK apart. Invalid
// UTF-8 counts a rune a byte.
func RoughTokens(s string) int {
	ascii, cjk, other := 0, 0, 0
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			ascii++
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		if isCJK(r) {
			cjk++
		} else {
			other++
		}
	}
	return int(math.Ceil(float64(ascii)/bytesPerASCIIToken + float64(cjk)*tokensPerCJKRune + float64(other)*tokensPerOtherRune))
}

// RoughTokensOf estimates the prompt of a whole conversation, the template's marks included.
func RoughTokensOf(ms []Message) int {
	n := 0
	for _, m := range ms {
		n += RoughTokens(m.Content) + tokensPerMessage
	}
	return n
}

func isCJK(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || (r >= 0x3000 && r <= 0x303f) || (r >= 0xff00 && r <= 0xffef)
}

const (
	estimateWeight = 0.1 // of one observation once the first few are in
	factorMin      = 0.1 // an engine that reports nonsense moves an estimate by
	factorMax      = 10  // no more than this either way
	// EstimatorModelsMax is how many models one Estimators remembers; more are estimated roughly.
	EstimatorModelsMax = 256
)

// Estimator corrects rough estimates for one model by what its engine reported
// (usage.prompt_tokens): an exponentially weighted mean of actual/rough. Pure; zero is "no report
// yet, factor 1".
type Estimator struct {
	factor float64
	seen   int
	output float64 // mean tokens of an answer
}

// Estimate returns the tokens to expect where RoughTokens says rough; never below 1 for rough > 0.
func (e Estimator) Estimate(rough int) int {
	if e.seen == 0 || rough <= 0 {
		return max(0, rough)
	}
	return max(1, int(math.Ceil(float64(rough)*e.factor)))
}

// Observe folds in one report: the engine counted actual tokens where RoughTokens said rough. A
// report without a count (an engine that sends no usage) changes nothing.
func (e Estimator) Observe(rough, actual int) Estimator {
	if rough <= 0 || actual <= 0 {
		return e
	}
	ratio := min(factorMax, max(factorMin, float64(actual)/float64(rough)))
	e.seen++
	weight := max(estimateWeight, 1/float64(e.seen)) // a plain mean first, so one odd prompt soon drowns
	e.factor += (ratio - e.factor) * weight
	return e
}

// outputFirst is the tokens of an answer of a model that has given none.
const outputFirst = 128

// Output returns the tokens to expect of an answer: as many as those before had on average, and no more than most, unless that is 0.
func (e Estimator) Output(most int) int {
	n := outputFirst
	if e.output > 0 {
		n = int(math.Ceil(e.output))
	}
	if most > 0 {
		n = min(n, most)
	}
	return n
}

// Answered folds in the length of one answer; 0 changes nothing, as of an engine that sends no usage.
func (e Estimator) Answered(tokens int) Estimator {
	switch {
	case tokens <= 0:
	case e.output == 0:
		e.output = float64(tokens)
	default:
		e.output += (float64(tokens) - e.output) * estimateWeight
	}
	return e
}

// Factor is actual/rough as learnt so far; 1 before the first report.
func (e Estimator) Factor() float64 {
	if e.seen == 0 {
		return 1
	}
	return e.factor
}

// Estimators keeps one Estimator a model. It has one owner and no lock.
type Estimators map[string]Estimator

// Estimate returns the expected prompt tokens of a conversation with model.
func (es Estimators) Estimate(model string, ms []Message) int {
	return es[model].Estimate(RoughTokensOf(ms))
}

// Output returns the expected tokens of an answer of model, at most most unless that is 0.
func (es Estimators) Output(model string, most int) int { return es[model].Output(most) }

// Observe folds in what the engine reported for a conversation and its answer. Models beyond EstimatorModelsMax
// are not learnt.
func (es Estimators) Observe(model string, ms []Message, promptTokens, outputTokens int) {
	old, known := es[model]
	if !known && len(es) >= EstimatorModelsMax {
		return
	}
	es[model] = old.Observe(RoughTokensOf(ms), promptTokens).Answered(outputTokens)
}
