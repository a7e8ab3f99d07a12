package openai

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"net/http"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// embeddings answers with one vector a text: the mean over its tokens, of length 1.
func (s *Server) embeddings(m *Model, w http.ResponseWriter, r *http.Request) error {
	var q embeddingRequest
	if err := s.read(w, r, &q); err != nil {
		return err
	}
	if err := errors.Join(m.serves(q.Model), q.check()); err != nil {
		return err
	}
	data, total := make([]any, len(q.Input)), 0
	for i, text := range q.Input {
		if text == "" {
			return invalid("input", "input %d is empty", i)
		}
		if err := m.fits(len(text)); err != nil {
			return err
		}
		tokens := m.Chat.Text(text)
		if len(tokens) > m.Engine.Context() {
			return &engine.TooLong{Context: m.Engine.Context(), Prompt: len(tokens)}
		}
		vector, err := m.Engine.Embed(r.Context(), tokens)
		if err != nil {
			return err
		}
		total += len(tokens)
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": encoded(vector, q.EncodingFormat)}
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "model": m.Name, "data": data,
		"usage": map[string]any{"prompt_tokens": total, "total_tokens": total}})
	return nil
}

// encoded is the vector as OpenAI's clients want it: many ask for base64 of little-endian floats without telling.
func encoded(vector []float32, format string) any {
	if format != "base64" {
		return vector
	}
	b := make([]byte, 0, 4*len(vector))
	for _, x := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(b)
}
