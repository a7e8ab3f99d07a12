package callback

import (
	"encoding/json"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// message is the body of a callback, in the form that Standard Webhooks recommends.
type message struct {
	Type      string    `json:"type"`      // task.completed, task.failed, task.cancelled
	Timestamp time.Time `json:"timestamp"` // when the task became final
	Data      data      `json:"data"`
}

type data struct {
	TaskID       string            `json:"task_id"`
	Tenant       string            `json:"tenant,omitempty"` // whose task it is; absent: the default tenant's
	State        task.State        `json:"state"`
	Version      uint64            `json:"version"` // in which the task became final
	Answer       *string           `json:"answer,omitempty"`
	Status       int               `json:"status_code,omitempty"` // of the engine's answer to a request
	Response     json.RawMessage   `json:"response,omitempty"`    // that answer
	FinishReason string            `json:"finish_reason,omitempty"`
	Model        string            `json:"model,omitempty"`
	PromptTokens int               `json:"prompt_tokens,omitempty"` // of all steps
	OutputTokens int               `json:"completion_tokens,omitempty"`
	DataSHA256   string            `json:"data_sha256,omitempty"`
	Error        *task.Failure     `json:"error,omitempty"`
	Attempts     uint32            `json:"attempts"`
	CreatedAt    time.Time         `json:"created_at"`
	EndedAt      time.Time         `json:"ended_at"`
	Metadata     map[string]string `json:"metadata,omitempty"`
}

// named is a tenant's name where it has one of its own.
func named(whose string) string {
	if whose == tenant.Default {
		return ""
	}
	return whose
}

// Body builds what is posted for a final task. It is pure, and the same at every try: what later
// facts change (tries of the callback, and the version they bring) is left out.
func Body(id string, r task.Record) ([]byte, error) {
	if !r.State.Final() {
		return nil, fault.New(fault.Invalid, "callback.body", id, "the task is %v, not final", r.State)
	}
	d := data{TaskID: tenant.Bare(id), Tenant: named(tenant.Of(id)), State: r.State, Version: r.Version - uint64(r.CallbackTries), Attempts: r.Attempt,
		CreatedAt: r.CreatedAt.UTC(), EndedAt: r.EndedAt.UTC()}
	if r.Spec != nil {
		d.Metadata = r.Spec.Metadata
	}
	switch r.State {
	case task.Completed:
		text := r.Text()
		d.Answer = &text
		if n := len(r.Answers); n > 0 {
			d.Status, d.Response = r.Answers[n-1].Status, r.Answers[n-1].Body
		}
	case task.Failed:
		d.Error = r.Error
	}
	for i, a := range r.Answers {
		d.PromptTokens += a.PromptTokens
		d.OutputTokens += a.OutputTokens
		if i == len(r.Answers)-1 {
			d.FinishReason, d.Model, d.DataSHA256 = a.FinishReason, a.Model, a.DataSHA256
		}
	}
	return json.Marshal(message{Type: "task." + r.State.String(), Timestamp: d.EndedAt, Data: d})
}
