package infer

import (
	"context"
	"encoding/json"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Engine answers one conversation at a time; an inference actor calls it from as
// many goroutines as its concurrency limit allows. Implementations: HTTP (any
// OpenAI-compatible URL, glm-worker's unix socket too) and Echo (in process, for
// benchmarks and tests).
type Engine interface {
	// Name is short and unique on this node: "embedded-0", "echo", "vllm.internal:8000".
	Name() string

	// Models lists what the engine serves now; nil when it cannot be asked (then
	// a fault tells why). An engine that serves whatever it is asked for returns ["*"].
	Models(ctx context.Context) ([]string, error)

	// Do answers one request. Errors carry a fault.Kind: Timeout and Unavailable (the
	// engine or its connection died), Overloaded (429, 503: slow down), Invalid, TooLarge,
	// NotFound, Refused (will fail the same way again).
	Do(ctx context.Context, r *Request) (*Response, error)
}

// Known is what an engine serves as far as that is sure without asking it; nil: it must be asked.
func Known(e Engine) []string {
	if k, ok := e.(interface{ Known() []string }); ok {
		return k.Known()
	}
	return nil
}

// Message is one turn, as in the OpenAI chat API: the task's own.
type Message = task.Message

// Request is what an engine is asked.
type Request struct {
	Model       string
	Messages    []Message
	MaxTokens   int // 0: the engine's own limit
	Temperature *float64
	TopP        *float64
	Seed        *int64
	Stop        []string
	Format      json.RawMessage // OpenAI response_format, or nil
	Key         string          // "task/attempt", of a second run "task/attempt.2", sent as X-Request-Id: for the engine's logs
	Trace       string          // W3C traceparent, sent as it is; "": none

	// Of a whole OpenAI request, in place of the messages and all settings: where it goes, and what is sent, with Model in it
	// already. Raw nil: chat.
	Endpoint string
	Raw      json.RawMessage

	Tool *task.Call // in place of all but Model and Trace: what package tool runs
}

// Response is what an engine said.
type Response struct {
	Text         string
	FinishReason string // stop, length, …
	Model        string
	PromptTokens int
	OutputTokens int
	RetryAfter   time.Duration // with an Overloaded error only, as the engine asked

	Status int             // of a Raw request; 200
	Raw    json.RawMessage // the whole answer to it, on one line; Text is empty then
}
