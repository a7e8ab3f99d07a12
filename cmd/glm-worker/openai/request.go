package openai

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/chat"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/sample"
)

// Limits of one request.
const (
	messagesMax    = 1024
	stopsMax       = 16  // OpenAI allows 4
	stopBytesMax   = 256 // text of that length is held back while it may become a stop text
	logProbsMax    = 20
	temperatureMax = 2.0
	embedInputsMax = 256
)

// common is what chat and plain completions share.
type common struct {
	Model         string   `json:"model"`
	MaxTokens     *int     `json:"max_tokens"` // default: what the context has left
	Temperature   *float64 `json:"temperature"`
	TopP          *float64 `json:"top_p"`
	TopK          *int     `json:"top_k"` // with min_p as in vLLM
	MinP          *float64 `json:"min_p"`
	Seed          *int64   `json:"seed"` // default: another one each time
	Stop          texts    `json:"stop"`
	N             *int     `json:"n"`
	Stream        bool     `json:"stream"`
	StreamOptions *struct {
		IncludeUsage       bool `json:"include_usage"`
		IncludeObfuscation bool `json:"include_obfuscation"` // padding against eavesdroppers; there are none on a unix socket
	} `json:"stream_options"`

	// Refused unless they ask for nothing.
	PresencePenalty  float64         `json:"presence_penalty"`
	FrequencyPenalty float64         `json:"frequency_penalty"`
	LogitBias        json.RawMessage `json:"logit_bias"`

	// Of no effect on an answer: accepted.
	User     json.RawMessage `json:"user"`
	Metadata json.RawMessage `json:"metadata"`
	Store    json.RawMessage `json:"store"`
}

type chatRequest struct {
	common
	Messages            []message       `json:"messages"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	ResponseFormat      *responseFormat `json:"response_format"`
	LogProbs            bool            `json:"logprobs"`
	TopLogProbs         *int            `json:"top_logprobs"`

	// Refused unless they ask for nothing.
	Tools           json.RawMessage `json:"tools"`
	ToolChoice      json.RawMessage `json:"tool_choice"`
	Functions       json.RawMessage `json:"functions"`
	FunctionCall    json.RawMessage `json:"function_call"`
	Modalities      json.RawMessage `json:"modalities"`
	Audio           json.RawMessage `json:"audio"`
	Prediction      json.RawMessage `json:"prediction"`
	ReasoningEffort json.RawMessage `json:"reasoning_effort"`

	// Of no effect on an answer: accepted.
	ParallelToolCalls json.RawMessage `json:"parallel_tool_calls"`
	ServiceTier       json.RawMessage `json:"service_tier"`
	SafetyIdentifier  json.RawMessage `json:"safety_identifier"`
	PromptCacheKey    json.RawMessage `json:"prompt_cache_key"`
}

type completionRequest struct {
	common
	Prompt   texts           `json:"prompt"`
	LogProbs json.RawMessage `json:"logprobs"`
	Echo     bool            `json:"echo"`
	Suffix   string          `json:"suffix"`
	BestOf   *int            `json:"best_of"`
}

type embeddingRequest struct {
	Model          string          `json:"model"`
	Input          texts           `json:"input"`
	EncodingFormat string          `json:"encoding_format"`
	Dimensions     *int            `json:"dimensions"`
	User           json.RawMessage `json:"user"`
}

type tokenizeRequest struct {
	Model    string    `json:"model"`
	Prompt   string    `json:"prompt"`
	Messages []message `json:"messages"`
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema *struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Schema      json.RawMessage `json:"schema"`
		Strict      *bool           `json:"strict"` // it always is
	} `json:"json_schema"`
}

// texts is a string or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		if string(b) != "null" {
			*t = texts{one}
		}
		return nil
	}
	var many []string
	if json.Unmarshal(b, &many) != nil {
		return invalid("", "a text or a list of texts is expected: token numbers are not supported")
	}
	*t = many
	return nil
}

// message is a turn whose content is a string or a list of text parts.
type message struct {
	Role    string
	Content string
}

func (m *message) UnmarshalJSON(b []byte) error {
	var raw struct {
		Role      string          `json:"role"`
		Content   json.RawMessage `json:"content"`
		Name      string          `json:"name"`
		Refusal   json.RawMessage `json:"refusal"`
		ToolCalls json.RawMessage `json:"tool_calls"`
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return badJSON(err)
	}
	if asks(raw.ToolCalls) {
		return unsupported("messages.tool_calls", "write the result into a message")
	}
	m.Role = raw.Role
	if m.Role == "developer" { // OpenAI's newer name
		m.Role = "system"
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	switch {
	case json.Unmarshal(raw.Content, &m.Content) == nil:
		return nil
	case json.Unmarshal(raw.Content, &parts) != nil:
		return invalid("messages.content", "content must be a string or a list of text parts")
	}
	for _, p := range parts {
		if p.Type != "text" {
			return unsupported("messages.content.type="+p.Type, "this model reads text only")
		}
		m.Content += p.Text
	}
	return nil
}

// asks says whether a field that should ask for nothing asks for something.
func asks(field json.RawMessage) bool {
	switch strings.TrimSpace(string(field)) {
	case "", "null", "[]", "{}", `"none"`, `"auto"`, `["text"]`:
		return false
	}
	return true
}

// check refuses what no answer can honour.
func (c *common) check() error {
	switch {
	case c.N != nil && *c.N != 1:
		return unsupported("n", "send the request n times")
	case c.PresencePenalty != 0:
		return unsupported("presence_penalty", "leave it at 0")
	case c.FrequencyPenalty != 0:
		return unsupported("frequency_penalty", "leave it at 0")
	case asks(c.LogitBias):
		return unsupported("logit_bias", "say in response_format what the answer may be")
	case c.MaxTokens != nil && *c.MaxTokens < 1:
		return invalid("max_tokens", "max_tokens is %d: at least 1", *c.MaxTokens)
	case c.StreamOptions != nil && !c.Stream:
		return invalid("stream_options", "stream_options needs stream=true")
	case len(c.Stop) > stopsMax:
		return invalid("stop", "%d stop texts: at most %d", len(c.Stop), stopsMax)
	}
	for _, s := range c.Stop {
		if s == "" || len(s) > stopBytesMax || !utf8.ValidString(s) {
			return invalid("stop", "a stop text has 1 to %d bytes", stopBytesMax)
		}
	}
	return nil
}

// params reads how to sample. The default temperature is OpenAI's, 1; 0 is greedy.
func (c *common) params() (sample.Params, error) {
	p := sample.Params{Temperature: 1, TopP: 1, Seed: rand.Uint64()}
	inside := func(name string, value *float64, low, high float64, into *float64) error {
		if value == nil {
			return nil
		}
		if *into = *value; *value < low || *value > high {
			return invalid(name, "%s is %g: it goes from %g to %g", name, *value, low, high)
		}
		return nil
	}
	if err := inside("temperature", c.Temperature, 0, temperatureMax, &p.Temperature); err != nil {
		return p, err
	}
	if err := inside("top_p", c.TopP, 0, 1, &p.TopP); err != nil {
		return p, err
	}
	if err := inside("min_p", c.MinP, 0, 1, &p.MinP); err != nil {
		return p, err
	}
	if p.TopP == 0 { // as little as possible is the likeliest token
		p.TopK, p.TopP = 1, 1
	}
	if c.TopK != nil && *c.TopK > 0 && p.TopK == 0 { // vLLM writes -1 for all
		p.TopK = *c.TopK
	}
	if c.Seed != nil {
		p.Seed = uint64(*c.Seed)
	}
	return p, nil
}

func (r *chatRequest) check() error {
	refuse := []struct {
		name   string
		field  json.RawMessage
		remedy string
	}{
		{"tools", r.Tools, "ask for JSON with response_format instead"},
		{"tool_choice", r.ToolChoice, "ask for JSON with response_format instead"},
		{"functions", r.Functions, "ask for JSON with response_format instead"},
		{"function_call", r.FunctionCall, "ask for JSON with response_format instead"},
		{"modalities", r.Modalities, "this model writes text only"},
		{"audio", r.Audio, "this model writes text only"},
		{"prediction", r.Prediction, "leave it out"},
		{"reasoning_effort", r.ReasoningEffort, "this worker answers without thinking aloud; leave it out or say none"},
	}
	for _, f := range refuse {
		if asks(f.field) {
			return unsupported(f.name, f.remedy)
		}
	}
	switch {
	case len(r.Messages) == 0:
		return invalid("messages", "messages is empty: send at least one")
	case len(r.Messages) > messagesMax:
		return invalid("messages", "%d messages: at most %d", len(r.Messages), messagesMax)
	case r.TopLogProbs != nil && !r.LogProbs:
		return invalid("top_logprobs", "top_logprobs needs logprobs=true")
	case r.TopLogProbs != nil && (*r.TopLogProbs < 0 || *r.TopLogProbs > logProbsMax):
		return invalid("top_logprobs", "top_logprobs is %d: it goes from 0 to %d", *r.TopLogProbs, logProbsMax)
	}
	if r.MaxCompletionTokens != nil { // the newer name wins
		r.MaxTokens = r.MaxCompletionTokens
	}
	return r.common.check()
}

func (r *completionRequest) check() error {
	switch {
	case len(r.Prompt) != 1:
		return invalid("prompt", "%d prompts: send one a request", len(r.Prompt))
	case r.Echo:
		return unsupported("echo", "put the prompt in front yourself")
	case r.Suffix != "":
		return unsupported("suffix", "this model only writes onwards")
	case r.BestOf != nil && *r.BestOf != 1:
		return unsupported("best_of", "leave it out")
	case asks(r.LogProbs):
		return unsupported("logprobs", "use chat completions, which have them")
	}
	return r.common.check()
}

func (r *embeddingRequest) check() error {
	switch {
	case len(r.Input) == 0 || len(r.Input) > embedInputsMax:
		return invalid("input", "%d inputs: 1 to %d at a time", len(r.Input), embedInputsMax)
	case r.Dimensions != nil:
		return unsupported("dimensions", "leave it out: vectors have the model's own width")
	case r.EncodingFormat != "" && r.EncodingFormat != "float" && r.EncodingFormat != "base64":
		return invalid("encoding_format", "encoding_format is %q: float or base64", r.EncodingFormat)
	}
	return nil
}

func turns(messages []message) ([]chat.Message, error) {
	out := make([]chat.Message, len(messages))
	for i, m := range messages {
		switch m.Role {
		case "system", "user", "assistant":
			out[i] = chat.Message{Role: m.Role, Text: m.Content}
		default:
			return nil, invalid("messages.role", "the role of message %d is %q: system, user or assistant", i, m.Role)
		}
	}
	return out, nil
}
