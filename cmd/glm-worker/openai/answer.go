package openai

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/sample"
)

// form is how one route writes answers: whole, and in pieces.
type form struct {
	object, part string // names of the whole and of a piece
	prefix       string // of ids
	whole        func(m *Model, a engine.Answer) map[string]any
	piece        func(m *Model, a engine.Answer, first bool) map[string]any
}

var chatForm = form{
	object: "chat.completion", part: "chat.completion.chunk", prefix: "chatcmpl-",
	whole: func(m *Model, a engine.Answer) map[string]any {
		return map[string]any{"index": 0, "message": map[string]any{"role": "assistant", "content": a.Text, "refusal": nil},
			"logprobs": m.logProbs(a), "finish_reason": a.Finish}
	},
	piece: func(m *Model, a engine.Answer, first bool) map[string]any {
		delta := map[string]any{}
		if first {
			delta["role"] = "assistant"
		}
		if a.Text != "" || first {
			delta["content"] = a.Text
		}
		return map[string]any{"index": 0, "delta": delta, "logprobs": m.logProbs(a), "finish_reason": finish(a)}
	},
}

var plainForm = form{
	object: "text_completion", part: "text_completion", prefix: "cmpl-",
	whole: func(m *Model, a engine.Answer) map[string]any {
		return map[string]any{"index": 0, "text": a.Text, "logprobs": nil, "finish_reason": a.Finish}
	},
	piece: func(m *Model, a engine.Answer, _ bool) map[string]any {
		return map[string]any{"index": 0, "text": a.Text, "logprobs": nil, "finish_reason": finish(a)}
	},
}

func (s *Server) chat(m *Model, w http.ResponseWriter, r *http.Request) error {
	var q chatRequest
	if err := s.read(w, r, &q); err != nil {
		return err
	}
	if err := errors.Join(m.serves(q.Model), q.check()); err != nil {
		return err
	}
	messages, err := turns(q.Messages)
	if err != nil {
		return err
	}
	var size int
	for _, t := range messages {
		size += len(t.Text)
	}
	if err := m.fits(size); err != nil {
		return err
	}
	prompt, err := m.Chat.Encode(messages)
	if err != nil {
		return invalid("messages", "%v", err)
	}
	e, err := m.request(&q.common, prompt)
	if err != nil {
		return err
	}
	if q.LogProbs {
		e.LogProbs = 0
		if q.TopLogProbs != nil {
			e.LogProbs = *q.TopLogProbs
		}
	}
	if e.Matcher, err = s.schemas.matcher(m, q.ResponseFormat); err != nil {
		return err
	}
	return answer(m, w, r, e, &q.common, chatForm)
}

func (s *Server) completions(m *Model, w http.ResponseWriter, r *http.Request) error {
	var q completionRequest
	if err := s.read(w, r, &q); err != nil {
		return err
	}
	if err := errors.Join(m.serves(q.Model), q.check()); err != nil {
		return err
	}
	if err := m.fits(len(q.Prompt[0])); err != nil {
		return err
	}
	e, err := m.request(&q.common, append(m.Chat.Begin(), m.Chat.Text(q.Prompt[0])...))
	if err != nil {
		return err
	}
	return answer(m, w, r, e, &q.common, plainForm)
}

// fits refuses a text that cannot fit whatever its tokens, before time is spent on tokenizing it.
func (m *Model) fits(bytes int) error {
	if least := bytes / m.longestPiece(); least > m.Engine.Context() {
		return &engine.TooLong{Context: m.Engine.Context(), Prompt: least, Answer: 1}
	}
	return nil
}

func (m *Model) longestPiece() int {
	m.once.Do(func() {
		m.longest = 1
		for _, p := range m.Engine.Vocab().Pieces {
			m.longest = max(m.longest, len(p))
		}
	})
	return m.longest
}

// request makes the engine's request; without max_tokens an answer may take what the context has left.
func (m *Model) request(c *common, prompt []int32) (engine.Request, error) {
	params, err := c.params()
	if err != nil {
		return engine.Request{}, err
	}
	limit := max(1, m.Engine.Context()-len(prompt))
	if c.MaxTokens != nil {
		limit = *c.MaxTokens
	}
	return engine.Request{Prompt: prompt, TokensMax: limit, Params: params, Stops: c.Stop, LogProbs: -1, Live: c.Stream}, nil
}

// answer submits a request and writes what comes, at once or as it comes.
func answer(m *Model, w http.ResponseWriter, r *http.Request, e engine.Request, c *common, f form) error {
	stream, err := m.Engine.Submit(r.Context(), e)
	if err != nil {
		return err
	}
	head := header{id: f.prefix + newID(), created: time.Now().Unix(), model: m.Name}
	if c.Stream {
		usageToo := c.StreamOptions != nil && c.StreamOptions.IncludeUsage
		pour(r.Context(), w, m, stream, head, f, usageToo)
		return nil
	}
	a, err := stream.Wait(r.Context())
	if err != nil {
		return err
	}
	body := head.body(f.object)
	body["choices"], body["usage"] = []any{f.whole(m, a)}, usage(a)
	writeJSON(w, http.StatusOK, body)
	return nil
}

// header is what all pieces of one answer carry.
type header struct {
	id      string
	created int64
	model   string
}

func (h header) body(object string) map[string]any {
	return map[string]any{"id": h.id, "object": object, "created": h.created, "model": h.model, "system_fingerprint": nil}
}

// pour writes server-sent events. A client that takes too long for one of them is given up, which frees its slot.
func pour(ctx context.Context, w http.ResponseWriter, m *Model, stream *engine.Stream, h header, f form, usageToo bool) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	send := func(body any) bool {
		b, err := json.Marshal(body)
		if err != nil {
			return false
		}
		_, err = w.Write(append(append([]byte("data: "), b...), "\n\n"...))
		return err == nil && control.Flush() == nil
	}
	var last engine.Answer
	for first := true; ; first = false {
		a, err := stream.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			send(map[string]any{"error": faultOf(err)}) // too late for a status
			return
		}
		last = a
		body := h.body(f.part)
		body["choices"] = []any{f.piece(m, a, first)}
		if usageToo {
			body["usage"] = nil
		}
		if !send(body) {
			return // the handler's return cancels ctx, and so the answer
		}
	}
	if usageToo {
		body := h.body(f.part)
		body["choices"], body["usage"] = []any{}, usage(last)
		if !send(body) {
			return
		}
	}
	if _, err := io.WriteString(w, "data: [DONE]\n\n"); err == nil {
		_ = control.Flush()
	}
}

func finish(a engine.Answer) any {
	if a.Finish == "" {
		return nil
	}
	return a.Finish
}

func usage(a engine.Answer) map[string]any {
	return map[string]any{
		"prompt_tokens": a.TokensPrompt, "completion_tokens": a.Tokens, "total_tokens": a.TokensPrompt + a.Tokens,
		"prompt_tokens_details": map[string]any{"cached_tokens": a.TokensCached},
	}
}

func (m *Model) logProbs(a engine.Answer) any {
	if a.LogProbs == nil {
		return nil
	}
	entry := func(s sample.Scored) map[string]any {
		piece := m.Engine.Vocab().Pieces[s.Token]
		bytes := make([]int, len(piece)) // as numbers: a Go []byte would become base64
		for i := range len(piece) {
			bytes[i] = int(piece[i])
		}
		return map[string]any{"token": strings.ToValidUTF8(piece, "\uFFFD"), "logprob": max(s.Log, -9999), "bytes": bytes}
	}
	content := make([]any, len(a.LogProbs))
	for i, lp := range a.LogProbs {
		top := make([]any, len(lp.Likeliest))
		for k, s := range lp.Likeliest {
			top[k] = entry(s)
		}
		e := entry(lp.Scored)
		e["top_logprobs"] = top
		content[i] = e
	}
	return map[string]any{"content": content, "refusal": nil}
}

func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}
