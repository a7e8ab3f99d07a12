package infer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// chatRequest is what goes out. Only what was asked for is sent: engines differ in what they
// know, and most refuse what they do not.
type chatRequest struct {
	Model       string          `json:"model,omitempty"`
	Messages    []Message       `json:"messages"`
	MaxTokens   int             `json:"max_tokens,omitempty"`
	Temperature *float64        `json:"temperature,omitempty"`
	TopP        *float64        `json:"top_p,omitempty"`
	Seed        *int64          `json:"seed,omitempty"`
	Stop        []string        `json:"stop,omitempty"`
	Format      json.RawMessage `json:"response_format,omitempty"`
}

// encodeChat writes r as JSON. < > & stay as they are: escaping them only costs bytes.
func encodeChat(buf *bytes.Buffer, r *Request) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return enc.Encode(&chatRequest{Model: r.Model, Messages: r.Messages, MaxTokens: r.MaxTokens, Temperature: r.Temperature,
		TopP: r.TopP, Seed: r.Seed, Stop: r.Stop, Format: r.Format})
}

// chatResponse is what of an answer is used.
type chatResponse struct {
	Model   string `json:"model"`
	Choices []struct {
		FinishReason string `json:"finish_reason"`
		Message      struct {
			Content   task.Content    `json:"content"`
			Refusal   string          `json:"refusal"`
			ToolCalls json.RawMessage `json:"tool_calls"`
		} `json:"message"`
	} `json:"choices"`
	Usage struct {
		Prompt int `json:"prompt_tokens"`
		Output int `json:"completion_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"` // some gateways send it with status 200
}

// decodeChat turns the body of a 200 into a Response, or says what it lacks. An empty text is an
// answer; a missing one is not.
func decodeChat(name string, r *Request, body []byte) (*Response, error) {
	var a chatResponse
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, notOurAPI(name, "chat completion", err)
	}
	if len(a.Error) > 0 && !bytes.Equal(a.Error, []byte("null")) {
		return nil, errorInAnswer(name, body)
	}
	if len(a.Choices) == 0 {
		return nil, fault.New(fault.Malformed, "infer.http", name, "the engine answered without choices")
	}
	c := &a.Choices[0]
	m := &c.Message
	switch {
	case m.Content.Set:
		if a.Model == "" {
			a.Model = r.Model
		}
		return &Response{Text: m.Content.Text, FinishReason: c.FinishReason, Model: a.Model,
			PromptTokens: max(0, a.Usage.Prompt), OutputTokens: max(0, a.Usage.Output)}, nil
	case m.Refusal != "":
		return nil, fault.New(fault.Refused, "infer.http", name, "the model refused: %s", cut(m.Refusal))
	case c.FinishReason == "content_filter":
		return nil, fault.New(fault.Refused, "infer.http", name, "the engine's content filter held the answer back")
	case c.FinishReason == "length":
		return nil, fault.New(fault.Invalid, "infer.http", name, "the answer reached its length before any content").
			WithRemedy("raise max_tokens")
	case len(m.ToolCalls) > 0:
		return nil, fault.New(fault.Invalid, "infer.http", name, "the model called a tool instead of answering")
	}
	return nil, fault.New(fault.Malformed, "infer.http", name, "the engine answered with content null (finish_reason %q)", c.FinishReason)
}

func decodeModels(name string, body []byte) ([]string, error) {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, notOurAPI(name, "list of models", err)
	}
	models := make([]string, 0, len(list.Data))
	for _, m := range list.Data {
		if m.ID != "" && !slices.Contains(models, m.ID) {
			models = append(models, m.ID)
		}
	}
	if len(models) == 0 {
		return nil, fault.New(fault.Unavailable, "infer.http", name, "the engine lists no models")
	}
	return models, nil
}

// The dialects of /tokenize, in the order in which they are tried.
const (
	tokenizeMessages int32 = iota // vLLM, SGLang, glm-worker: {"model", "messages"} → {"count"}
	tokenizeContent               // llama-server: {"content"} → {"tokens"}; it ignores messages, and so counts 0
	noTokenize
)

func encodeTokenize(buf *bytes.Buffer, model string, ms []Message, dialect int32) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if dialect == tokenizeMessages {
		return enc.Encode(chatRequest{Model: model, Messages: ms})
	}
	var text strings.Builder
	for _, m := range ms {
		text.WriteString(m.Content)
		text.WriteByte('\n')
	}
	return enc.Encode(map[string]string{"content": text.String()})
}

func decodeTokenize(name string, body []byte) (int, error) {
	var a struct {
		Count  int               `json:"count"`
		Tokens []json.RawMessage `json:"tokens"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, fault.New(fault.Malformed, "infer.tokenize", name, "the answer is no token count: %w", err)
	}
	if n := max(a.Count, len(a.Tokens)); n > 0 {
		return n, nil
	}
	return 0, fault.New(fault.Malformed, "infer.tokenize", name, "the answer has neither count nor tokens")
}

// notOurAPI is for a 200 that makes no sense: most often a base URL that leads to a web page. It
// is Unavailable, not Invalid, because no task is to blame for it.
func notOurAPI(name, what string, err error) error {
	return fault.New(fault.Unavailable, "infer.http", name, "the engine's answer is no %s: %w", what, err).
		WithRemedy("check that the engine's URL is the base of an OpenAI-compatible API")
}

// messageMax is how much of an engine's own words goes into an error, in bytes.
const messageMax = 500

// cut shortens text from outside, at a rune's edge, and keeps it on one line.
func cut(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) <= messageMax {
		return s
	}
	return strings.ToValidUTF8(s[:messageMax], "") + "…"
}

// engineError is the message and code that an error body holds.
type engineError struct{ message, code string }

// decodeError reads the shapes that engines use: OpenAI's {"error":{"message","code","type"}},
// {"error":"text"}, vLLM's older {"object":"error","message"}, FastAPI's and problem+json's
// {"detail"}. Anything else is quoted as it is.
func decodeError(body []byte) engineError {
	var doc struct {
		Error   any `json:"error"`
		Message any `json:"message"`
		Detail  any `json:"detail"`
		Code    any `json:"code"`
		Type    any `json:"type"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return engineError{message: cut(string(body[:min(len(body), 4*messageMax)]))}
	}
	e := engineError{code: text(doc.Code) + " " + text(doc.Type)}
	switch v := doc.Error.(type) {
	case map[string]any:
		e.message, e.code = text(v["message"]), text(v["code"])+" "+text(v["type"])
	case nil:
	default:
		e.message = text(v)
	}
	for _, other := range []any{doc.Message, doc.Detail} {
		if e.message == "" {
			e.message = text(other)
		}
	}
	e.message = cut(e.message)
	return e
}

// text makes a JSON value readable; nil is "".
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return fmt.Sprintf("%g", v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
