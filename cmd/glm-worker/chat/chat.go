package chat

import (
	"fmt"
	"slices"
	"strings"
)

// Tokenizer is what a template needs of a vocabulary.
type Tokenizer interface {
	// Tokenize splits text with special tokens off.
	Tokenize(text string) []int32
	// Special finds the token that is spelled like this.
	Special(text string) (int32, bool)
}

// Message is one turn.
type Message struct {
	Role string // system, user or assistant
	Text string
}

// Architectures are the values of general.architecture that this template fits.
var Architectures = []string{"chatglm", "glm4", "glm4moe"}

// RoleTokens open turns; in an answer each of them ends it.
var RoleTokens = []string{"<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"}

// roles are those a request may use.
var roles = []string{"system", "user", "assistant"}

// Template turns conversations into tokens for one model.
type Template struct {
	vocab    Tokenizer
	begin    []int32            // [gMASK]<sop>
	role     map[string][]int32 // the token that opens a turn
	nothink  []int32            // closes a user turn; empty where the model does not think
	thought  []int32            // opens an answer: "<think></think>"
	reserved []reserved         // everything that text must not turn into
}

type reserved struct {
	id   int32
	text string
}

// Supports refuses a model that is no GLM.
func Supports(architecture string) error {
	if !slices.Contains(Architectures, architecture) {
		return fmt.Errorf("the model's general.architecture is %q: this worker runs GLM models only (%s)",
			architecture, strings.Join(Architectures, ", "))
	}
	return nil
}

// New looks the template's tokens up. It refuses a model that is no GLM, or that lacks one of them.
func New(architecture string, vocab Tokenizer) (*Template, error) {
	if err := Supports(architecture); err != nil {
		return nil, fmt.Errorf("chat.new: %w", err)
	}
	t := &Template{vocab: vocab, role: map[string][]int32{}}
	find := func(spellings ...string) ([]int32, error) {
		for _, text := range spellings {
			if id, ok := vocab.Special(text); ok {
				t.reserved = append(t.reserved, reserved{id, text})
				return []int32{id}, nil
			}
		}
		return nil, fmt.Errorf("chat.new: the vocabulary has no token %s: this file is not a GLM chat model, or was converted without its special tokens",
			strings.Join(spellings, " or "))
	}
	mask, err := find("[gMASK]")
	if err != nil {
		return nil, err
	}
	sop, err := find("<sop>", "sop") // ChatGLM 3 spells it bare
	if err != nil {
		return nil, err
	}
	t.begin = append(mask, sop...)
	for _, role := range roles {
		if t.role[role], err = find("<|" + role + "|>"); err != nil {
			return nil, err
		}
	}
	for _, text := range []string{"<|observation|>", "<|endoftext|>", "<eop>", "[MASK]", "[sMASK]"} {
		_, _ = find(text) // not every model has them
	}
	if architecture == "glm4moe" {
		t.nothink, t.thought = t.either("/nothink"), append(t.either("<think>"), t.either("</think>")...)
	}
	return t, nil
}

// either is a token by name or, where the vocabulary has none, the text's tokens.
func (t *Template) either(text string) []int32 {
	if id, ok := t.vocab.Special(text); ok {
		t.reserved = append(t.reserved, reserved{id, text})
		return []int32{id}
	}
	return t.vocab.Tokenize(text)
}

// Encode writes the conversation and opens the answer.
func (t *Template) Encode(messages []Message) ([]int32, error) {
	if len(messages) == 0 {
		return nil, fmt.Errorf("chat.encode: no messages")
	}
	out := slices.Clone(t.begin)
	for _, m := range messages {
		role, ok := t.role[m.Role]
		if !ok {
			return nil, fmt.Errorf("chat.encode: role %q: only %s are known", m.Role, strings.Join(roles, ", "))
		}
		out = append(out, role...)
		switch {
		case m.Role == "assistant" && t.thought != nil:
			out = append(append(out, t.vocab.Tokenize("\n")...), t.thought...)
			out = append(out, t.Text("\n"+m.Text)...)
		default:
			out = append(out, t.Text("\n"+m.Text)...)
		}
		if m.Role == "user" {
			out = append(out, t.nothink...)
		}
	}
	out = append(out, t.role["assistant"]...)
	out = append(out, t.vocab.Tokenize("\n")...)
	if t.thought != nil {
		out = append(append(out, t.thought...), t.vocab.Tokenize("\n")...)
	}
	return out, nil
}

// Text tokenizes plain text. Some files mark role tokens in a way that a tokenizer finds them even with special tokens
// off; then the text is cut inside the spelling, where no tokenizer can join it again.
func (t *Template) Text(text string) []int32 {
	tokens := t.vocab.Tokenize(text)
	if !t.intrudes(tokens) {
		return tokens
	}
	tokens = tokens[:0]
	for text != "" {
		at := len(text)
		for _, r := range t.reserved {
			if i := strings.Index(text, r.text); i >= 0 {
				at = min(at, i+1) // after its first character, which is one byte in all of them
			}
		}
		tokens = append(tokens, t.vocab.Tokenize(text[:at])...)
		text = text[at:]
	}
	return slices.DeleteFunc(tokens, func(id int32) bool { return t.intrudes([]int32{id}) })
}

func (t *Template) intrudes(tokens []int32) bool {
	return slices.ContainsFunc(tokens, func(id int32) bool {
		return slices.ContainsFunc(t.reserved, func(r reserved) bool { return r.id == id })
	})
}

// Begin is what every prompt starts with, for prompts that are no conversation.
func (t *Template) Begin() []int32 { return slices.Clone(t.begin) }
