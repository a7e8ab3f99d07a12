package result

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

// Row is a final task. Columns are named by the parquet tag.
type Row struct {
	TaskID           string    `parquet:"task_id"`
	BatchID          string    `parquet:"batch_id,optional"`  // of a line of a batch
	CustomID         string    `parquet:"custom_id,optional"` // of a line of a batch
	State            string    `parquet:"state"`              // completed, failed or cancelled
	Model            string    `parquet:"model,optional"`     // as the engine named it, else as submitted
	Prompt           string    `parquet:"prompt,optional"`    // where it was asked for
	Answer           string    `parquet:"answer,optional"`    // the last one's text
	FinishReason     string    `parquet:"finish_reason,optional"`
	PromptTokens     int64     `parquet:"prompt_tokens"`
	CompletionTokens int64     `parquet:"completion_tokens"`
	CreatedAt        time.Time `parquet:"created_at,timestamp(microsecond)"`
	EndedAt          time.Time `parquet:"ended_at,timestamp(microsecond)"`
	Attempts         int64     `parquet:"attempts"`
	ErrorKind        string    `parquet:"error_kind,optional"`
	ErrorMessage     string    `parquet:"error_message,optional"`
	Metadata         string    `parquet:"metadata,optional"` // a JSON object
	Response         string    `parquet:"response,optional"` // JSON: what the engine said to a request
}

// Columns are the names of a Row's columns, in order.
func Columns() []string {
	return []string{"task_id", "batch_id", "custom_id", "state", "model", "prompt", "answer", "finish_reason", "prompt_tokens", "completion_tokens",
		"created_at", "ended_at", "attempts", "error_kind", "error_message", "metadata", "response"}
}

// Of shows a final record, with what was asked where prompt is set. It reads nothing that a callback's later facts change, so the same
// task gives the same row whenever it is read.
func Of(id string, r *task.Record, prompt bool) Row {
	row := Row{TaskID: id, State: r.State.String(), Answer: r.Text(), CreatedAt: r.CreatedAt, EndedAt: r.EndedAt, Attempts: int64(r.Attempt)}
	if r.Line != nil {
		row.BatchID, row.CustomID = tenant.Bare(r.Line.Batch), r.Line.CustomID
	}
	if r.Spec != nil {
		row.Model, row.Metadata = cmp.Or(r.Model, r.Spec.Model), MetadataText(r.Spec.Metadata)
		if prompt {
			row.Prompt = Asked(r.Spec)
		}
	}
	for i := range r.Answers {
		row.PromptTokens += int64(r.Answers[i].PromptTokens)
		row.CompletionTokens += int64(r.Answers[i].OutputTokens)
	}
	if n := len(r.Answers); n > 0 {
		last := &r.Answers[n-1]
		row.FinishReason, row.Model, row.Response = last.FinishReason, cmp.Or(last.Model, row.Model), string(last.Body)
	}
	if r.Error != nil {
		row.ErrorKind, row.ErrorMessage = r.Error.Kind, r.Error.Message
		if row.Response == "" {
			row.Response = string(r.Error.Body)
		}
	}
	return row
}

// Asked is what a task was asked: its prompt, or its messages, its request or, where there is nothing else, its steps as JSON.
func Asked(s *task.Spec) string {
	switch {
	case s.Prompt != "":
		return s.Prompt
	case len(s.Request) > 0:
		return string(s.Request)
	case len(s.Messages) > 0:
		b, _ := json.Marshal(s.Messages) // strings encode
		return string(b)
	case len(s.Steps) > 0:
		b, _ := json.Marshal(s.Steps)
		return string(b)
	}
	return ""
}

// MetadataText is metadata as a JSON object, "" when there is none. Keys are in order, so it is always the same text.
func MetadataText(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	b, _ := json.Marshal(m) // strings encode
	return string(b)
}
