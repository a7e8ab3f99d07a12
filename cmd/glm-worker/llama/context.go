package llama

// #include "abi.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// SlotsMax is the most sequences that llama.cpp decodes together.
const SlotsMax = 256

// Shape is the size of a context.
type Shape struct {
	Slots   int // sequences decoded together, at most SlotsMax
	Tokens  int // room of each, in tokens
	Batch   int // tokens in one call of Decode
	Threads int // one is right on a busy machine: with two, a small model was up to 200 times slower
}

// Context holds the memory of running sequences. It belongs to the goroutine that decodes.
type Context struct {
	model *Model
	shape Shape
	ctx   *C.struct_llama_context
	embed *C.struct_llama_context // made when the first embedding is asked for
	batch C.struct_llama_batch
	width int // values of an embedding
	rows  columns
}

// columns are the batch's C arrays, seen from Go.
type columns struct {
	token, pos, seqs []int32
	seq              []*int32
	logits           []int8
}

var _ engine.Backend = (*Context)(nil)

// NewContext reserves memory for all slots at once, so that it fails here and not under load.
func (m *Model) NewContext(shape Shape) (*Context, error) {
	if shape.Slots < 1 || shape.Slots > SlotsMax || shape.Tokens < 1 || shape.Batch < 1 || shape.Threads < 1 ||
		shape.Slots*shape.Tokens > math.MaxInt32 {
		return nil, fmt.Errorf("llama.context: impossible shape %+v: slots are 1..%d, the rest at least 1", shape, SlotsMax)
	}
	shape.Batch = min(shape.Batch, shape.Slots*shape.Tokens) // llama.cpp lowers it to that, and aborts on a larger one
	c := &Context{model: m, shape: shape, width: int(C.llama_model_n_embd(m.model))}
	var err error
	if c.ctx, err = m.open(shape, false); err != nil {
		return nil, err
	}
	c.batch = C.llama_batch_init(C.int32_t(shape.Batch), 0, 1)
	n := shape.Batch
	c.rows = columns{
		token:  unsafe.Slice((*int32)(unsafe.Pointer(c.batch.token)), n),
		pos:    unsafe.Slice((*int32)(unsafe.Pointer(c.batch.pos)), n),
		seqs:   unsafe.Slice((*int32)(unsafe.Pointer(c.batch.n_seq_id)), n),
		seq:    unsafe.Slice((**int32)(unsafe.Pointer(c.batch.seq_id)), n),
		logits: unsafe.Slice((*int8)(unsafe.Pointer(c.batch.logits)), n),
	}
	return c, nil
}

func (m *Model) open(shape Shape, embeddings bool) (*C.struct_llama_context, error) {
	p := C.llama_context_default_params()
	p.n_ctx = C.uint32_t(shape.Slots * shape.Tokens)
	p.n_batch = C.uint32_t(shape.Batch)
	p.n_ubatch = C.uint32_t(min(shape.Batch, 512))
	p.n_seq_max = C.uint32_t(shape.Slots)
	p.n_threads = C.int32_t(shape.Threads)
	p.n_threads_batch = C.int32_t(shape.Threads)
	p.kv_unified = false // every slot its own cache: a sequence is computed the same whoever sits beside it
	p.no_perf = true
	p.embeddings = C.bool(embeddings)
	if embeddings {
		p.pooling_type = C.LLAMA_POOLING_TYPE_NONE // pooled here, so that a text may take several calls
	}
	ctx := C.llama_init_from_model(m.model, p)
	if ctx == nil {
		return nil, fmt.Errorf("llama.context: %s; ask for fewer slots or a shorter context", reason())
	}
	return ctx, nil
}

// BatchMax is how many tokens one Decode takes: what was asked for, or less where all slots hold less.
func (c *Context) BatchMax() int { return c.shape.Batch }

// Close frees the context. Nothing may be decoding.
func (c *Context) Close() {
	if c.ctx == nil {
		return
	}
	C.llama_batch_free(c.batch)
	C.llama_free(c.ctx)
	if c.embed != nil {
		C.llama_free(c.embed)
	}
	c.ctx, c.embed = nil, nil
}

// Decode runs one batch. engine.ErrNoRoom means that nothing of it was kept.
func (c *Context) Decode(batch []engine.Token) error {
	if len(batch) == 0 || len(batch) > c.shape.Batch {
		return fmt.Errorf("llama.decode: %d tokens, 1 to %d fit", len(batch), c.shape.Batch)
	}
	c.fill(batch)
	return verdict(C.llama_decode(c.ctx, c.batch))
}

func (c *Context) fill(batch []engine.Token) {
	for i, t := range batch {
		c.rows.token[i], c.rows.pos[i], c.rows.seqs[i], *c.rows.seq[i] = t.ID, t.Pos, 1, t.Slot
		c.rows.logits[i] = 0
		if t.Logits {
			c.rows.logits[i] = 1
		}
	}
	c.batch.n_tokens = C.int32_t(len(batch))
}

func verdict(code C.int32_t) error {
	switch code {
	case 0:
		return nil
	case 1:
		return engine.ErrNoRoom
	}
	return fmt.Errorf("llama.decode: code %d: %s", code, reason())
}

// Logits are the scores of the next token after the batch's token i. They are llama.cpp's memory, valid and writable
// until the next Decode.
func (c *Context) Logits(i int) []float32 {
	p := C.llama_get_logits_ith(c.ctx, C.int32_t(i))
	if p == nil {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(p)), c.model.size)
}

// Drop forgets what a slot holds from a position on.
func (c *Context) Drop(slot, from int) {
	C.llama_memory_seq_rm(C.llama_get_memory(c.ctx), C.int32_t(slot), C.int32_t(from), -1)
}

// Embed is the mean of the model's last hidden states over all tokens, at length 1.
func (c *Context) Embed(tokens []int32) ([]float32, error) {
	if len(tokens) == 0 || len(tokens) > c.shape.Tokens {
		return nil, fmt.Errorf("llama.embed: %d tokens, 1 to %d fit", len(tokens), c.shape.Tokens)
	}
	if c.embed == nil {
		shape := c.shape
		shape.Slots, shape.Batch = 1, c.embedBatch()
		ctx, err := c.model.open(shape, true)
		if err != nil {
			return nil, err
		}
		c.embed = ctx
	}
	defer C.llama_memory_clear(C.llama_get_memory(c.embed), false)
	sum := make([]float64, c.width)
	for done := 0; done < len(tokens); {
		part := tokens[done:min(done+c.embedBatch(), len(tokens))]
		batch := make([]engine.Token, len(part))
		for i, id := range part {
			batch[i] = engine.Token{ID: id, Pos: int32(done + i), Logits: true}
		}
		c.fill(batch)
		if err := verdict(C.llama_decode(c.embed, c.batch)); err != nil {
			return nil, err
		}
		for i := range part {
			p := C.llama_get_embeddings_ith(c.embed, C.int32_t(i))
			if p == nil {
				return nil, errors.New("llama.embed: no embedding came back")
			}
			for k, x := range unsafe.Slice((*float32)(unsafe.Pointer(p)), c.width) {
				sum[k] += float64(x)
			}
		}
		done += len(part)
	}
	return unit(sum), nil
}

func (c *Context) embedBatch() int { return min(c.shape.Batch, c.shape.Tokens) }

// unit scales a vector to length 1; the mean's divisor falls away in it.
func unit(v []float64) []float32 {
	var square float64
	for _, x := range v {
		square += x * x
	}
	out := make([]float32, len(v))
	if square > 0 {
		for i, x := range v {
			out[i] = float32(x / math.Sqrt(square))
		}
	}
	return out
}
