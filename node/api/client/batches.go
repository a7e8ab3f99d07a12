package client

import (
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Batch is a batch as the node has it, in the form of OpenAI's API.
type Batch struct {
	ID           string  `json:"id"`
	Status       string  `json:"status"`
	Endpoint     string  `json:"endpoint"`
	InputFileID  string  `json:"input_file_id"`
	OutputFileID *string `json:"output_file_id"`
	ErrorFileID  *string `json:"error_file_id"`
	CreatedAt    int64   `json:"created_at"`
	ExpiresAt    int64   `json:"expires_at"`
	InProgressAt int64   `json:"in_progress_at"` // 0: not yet
	CompletedAt  int64   `json:"completed_at"`
	FailedAt     int64   `json:"failed_at"`
	ExpiredAt    int64   `json:"expired_at"`
	CancelledAt  int64   `json:"cancelled_at"`
	Paused       bool    `json:"paused"`
	Counts       struct {
		Total     int64 `json:"total"`
		Completed int64 `json:"completed"`
		Failed    int64 `json:"failed"`
	} `json:"request_counts"`
	Errors *struct {
		Data []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Line    int64  `json:"line"`
		} `json:"data"`
	} `json:"errors"`

	Raw json.RawMessage `json:"-"` // the whole of it
}

// Final tells whether the batch is for ever as it is.
func (b *Batch) Final() bool {
	switch b.Status {
	case "completed", "failed", "expired", "cancelled":
		return true
	}
	return false
}

// EndedAt is when it became final, in Unix seconds; 0: it is not.
func (b *Batch) EndedAt() int64 { return max(b.CompletedAt, b.FailedAt, b.ExpiredAt, b.CancelledAt) }

// Rate is how many of its lines ended in a second, from when they began to now or to its end; 0 while that cannot be told.
func (b *Batch) Rate(now time.Time) float64 {
	until := now.Unix()
	if end := b.EndedAt(); end > 0 {
		until = end
	}
	if b.InProgressAt == 0 || until <= b.InProgressAt {
		return 0
	}
	return float64(b.Counts.Completed+b.Counts.Failed) / float64(until-b.InProgressAt)
}

// UnmarshalJSON keeps the whole of it, too.
func (b *Batch) UnmarshalJSON(raw []byte) error {
	type plain Batch
	err := json.Unmarshal(raw, (*plain)(b))
	b.Raw = append(json.RawMessage(nil), raw...)
	return err
}

// NewBatch is what creates a batch.
type NewBatch struct {
	InputFileID string            `json:"input_file_id"`
	Endpoint    string            `json:"endpoint"`
	Window      string            `json:"completion_window"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	MixedModels bool              `json:"mixed_models,omitempty"`
	CallbackURL string            `json:"callback_url,omitempty"`
	Priority    *task.Priority    `json:"priority,omitempty"`
}

// UploadFile uploads the input of a batch from r and returns the file's id. sent, unless nil, is called as bytes go.
func (c *Client) UploadFile(ctx context.Context, name string, f io.Reader, sent func(n int)) (string, error) {
	if err := c.call(ctx, "client.upload", http.MethodGet, "/v1/files?limit=1", nil, nil); err != nil { // finds a node that answers: a stream is sent once
		return "", err
	}
	r, w := io.Pipe()
	defer r.Close() // which ends the writer
	form := multipart.NewWriter(w)
	go func() {
		err := form.WriteField("purpose", "batch")
		var part io.Writer
		if err == nil {
			part, err = form.CreateFormFile("file", name)
		}
		if err == nil {
			_, err = io.Copy(part, &counted{f, sent})
		}
		if err == nil {
			err = form.Close()
		}
		w.CloseWithError(err)
	}()
	resp, err := c.send(ctx, c.servers.current(), "client.upload", http.MethodPost, "/v1/files", form.FormDataContentType(), r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var file struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerMax)).Decode(&file); err != nil {
		return "", fault.New(fault.Unavailable, "client.upload", "", "the answer could not be read: %w", err)
	}
	return file.ID, nil
}

type counted struct {
	io.Reader
	sent func(n int)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if c.sent != nil {
		c.sent(n)
	}
	return n, err
}

// CreateBatch makes a batch. key is its idempotency key: a repeat under the same one makes no second batch.
func (c *Client) CreateBatch(ctx context.Context, q NewBatch, key string) (*Batch, error) {
	return c.askBatch(ctx, "/v1/batches", 0, q, key)
}

// Batch returns one batch.
func (c *Client) Batch(ctx context.Context, id string) (*Batch, error) {
	b := &Batch{}
	return b, c.call(ctx, "client.batch", http.MethodGet, "/v1/batches/"+url.PathEscape(id), nil, b)
}

// Batches returns a page of batches, the newest first, and whether more follow.
func (c *Client) Batches(ctx context.Context, after string, limit int) ([]Batch, bool, error) {
	var page struct {
		Data    []Batch `json:"data"`
		HasMore bool    `json:"has_more"`
	}
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if after != "" {
		q.Set("after", after)
	}
	err := c.call(ctx, "client.batches", http.MethodGet, "/v1/batches?"+q.Encode(), nil, &page)
	return page.Data, page.HasMore, err
}

// SayBatch cancels, pauses or resumes a batch: the verb is the end of the route.
func (c *Client) SayBatch(ctx context.Context, id, verb string) (*Batch, error) {
	return c.askBatch(ctx, "/v1/batches/"+url.PathEscape(id)+"/"+verb, 0, struct{}{}, "")
}

// RetryBatch is what a retry may want otherwise than the batch that it repeats.
type RetryBatch struct {
	Window   string         `json:"completion_window,omitempty"`
	Priority *task.Priority `json:"priority,omitempty"`
}

// RetryBatch makes a batch of the lines of another that did not complete, under an idempotency key.
func (c *Client) RetryBatch(ctx context.Context, id string, q RetryBatch, key string) (*Batch, error) {
	return c.askBatch(ctx, "/v1/batches/"+url.PathEscape(id)+"/retry", copyWithin, q, key)
}

// copyWithin is how long a node may take to make a batch that retries another: it copies lines.
const copyWithin = 9 * time.Minute

func (c *Client) askBatch(ctx context.Context, path string, extra time.Duration, body any, key string) (*Batch, error) {
	b := &Batch{}
	var headers []string
	if key != "" {
		headers = []string{"Idempotency-Key", key}
	}
	return b, c.ask(ctx, "client.batch", http.MethodPost, path, extra, body, b, headers...)
}

// FileContent copies a file's bytes to w.
func (c *Client) FileContent(ctx context.Context, id string, w io.Writer) error {
	resp, err := c.send(ctx, c.servers.current(), "client.file", http.MethodGet, "/v1/files/"+url.PathEscape(id)+"/content", "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fault.New(fault.Unavailable, "client.file", id, "%w", err).WithRemedy("what was written is not whole: ask again")
	}
	return nil
}
