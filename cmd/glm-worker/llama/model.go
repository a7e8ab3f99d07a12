package llama

// #include <stdlib.h>
// #include "abi.h"
import "C"

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	// Compiled in for their C and C++; their Go parts are not used.
	_ "github.com/ollama/ollama/llama/llama.cpp/src"
	_ "github.com/ollama/ollama/ml/backend/ggml/ggml/src"

	_ "github.com/open-autoglm/autoglm/cmd/glm-worker/cpulevel" // before any C++ runs
	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// Model is a loaded model file. Its methods may be called from any goroutine until Close.
type Model struct {
	model *C.struct_llama_model
	vocab *C.struct_llama_vocab
	size  int // tokens in the vocabulary
	eog   int32
}

// Load maps a model file into memory. Check the file with gguf.Check first: llama.cpp aborts on some broken ones.
func Load(path string) (*Model, error) {
	start()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	params := C.llama_model_default_params()
	params.n_gpu_layers = 0 // this build has no GPU code
	// Repacked weights use other kernels for one row than for several, so an answer would depend on its neighbours.
	params.use_extra_bufts = false
	model := C.llama_model_load_from_file(name, params)
	if model == nil {
		return nil, fmt.Errorf("llama.load %s: %s", path, reason())
	}
	m := &Model{model: model, vocab: C.llama_model_get_vocab(model), eog: -1}
	m.size = int(C.llama_vocab_n_tokens(m.vocab))
	for id := range int32(m.size) {
		if C.llama_vocab_is_eog(m.vocab, C.int32_t(id)) {
			m.eog = id
			break
		}
	}
	if m.eog < 0 {
		m.Close()
		return nil, fmt.Errorf("llama.load %s: the vocabulary has no end token, so no answer would end: convert the model again", path)
	}
	return m, nil
}

// Close frees the model, after its contexts and matchers.
func (m *Model) Close() {
	if m.model != nil {
		C.llama_model_free(m.model)
		m.model = nil
	}
}

// Meta reads one value of the file's metadata as text, or "".
func (m *Model) Meta(key string) string {
	name := C.CString(key)
	defer C.free(unsafe.Pointer(name))
	var buf [1024]byte
	n := C.llama_model_meta_val_str(m.model, name, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)))
	return string(buf[:max(0, min(int(n), len(buf)-1))])
}

// Describe names architecture, size and quantization, for the log.
func (m *Model) Describe() string {
	var buf [256]byte
	n := C.llama_model_desc(m.model, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)))
	return string(buf[:max(0, min(int(n), len(buf)-1))])
}

// Params counts the model's parameters.
func (m *Model) Params() uint64 { return uint64(C.llama_model_n_params(m.model)) }

// ContextTrained is the context length, in tokens, that the model was trained for.
func (m *Model) ContextTrained() int { return int(C.llama_model_n_ctx_train(m.model)) }

// Vocab copies the vocabulary to Go, so that the decode loop asks C++ for nothing but logits. extraEnds are texts of
// tokens that end an answer besides those the file marks: a role token opens someone else's turn.
func (m *Model) Vocab(extraEnds ...string) engine.Vocab {
	v := engine.Vocab{Pieces: make([]string, m.size), Kinds: make([]engine.Kind, m.size), End: m.eog}
	const special = C.LLAMA_TOKEN_ATTR_CONTROL | C.LLAMA_TOKEN_ATTR_UNUSED | C.LLAMA_TOKEN_ATTR_UNKNOWN
	for id := range int32(m.size) {
		switch {
		case bool(C.llama_vocab_is_eog(m.vocab, C.int32_t(id))):
			v.Kinds[id] = engine.Ends
		case C.llama_vocab_get_attr(m.vocab, C.int32_t(id))&special != 0:
			v.Kinds[id] = engine.Banned
		default:
			v.Pieces[id] = m.piece(id)
		}
	}
	for _, text := range extraEnds {
		if id, ok := m.Special(text); ok {
			v.Kinds[id], v.Pieces[id] = engine.Ends, ""
		}
	}
	return v
}

// piece is the bytes that a token stands for; they need not be whole characters.
func (m *Model) piece(id int32) string {
	buf := make([]byte, 64)
	for {
		n := C.llama_token_to_piece(m.vocab, C.int32_t(id), (*C.char)(unsafe.Pointer(&buf[0])), C.int32_t(len(buf)), 0, false)
		if n >= 0 {
			return string(buf[:n])
		}
		buf = make([]byte, -n)
	}
}

// Special finds a token by its exact text in the vocabulary, as in "<|user|>".
func (m *Model) Special(text string) (int32, bool) {
	name := C.CString(text)
	defer C.free(unsafe.Pointer(name))
	var id [2]C.int32_t
	n := C.llama_tokenize(m.vocab, name, C.int32_t(len(text)), &id[0], 2, false, true)
	if n != 1 || C.GoString(C.llama_vocab_get_text(m.vocab, id[0])) != text {
		return 0, false
	}
	return int32(id[0]), true
}

// Tokenize splits text into tokens. No control token comes out of it, whatever the text spells.
func (m *Model) Tokenize(text string) []int32 {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if text == "" || len(text) > math.MaxInt32/2 {
		return nil
	}
	c := C.CString(text)
	defer C.free(unsafe.Pointer(c))
	out := make([]int32, len(text)+2) // a token takes at least one byte; some vocabularies put a space before
	n := C.llama_tokenize(m.vocab, c, C.int32_t(len(text)), (*C.int32_t)(unsafe.Pointer(&out[0])), C.int32_t(len(out)), false, false)
	return out[:max(0, int(n))]
}
