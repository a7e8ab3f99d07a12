package task

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of one task as submitted. A client gets the name of the limit it broke.
const (
	IDMax        = 256     // bytes of task_id
	PromptMax    = 1 << 20 // bytes of prompt, system, messages and steps together
	MessagesMax  = 256     // messages of one conversation
	StepsMax     = 64      // follow-up prompts
	URLMax       = 4096    // bytes
	MetadataMax  = 32      // pairs
	MetaKeyMax   = 64      // bytes
	MetaValueMax = 512     // bytes
	SchemaMax    = 64 << 10
	StopMax      = 4 // stop strings, as in the OpenAI API
	AttemptsMax  = 100
	PriorityMax  = 9 // 0 runs first
)

// Spec is a task as its client describes it. It is journaled once and never changes.
type Spec struct {
	ID          string            `json:"task_id,omitempty" doc:"Your id, unique for ever; a UUIDv7 is made when it is empty. Submitting the same id and body again is harmless." maxLength:"256"`
	Prompt      string            `json:"prompt,omitempty" doc:"One user message. Give prompt, messages or request."`
	Messages    []Message         `json:"messages,omitempty" doc:"A conversation, in the OpenAI chat format."`
	Endpoint    string            `json:"endpoint,omitempty" doc:"Where request goes, like \"/v1/embeddings\"; \"/v1/chat/completions\" when empty." enum:"/v1/chat/completions,/v1/completions,/v1/embeddings,/v1/responses"`
	Request     json.RawMessage   `json:"request,omitempty" doc:"A request's whole body as in the OpenAI API, in place of prompt and messages: sent to the engine as it is, but for its model's name."`
	System      string            `json:"system,omitempty" doc:"A system message put before prompt."`
	Steps       Steps             `json:"steps,omitempty" doc:"Follow-up questions, each a user message or an object with a template: asked after the answer to the one before. A crash resumes at the last finished step. With objects only, prompt may be left out."`
	Model       string            `json:"model,omitempty" doc:"Which model; the node's default when empty."`
	MaxTokens   int               `json:"max_tokens,omitempty" doc:"Most tokens of one answer; 0 leaves it to the engine." minimum:"0"`
	Temperature *float64          `json:"temperature,omitempty" doc:"0 (the default) is greedy." minimum:"0" maximum:"2"`
	TopP        *float64          `json:"top_p,omitempty" minimum:"0" maximum:"1"`
	Seed        *int64            `json:"seed,omitempty"`
	Stop        []string          `json:"stop,omitempty" maxItems:"4"`
	Format      json.RawMessage   `json:"response_format,omitempty" doc:"As in the OpenAI API: {\"type\":\"json_schema\",\"json_schema\":{\"name\":...,\"schema\":{...}}}, {\"type\":\"json_object\"} or {\"type\":\"text\"}."`
	Repair      *int              `json:"repair,omitempty" doc:"How often an answer that breaks response_format is asked for again with the error named, before that counts as a failed try; 1 when left out." minimum:"0" maximum:"5"`
	DataURL     string            `json:"data_url,omitempty" doc:"http(s) or file URL of text, CSV or JSON that is put after the prompt, or that steps use. Fetched at each attempt that needs it."`
	CallbackURL string            `json:"callback_url,omitempty" doc:"Gets a signed POST (Standard Webhooks) once the task is final."`
	Priority    *Priority         `json:"priority,omitempty" doc:"0 runs first, 9 last; high is 2, normal 5, which is the default, and low 8." minimum:"0" maximum:"9"`
	Timeout     Duration          `json:"timeout,omitempty" doc:"Of one attempt, like \"90s\"; the node's default when empty."`
	Deadline    *time.Time        `json:"deadline,omitempty" doc:"The task fails as expired when it is not final by then."`
	NotBefore   *time.Time        `json:"not_before,omitempty" doc:"The task waits until then."`
	Retry       *Retry            `json:"retry,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty" doc:"Yours: kept, returned, and usable as a filter."`
	RetryOf     string            `json:"retry_of,omitempty" doc:"The failed task that this one tries again; POST /v1/dead/retry sets it." maxLength:"256"`
}

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role" enum:"system,user,assistant"`
	Content string `json:"content"`
}

// Retry says how often and how slowly failed attempts are repeated.
type Retry struct {
	Attempts   int      `json:"attempts,omitempty" doc:"Tries in all; the node's default when 0." minimum:"0" maximum:"100"`
	BackoffMin Duration `json:"backoff_min,omitempty" doc:"Wait after the first failure; doubles each time, with jitter."`
	BackoffMax Duration `json:"backoff_max,omitempty" doc:"Longest wait."`
}

// PriorityOr returns the priority, or PriorityDefault when the client gave none.
func (s *Spec) PriorityOr() int {
	if s.Priority == nil {
		return PriorityDefault
	}
	return int(*s.Priority)
}

// Bytes is what the task keeps of its client's words, for quotas.
func (s *Spec) Bytes() int {
	n := len(s.Prompt) + len(s.System) + len(s.Request) + len(s.Format)
	for _, m := range s.Messages {
		n += len(m.Content)
	}
	for i := range s.Steps {
		n += s.Steps[i].size()
	}
	for k, v := range s.Metadata {
		n += len(k) + len(v)
	}
	return n
}

// PriorityDefault is the priority of a task that names none.
const PriorityDefault = 5

// Validate checks every bound that needs nothing but the Spec itself, and returns
// an Invalid or TooLarge fault that names the field and the remedy.
func (s *Spec) Validate() error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, "task.validate", field, format, args...)
	}
	if len(s.ID) > IDMax {
		return bad("task_id", "has %d bytes, the limit is %d", len(s.ID), IDMax)
	}
	if s.ID == "." || s.ID == ".." {
		return bad("task_id", "is %q, which no URL can name: use another", s.ID)
	}
	if !utf8.ValidString(s.ID) || strings.ContainsFunc(s.ID, func(r rune) bool { return r < ' ' || r == '/' || r == 0x7f }) {
		return bad("task_id", "must be UTF-8 text without control characters and without a slash")
	}
	if err := checkModelName(s.Model, "model"); err != nil {
		return err
	}
	if len(s.RetryOf) > IDMax || !utf8.ValidString(s.RetryOf) {
		return bad("retry_of", "must be UTF-8 text of at most %d bytes", IDMax)
	}
	switch {
	case !s.asksFirst() && (len(s.Steps) == 0 || s.Steps[0].plain()):
		return bad("prompt", "is missing: give prompt, messages or request, or steps that are objects")
	case len(s.Request) > 0 && (s.Prompt != "" || len(s.Messages) > 0):
		return bad("request", "excludes prompt and messages: give one of them")
	case s.Prompt != "" && len(s.Messages) > 0:
		return bad("prompt", "and messages exclude each other: give one of them")
	case s.System != "" && len(s.Messages) > 0:
		return bad("system", "goes with prompt only: with messages, make the first one role \"system\"")
	case len(s.Messages) > MessagesMax:
		return bad("messages", "has %d entries, the limit is %d", len(s.Messages), MessagesMax)
	case len(s.Steps) > StepsMax:
		return bad("steps", "has %d entries, the limit is %d", len(s.Steps), StepsMax)
	}
	size := len(s.Prompt) + len(s.System)
	for i, m := range s.Messages {
		if m.Role != "system" && m.Role != "user" && m.Role != "assistant" {
			return bad(fmt.Sprintf("messages[%d].role", i), "is %q: use system, user or assistant", m.Role)
		}
		size += len(m.Content)
	}
	for i := range s.Steps {
		size += s.Steps[i].size()
	}
	if size > PromptMax {
		return fault.New(fault.TooLarge, "task.validate", "prompt", "has %d bytes with system, messages and steps, the limit is %d: put long input behind data_url", size, PromptMax)
	}
	switch {
	case s.MaxTokens < 0:
		return bad("max_tokens", "is %d: it cannot be negative", s.MaxTokens)
	case s.Temperature != nil && !(*s.Temperature >= 0 && *s.Temperature <= 2):
		return bad("temperature", "is %g: use 0 to 2", *s.Temperature)
	case s.TopP != nil && !(*s.TopP > 0 && *s.TopP <= 1):
		return bad("top_p", "is %g: use more than 0 and at most 1", *s.TopP)
	case len(s.Stop) > StopMax:
		return bad("stop", "has %d strings, the limit is %d", len(s.Stop), StopMax)
	case s.Priority != nil && !s.Priority.Valid():
		return s.Priority.Check()
	case s.Timeout < 0:
		return bad("timeout", "is negative")
	case s.Deadline != nil && s.NotBefore != nil && !s.Deadline.After(*s.NotBefore):
		return bad("deadline", "is not after not_before: the task could never run")
	case len(s.Metadata) > MetadataMax:
		return bad("metadata", "has %d pairs, the limit is %d", len(s.Metadata), MetadataMax)
	case len(s.Format) > SchemaMax:
		return bad("response_format", "has %d bytes, the limit is %d", len(s.Format), SchemaMax)
	}
	for k, v := range s.Metadata {
		if k == "" || len(k) > MetaKeyMax || len(v) > MetaValueMax {
			return bad("metadata", "key %.20q: keys have 1 to %d bytes, values at most %d", k, MetaKeyMax, MetaValueMax)
		}
	}
	if r := s.Retry; r != nil {
		if r.Attempts < 0 || r.Attempts > AttemptsMax {
			return bad("retry.attempts", "is %d: use 1 to %d", r.Attempts, AttemptsMax)
		}
		if r.BackoffMin < 0 || r.BackoffMax < 0 || (r.BackoffMax > 0 && r.BackoffMin > r.BackoffMax) {
			return bad("retry.backoff_min", "must be positive and at most backoff_max")
		}
	}
	if err := checkURL(s.CallbackURL, "callback_url", "http", "https"); err != nil {
		return err
	}
	if err := checkURL(s.DataURL, "data_url", "http", "https", "file"); err != nil {
		return err
	}
	if err := validateFormat(s.Format); err != nil {
		return err
	}
	if err := s.validateSteps(); err != nil {
		return err
	}
	if err := s.validateRequest(); err != nil {
		return err
	}
	return s.checkTemplates()
}

// MayRead refuses a data_url that is not for the tenant of a task: the files of a node are the operator's.
func (s *Spec) MayRead(whose string) error {
	if scheme, _, _ := strings.Cut(s.DataURL, ":"); whose == tenant.Default || !strings.EqualFold(scheme, "file") {
		return nil
	}
	return fault.New(fault.Refused, "task.validate", "data_url", "names a file of the node, which is the operator's").WithRemedy("use an http(s) URL")
}

func checkURL(raw, field string, schemes ...string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || len(raw) > URLMax {
		return fault.New(fault.Invalid, "task.validate", field, "is no URL of at most %d bytes", URLMax)
	}
	for _, s := range schemes {
		if u.Scheme == s && (s == "file" || u.Host != "") {
			return nil
		}
	}
	return fault.New(fault.Invalid, "task.validate", field, "has scheme %q and host %q: use %s", u.Scheme, u.Host, strings.Join(schemes, ", "))
}

// Duration is a time.Duration written as "90s" or "1h30m"; a JSON number is seconds.
type Duration time.Duration

// MarshalText writes Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's notation.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: write it like \"90s\" or \"1h30m\"", b)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalJSON also takes a number of seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var sec float64
	if json.Unmarshal(b, &sec) == nil {
		if sec < 0 || sec > 1e9 {
			return fmt.Errorf("duration %v: use 0 to 1e9 seconds", sec)
		}
		*d = Duration(sec * float64(time.Second))
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration %s: write it like \"90s\"", b)
	}
	return d.UnmarshalText([]byte(s))
}
