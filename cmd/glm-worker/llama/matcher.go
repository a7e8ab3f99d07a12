package llama

// #include <stdlib.h>
// #include "abi.h"
import "C"

import (
	"errors"
	"math"
	"strings"
	"unsafe"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// Matcher follows one answer through a grammar. One owner at a time; Close frees it.
type Matcher struct {
	sampler *C.struct_llama_sampler
	one     *C.llama_token_data_array // a candidate alone, in C memory: cgo forbids C to keep Go pointers in structs
	all     *C.llama_token_data_array // the whole vocabulary, made when first needed
	size    int
}

// NewGrammar parses a GBNF grammar whose start is the rule "root".
func (m *Model) NewGrammar(gbnf string) (engine.Matcher, error) {
	if strings.TrimSpace(gbnf) == "" || strings.ContainsRune(gbnf, 0) {
		return nil, errors.New("llama.grammar: empty, or with a zero byte")
	}
	text, root := C.CString(gbnf), C.CString("root")
	defer C.free(unsafe.Pointer(text))
	defer C.free(unsafe.Pointer(root))
	sampler := C.llama_sampler_init_grammar(m.vocab, text, root)
	if sampler == nil {
		return nil, errors.New("llama.grammar: the grammar does not parse or is left recursive")
	}
	return &Matcher{sampler: sampler, one: candidates(1), size: m.size}, nil
}

func candidates(n int) *C.llama_token_data_array {
	a := (*C.llama_token_data_array)(C.calloc(1, C.size_t(unsafe.Sizeof(C.llama_token_data_array{}))))
	a.data = (*C.llama_token_data)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(C.llama_token_data{}))))
	a.size = C.size_t(n)
	return a
}

// Allows says whether the answer may go on with this token. For an end token: whether it may end here.
func (g *Matcher) Allows(token int32) bool {
	*g.one.data = C.llama_token_data{id: C.int32_t(token)}
	g.one.size, g.one.selected = 1, -1
	C.llama_sampler_apply(g.sampler, g.one)
	return !math.IsInf(float64(g.one.data.logit), -1)
}

// Mask puts every score whose token is not allowed to minus infinity. It walks the whole vocabulary, so callers try
// Allows on their choice first.
func (g *Matcher) Mask(logits []float32) {
	if g.all == nil {
		g.all = candidates(g.size)
	}
	g.all.size, g.all.selected, g.all.sorted = C.size_t(g.size), -1, false
	data := unsafe.Slice(g.all.data, g.size)
	for i := range data {
		data[i] = C.llama_token_data{id: C.int32_t(i), logit: C.float(logits[i])}
	}
	C.llama_sampler_apply(g.sampler, g.all)
	for i := range data {
		logits[i] = float32(data[i].logit)
	}
}

// Accept moves on by a token that Allows said yes to. Any other makes llama.cpp abort.
func (g *Matcher) Accept(token int32) { C.llama_sampler_accept(g.sampler, C.int32_t(token)) }

// Close frees the matcher.
func (g *Matcher) Close() {
	if g.sampler == nil {
		return
	}
	C.llama_sampler_free(g.sampler)
	for _, a := range []*C.llama_token_data_array{g.one, g.all} {
		if a != nil {
			C.free(unsafe.Pointer(a.data))
			C.free(unsafe.Pointer(a))
		}
	}
	g.sampler = nil
}

// TypeSize is how ggml stores a tensor type: values in a block, bytes of a block. For gguf's own table to be tested by.
func TypeSize(kind int) (values, bytes int64) {
	return int64(C.ggml_blck_size(C.int(kind))), int64(C.ggml_type_size(C.int(kind)))
}
