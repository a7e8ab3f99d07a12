package actors_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// turnstile is an engine that lets one request go at a time, and tells who came in which order.
type turnstile struct {
	mu      sync.Mutex
	came    []string
	arrived chan struct{} // one a request
	pass    chan struct{} // one an answer
}

func newTurnstile() *turnstile {
	return &turnstile{arrived: make(chan struct{}, 1<<16), pass: make(chan struct{}, 1<<16)}
}

func (e *turnstile) Name() string                             { return "turnstile" }
func (e *turnstile) Models(context.Context) ([]string, error) { return []string{"m"}, nil }

func (e *turnstile) Do(ctx context.Context, q *infer.Request) (*infer.Response, error) {
	e.mu.Lock()
	e.came = append(e.came, q.Key[:strings.LastIndexByte(q.Key, '/')])
	e.mu.Unlock()
	e.arrived <- struct{}{}
	select {
	case <-e.pass:
		return &infer.Response{Text: "a", FinishReason: "stop", PromptTokens: 10, OutputTokens: 10}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wait returns once n more requests came.
func (e *turnstile) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-e.arrived:
		case <-time.After(20 * time.Second):
			t.Fatal("the engine is not asked")
		}
	}
}

// until lets requests go, one at a time, until all of these tasks came, and returns how many others came first since.
func (e *turnstile) until(t *testing.T, prefix string, n int) (others int) {
	t.Helper()
	e.mu.Lock()
	from := len(e.came)
	e.mu.Unlock()
	for mine := 0; mine < n; {
		e.pass <- struct{}{}
		e.wait(t, 1)
		e.mu.Lock()
		if id := e.came[from]; strings.HasPrefix(id, prefix) {
			mine++
		} else {
			others++
		}
		from++
		e.mu.Unlock()
	}
	return others
}

// TestTheOrderOfWork: on an engine of 4 slots with 4 more claimed ahead, behind a flood of two tenants on all shards. One of them is
// who sends the ten, but for the first case, and the other one has its half meanwhile.
func TestTheOrderOfWork(t *testing.T) {
	const slots, ahead, shards = 4, 4, 4
	urgent, late := task.Priority(0), task.Priority(9)
	soon := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name  string
		id    string // of those that come behind the flood
		spec  task.Spec
		least int // of the flood that are served before the last of 10
		most  int
	}{
		{"another tenant's ten wait for theirs alone", "/small/", task.Spec{}, 0, ahead + 10 + 8},
		{"a better priority goes first, whatever its shard", "urgent-", task.Spec{Priority: &urgent}, 0, 10 + 2*ahead},
		{"a deadline that is near goes first", "soon-", task.Spec{Deadline: &soon}, 0, 10 + 2*ahead + shards*8},
		{"a worse priority waits", "late-", task.Spec{Priority: &late}, 400 - 2*slots - ahead, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newTurnstile()
			sys := start(t, persisttest.NewStore(shards), actors.Engine{Engine: e, Concurrency: slots, Prefetch: ahead})
			for i := range 200 {
				submit(t, sys, &task.Spec{ID: fmt.Sprintf("/flood/%03d", i), Prompt: "p"})
				submit(t, sys, &task.Spec{ID: fmt.Sprintf("flood-%03d", i), Prompt: "p"})
			}
			e.wait(t, slots)
			for i := range 10 {
				spec := c.spec
				spec.ID, spec.Prompt = fmt.Sprintf("%s%d", c.id, i), "p"
				submit(t, sys, &spec)
			}
			others := e.until(t, c.id, 10)
			require.LessOrEqual(t, others, c.most)
			require.GreaterOrEqual(t, others, c.least)
			for range 1000 {
				e.pass <- struct{}{} // so that it stops at once
			}
		})
	}
}
