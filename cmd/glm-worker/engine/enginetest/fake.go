// Package enginetest is a model of a few lines for tests of what lies above one: no C++, no file, no chance.
//
//	tokens 0..255 are bytes, 256.. are control tokens; the answer to a prompt is its text after the last newline, in
//	upper case, then the end token
//
// Like a real model it computes a token from all before it in the cache, so a loop that feeds it wrongly gets nonsense.
package enginetest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// Control tokens.
const (
	End int32 = 256 + iota
	Mask
	Sop
	System
	User
	Assistant
	Odd // banned
	size
)

var spelled = map[string]int32{"<|endoftext|>": End, "[gMASK]": Mask, "<sop>": Sop, "<|system|>": System, "<|user|>": User, "<|assistant|>": Assistant}

// Model implements engine.Backend and chat.Tokenizer. Set its fields before use.
type Model struct {
	Room   int                              // tokens that fit in the cache together; 0 is no limit
	Before func(batch []engine.Token) error // called before each Decode

	mu     sync.Mutex
	cache  map[int32][]int32
	logits [][]float32
	rounds int
}

// Vocab is the fake's vocabulary.
func Vocab() engine.Vocab {
	v := engine.Vocab{Pieces: make([]string, size), Kinds: make([]engine.Kind, size), End: End}
	for i := range 256 {
		v.Pieces[i] = string([]byte{byte(i)})
	}
	for i := End; i < size; i++ {
		v.Kinds[i] = engine.Banned
	}
	for _, end := range []int32{End, System, User, Assistant} {
		v.Kinds[end] = engine.Ends
	}
	return v
}

// Tokenize makes a token of each byte.
func (m *Model) Tokenize(text string) []int32 {
	out := make([]int32, len(text))
	for i := range len(text) {
		out[i] = int32(text[i])
	}
	return out
}

// Special finds a control token.
func (m *Model) Special(text string) (int32, bool) {
	id, ok := spelled[text]
	return id, ok
}

// Decode checks the batch as llama.cpp would, and computes the rows that are wanted.
func (m *Model) Decode(batch []engine.Token) error {
	if m.Before != nil {
		if err := m.Before(batch); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cache == nil {
		m.cache = map[int32][]int32{}
	}
	used := 0
	for _, tokens := range m.cache {
		used += len(tokens)
	}
	if m.Room > 0 && used+len(batch) > m.Room {
		return engine.ErrNoRoom
	}
	m.rounds++
	m.logits = make([][]float32, len(batch))
	for i, t := range batch {
		if int(t.Pos) != len(m.cache[t.Slot]) {
			return errors.New("enginetest: a position that does not follow")
		}
		m.cache[t.Slot] = append(m.cache[t.Slot], t.ID)
		if t.Logits {
			m.logits[i] = scores(m.cache[t.Slot])
		}
	}
	return nil
}

// scores make the next byte of the answer likeliest.
func scores(tokens []int32) []float32 {
	from := slices.Index(tokens, Assistant)
	prompt, answered := tokens, 0
	if from >= 0 {
		prompt, answered = tokens[:from], len(tokens)-from-2 // after <|assistant|> and a newline
	}
	line := prompt[slices.Index(prompt, '\n')+1:]
	for i := slices.Index(line, '\n'); i >= 0; i = slices.Index(line, '\n') {
		line = line[i+1:]
	}
	next := End
	if answered >= 0 && answered < len(line) && line[answered] < 256 {
		next = int32(strings.ToUpper(string(rune(line[answered])))[0])
		if line[answered] >= 128 {
			next = line[answered]
		}
	}
	out := make([]float32, size)
	for i := range out {
		out[i] = -float32(i%7) - 5
	}
	out[Odd] = 20 // likeliest of all, so that a loop which forgets to ban it is found out
	out[next] = 10
	return out
}

// Logits returns a wanted row.
func (m *Model) Logits(i int) []float32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logits[i]
}

// Drop forgets the end of a slot.
func (m *Model) Drop(slot, from int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if tokens := m.cache[int32(slot)]; from < len(tokens) {
		m.cache[int32(slot)] = tokens[:from]
	}
}

// Embed returns the length and the first token, at length 1.
func (m *Model) Embed(tokens []int32) ([]float32, error) {
	a, b := float64(len(tokens)), float64(tokens[0])
	n := math.Hypot(a, b)
	return []float32{float32(a / n), float32(b / n)}, nil
}

// Rounds counts the batches computed.
func (m *Model) Rounds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rounds
}

// Literal is a matcher for one text.
type Literal struct {
	Text   string
	Closed func()
}

// Allows implements engine.Matcher.
func (l *Literal) Allows(token int32) bool {
	if l.Text == "" {
		return token == End
	}
	return token == int32(l.Text[0])
}

// Mask implements engine.Matcher.
func (l *Literal) Mask(logits []float32) {
	for i := range logits {
		if !l.Allows(int32(i)) {
			logits[i] = float32(math.Inf(-1))
		}
	}
}

// Accept implements engine.Matcher.
func (l *Literal) Accept(token int32) {
	if !l.Allows(token) || token == End {
		panic("enginetest: accepted what is not allowed") // as llama.cpp would abort
	}
	l.Text = l.Text[1:]
}

// Close implements engine.Matcher.
func (l *Literal) Close() {
	if l.Closed != nil {
		l.Closed()
	}
}
