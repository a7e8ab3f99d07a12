package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
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

// promptLine returns a function that appends line i of a stream which asks prompts in turn. An empty model is the
// node's default; a name has nothing in it that JSON would escape.
func promptLine(prefix, model string, prompts []prompt) (func(b []byte, i int) []byte, error) {
	tails := make([][]byte, len(prompts))
	for i, p := range prompts {
		b, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("bench.load: %w", err)
		}
		tails[i] = append(b[1:], '\n')
	}
	head := `{"task_id":"` + prefix + `-`
	middle := `",`
	if model != "" {
		middle = `","model":"` + model + `",`
	}
	return func(b []byte, i int) []byte {
		b = append(b, head...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, middle...)
		return append(b, tails[i%len(tails)]...)
	}, nil
}

// prompt is what an engine is asked, and how it stands in a task.
type prompt struct {
	Text      string `json:"prompt"`
	MaxTokens int    `json:"max_tokens,omitempty"`
}

// bulk submits count tasks in so many streams at once and returns how long it took until the last was acknowledged.
func bulk(ctx context.Context, n *node, streams, count int, line func(b []byte, i int) []byte) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	began := time.Now()
	for s := range streams {
		from, to := s*count/streams, (s+1)*count/streams
		wg.Go(func() {
			err := bulkStream(ctx, n.at(s), to-from, func(b []byte, i int) []byte { return line(b, from+i) })
			if err != nil {
				cancel(err) // ends the others too
			}
		})
	}
	wg.Wait()
	return time.Since(began), context.Cause(ctx)
}

func bulkStream(ctx context.Context, addr string, count int, line func(b []byte, i int) []byte) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	sum, err := c.stream(count, line)
	if err != nil {
		return err
	}
	if sum.Accepted != int64(count) {
		return fmt.Errorf("bench.bulk: %d of %d tasks were accepted as new", sum.Accepted, count)
	}
	return nil
}
