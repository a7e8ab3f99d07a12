package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// waits is when the tasks of a benchmark that only submits may run: never, within its time.
const waits = "2099-01-01T00:00:00Z"

// template writes tasks that differ in their id alone. The rest is encoded once, so that making a task costs the client
// two copies.
type template struct {
	head, tail []byte
}

// newTemplate makes tasks whose ids begin with prefix. waiting tasks never start.
func newTemplate(prefix string, waiting bool) template {
	tail := `","prompt":"Write the date as YYYY-MM-DD: 3 March 2024","max_tokens":16`
	if waiting {
		tail += `,"not_before":"` + waits + `"`
	}
	return template{head: []byte(`{"task_id":"` + prefix + `-`), tail: []byte(tail + "}")}
}

// task appends task i.
func (t template) task(b []byte, i int) []byte {
	b = append(b, t.head...)
	b = strconv.AppendInt(b, int64(i), 10)
	return append(b, t.tail...)
}

// line appends task i as a line of a stream.
func (t template) line(b []byte, i int) []byte { return append(t.task(b, i), '\n') }

// promptLine returns a function that appends line i of a stream which asks prompts in turn.
func promptLine(prefix string, prompts []prompt) (func(b []byte, i int) []byte, error) {
	tails := make([][]byte, len(prompts))
	for i, p := range prompts {
		b, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("bench.load: %w", err)
		}
		tails[i] = append(b[1:], '\n')
	}
	return func(b []byte, i int) []byte {
		b = append(b, `{"task_id":"`+prefix+`-`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `",`...)
		return append(b, tails[i%len(tails)]...)
	}, nil
}

// prompt is what an engine is asked, and how it stands in a task.
type prompt struct {
	Text      string `json:"prompt"`
	MaxTokens int    `json:"max_tokens,omitempty"`
}

// bulk submits n tasks in one stream and returns how long it took until the last was acknowledged.
func bulk(ctx context.Context, n *node, count int, line func(b []byte, i int) []byte) (time.Duration, error) {
	c, err := dial(ctx, n.addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	began := time.Now()
	sum, err := c.stream(count, line)
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	if sum.Accepted != int64(count) {
		return took, fmt.Errorf("bench.bulk: %d of %d tasks were accepted as new", sum.Accepted, count)
	}
	return took, nil
}
