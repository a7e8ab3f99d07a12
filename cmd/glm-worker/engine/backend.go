package engine

import "errors"

// ErrNoRoom is a Backend's word for a full cache: nothing of the batch was kept, a smaller one may fit.
var ErrNoRoom = errors.New("no room in the model's cache")

// Token is one row of a batch.
type Token struct {
	ID     int32
	Pos    int32 // in its sequence, from 0
	Slot   int32
	Logits bool // whether the next token's scores are wanted
}

// Backend is what the loop needs of a model. One goroutine calls it.
type Backend interface {
	// Decode computes one batch. On ErrNoRoom nothing of it was kept; after any other error its slots are undefined.
	Decode(batch []Token) error
	// Logits are the next token's scores after row i of the last batch, to be read or changed until the next Decode.
	Logits(i int) []float32
	// Drop forgets a slot's positions >= from.
	Drop(slot, from int)
	// Embed is the text's vector.
	Embed(tokens []int32) ([]float32, error)
}

// Matcher holds an answer to a grammar. It is made by the caller, then belongs to the engine, which closes it.
type Matcher interface {
	Allows(token int32) bool // Vocab.End: whether the answer may end here
	Mask(logits []float32)   // minus infinity for all that is not allowed; slow
	Accept(token int32)      // only what Allows allowed
	Close()
}

// Kind is what a token does in an answer.
type Kind uint8

const (
	Speaks Kind = iota // stands for text
	Ends               // ends the answer
	Banned             // never picked: control tokens have no place in an answer
)

// Vocab is a model's vocabulary. len(Pieces) == len(Kinds).
type Vocab struct {
	Pieces []string // the bytes of each token, which need not be whole characters
	Kinds  []Kind
	End    int32 // the end token that a Matcher knows
}

// specials are the tokens that do not speak, split in two.
func (v *Vocab) specials() (ends, banned []int32) {
	for id, kind := range v.Kinds {
		switch kind {
		case Ends:
			ends = append(ends, int32(id))
		case Banned:
			banned = append(banned, int32(id))
		}
	}
	return ends, banned
}
