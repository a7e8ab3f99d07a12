package wire

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster/trace"
)

// CursorEnd is the cursor after all results there are: follow from it to see only new ones.
const CursorEnd = "end"

// Task is everything about a task: as submitted, and what became of it.
type Task struct {
	State     task.State `json:"state" enum:"pending,running,completed,failed,cancelled"`
	Version   uint64     `json:"version" doc:"Grows by one with each event; it is the ETag too."`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	EndedAt   *time.Time `json:"ended_at,omitempty" doc:"When it became final."`
	TraceID   string     `json:"trace_id,omitempty" doc:"Of the W3C traceparent that the first request for the task had, or was given: it goes on to engines and callbacks."`

	task.Spec

	Answer   string        `json:"answer,omitempty" doc:"The last answer."`
	Response *Response     `json:"response,omitempty" doc:"The engine's whole answer to a request, good or bad."`
	Answers  []string      `json:"answers,omitempty" doc:"One a finished step, for a task with steps."`
	Error    *task.Failure `json:"error,omitempty" doc:"Why it failed, or why its newest attempt did."`
	Waits    *time.Time    `json:"waits_until,omitempty" doc:"A pending task starts no earlier."`
	Attempts []Attempt     `json:"attempts,omitempty" doc:"The newest 20: where and when each ran, and what it took."`
	Usage    Usage         `json:"usage" doc:"Of all finished steps together."`
	Callback *Callback     `json:"callback,omitempty"`

	RetriedAs string `json:"retried_as,omitempty" doc:"The task that this failed one was tried again as."`
}

// Attempt is one try to run a task or one of its steps.
type Attempt = task.Attempt

// Usage counts tokens as the engine counted them.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// Callback is how far the callback of a final task came.
type Callback struct {
	State  task.CallbackState `json:"state" enum:"waiting,delivered,gave up"`
	Tries  int                `json:"tries"`
	NextAt *time.Time         `json:"next_at,omitempty"`
	Error  *task.Failure      `json:"error,omitempty" doc:"Of the newest failed try."`
}

// TaskOf shows a record.
func TaskOf(id string, r *task.Record) *Task {
	t := &Task{State: r.State, Version: r.Version, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, EndedAt: moment(r.EndedAt),
		Error: withoutBody(r.Error), Attempts: r.Attempts, Answer: r.Text(), Response: responseOf(r), Answers: answersOf(r), Usage: usageOf(r), Callback: callbackOf(r), RetriedAs: r.RetriedAs}
	if r.Spec != nil {
		t.Spec = *r.Spec
		p := task.Priority(r.Spec.PriorityOr())
		t.Priority = &p
	}
	t.ID, t.TraceID = id, trace.Parent(r.Trace).ID()
	if r.State == task.Pending && !r.AtOnce && r.NotBefore.After(r.UpdatedAt) {
		t.Waits = moment(r.NotBefore)
	}
	return t
}

// Brief is a task in a list: without its prompt, its answers and its history.
type Brief struct {
	ID        string            `json:"task_id"`
	State     task.State        `json:"state" enum:"pending,running,completed,failed,cancelled"`
	Version   uint64            `json:"version"`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
	EndedAt   *time.Time        `json:"ended_at,omitempty"`
	Model     string            `json:"model,omitempty"`
	Priority  int               `json:"priority"`
	Attempt   uint32            `json:"attempt" doc:"Number of the newest attempt, 0 before the first."`
	Error     *task.Failure     `json:"error,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	RetryOf   string            `json:"retry_of,omitempty" doc:"The failed task that this one tries again."`
	RetriedAs string            `json:"retried_as,omitempty" doc:"The task that this failed one was tried again as."`
	Batch     string            `json:"batch_id,omitempty" doc:"Of a line of a batch: which one."`
	CustomID  string            `json:"custom_id,omitempty" doc:"Of a line of a batch: what the line calls itself."`
}

// BriefOf shows a record in a list.
func BriefOf(id string, r *task.Record) Brief {
	b := Brief{ID: id, State: r.State, Version: r.Version, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		EndedAt: moment(r.EndedAt), Attempt: r.Attempt, Error: withoutBody(r.Error), RetriedAs: r.RetriedAs}
	if r.Spec != nil {
		if r.Line != nil {
			b.Batch, b.CustomID = tenant.Bare(r.Line.Batch), r.Line.CustomID
		}
		b.Model, b.Priority, b.Metadata, b.RetryOf = cmp.Or(r.Model, r.Spec.Model), r.Spec.PriorityOr(), r.Spec.Metadata, r.Spec.RetryOf
	}
	return b
}

// Explanation is all that happened to a task, and why it is not further.
type Explanation struct {
	ID        string         `json:"task_id"`
	State     task.State     `json:"state" enum:"pending,running,completed,failed,cancelled"`
	Model     string         `json:"model" doc:"Whose queue it waits in."`
	Priority  int            `json:"priority"`
	CreatedAt time.Time      `json:"created_at"`
	Now       time.Time      `json:"now" doc:"When the node looked, by its clock."`
	Why       explain.Why    `json:"why"`
	Events    []explain.Step `json:"events" nullable:"false"`
}

// List is one page of tasks.
type List struct {
	Tasks      []Brief `json:"tasks" nullable:"false"`
	NextCursor string  `json:"next_cursor,omitempty" doc:"Give it as cursor for the next page; absent on the last one."`
}

// Result is a final task as one line of GET /v1/results.
type Result struct {
	ID         string            `json:"task_id,omitempty"`
	State      task.State        `json:"state,omitempty" enum:"completed,failed,cancelled"`
	Batch      string            `json:"batch_id,omitempty" doc:"Of a line of a batch."`
	CustomID   string            `json:"custom_id,omitempty" doc:"Of a line of a batch."`
	Prompt     string            `json:"prompt,omitempty" doc:"With ?prompt=true: what was asked, the prompt, or the messages or the request as JSON."`
	Answer     string            `json:"answer,omitempty"`
	Answers    []string          `json:"answers,omitempty" doc:"One a step, for a task with steps."`
	Response   *Response         `json:"response,omitempty" doc:"The engine's whole answer to a request, good or bad."`
	Error      *task.Failure     `json:"error,omitempty"`
	Model      string            `json:"model,omitempty" doc:"As the engine named it, else as submitted."`
	Finish     string            `json:"finish_reason,omitempty"`
	Engine     string            `json:"engine,omitempty" doc:"Of the newest attempt."`
	Attempt    uint32            `json:"attempt,omitempty" doc:"How many attempts it took."`
	Usage      *Usage            `json:"usage,omitempty"`
	CreatedAt  *time.Time        `json:"created_at,omitempty"`
	StartedAt  *time.Time        `json:"started_at,omitempty" doc:"When the newest attempt was claimed."`
	EndedAt    *time.Time        `json:"ended_at,omitempty"`
	RunSeconds float64           `json:"run_seconds,omitempty" doc:"Time in the engine, of the last step."`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Cursor     string            `json:"cursor,omitempty" doc:"On some lines: go on after this line with it. A line with nothing but a cursor says that the stream is alive."`
}

// ResultOf shows a final record.
func ResultOf(id string, r *task.Record) Result {
	u := usageOf(r)
	created := r.CreatedAt
	v := Result{ID: id, State: r.State, Answer: r.Text(), Answers: answersOf(r), Response: responseOf(r), Error: withoutBody(r.Error), Attempt: r.Attempt,
		Usage: &u, CreatedAt: &created, EndedAt: moment(r.EndedAt)}
	if r.Spec != nil {
		v.Model, v.Metadata = cmp.Or(r.Model, r.Spec.Model), r.Spec.Metadata
	}
	if r.Line != nil {
		v.Batch, v.CustomID = tenant.Bare(r.Line.Batch), r.Line.CustomID
	}
	if n := len(r.Answers); n > 0 {
		a := &r.Answers[n-1]
		v.Finish = a.FinishReason
		if !a.StartedAt.IsZero() {
			v.RunSeconds = a.EndedAt.Sub(a.StartedAt).Seconds()
		}
		if m := a.Model; m != "" {
			v.Model = m
		}
	}
	if n := len(r.Attempts); n > 0 {
		v.Engine, v.StartedAt = r.Attempts[n-1].Engine, moment(r.Attempts[n-1].ClaimedAt)
	}
	return v
}

// Response is what an engine answered to a request, as it answered it.
type Response struct {
	Status int             `json:"status_code"`
	Body   json.RawMessage `json:"body"`
}

func responseOf(r *task.Record) *Response {
	if n := len(r.Answers); n > 0 && r.Answers[n-1].Body != nil {
		return &Response{r.Answers[n-1].Status, r.Answers[n-1].Body}
	}
	if r.Error != nil && r.Error.Status != 0 {
		return &Response{r.Error.Status, r.Error.Body}
	}
	return nil
}

// withoutBody leaves out what Response has.
func withoutBody(f *task.Failure) *task.Failure {
	if f == nil || f.Body == nil {
		return f
	}
	short := *f
	short.Body = nil
	return &short
}

// Event is one fact of a task's history with the version that it made.
type Event struct {
	Version uint64 `json:"version"`
	task.Fact
}

// History is a task's events.
type History struct {
	ID     string  `json:"task_id"`
	Events []Event `json:"events" nullable:"false"`
}

func answersOf(r *task.Record) []string {
	if r.Spec == nil || len(r.Spec.Steps) == 0 {
		return nil
	}
	done := r.Results()
	texts := make([]string, len(done))
	for i, a := range done {
		texts[i] = a.Text
	}
	return texts
}

func usageOf(r *task.Record) (u Usage) {
	for _, a := range r.Answers {
		u.PromptTokens += a.PromptTokens
		u.CompletionTokens += a.OutputTokens
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

func callbackOf(r *task.Record) *Callback {
	if r.Callback == task.CallbackNone {
		return nil
	}
	return &Callback{State: r.Callback, Tries: r.CallbackTries, NextAt: moment(r.CallbackNext), Error: r.CallbackReason}
}

// moment leaves a zero time out of the JSON.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
