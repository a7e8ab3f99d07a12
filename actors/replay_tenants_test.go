package actors_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// overseen is a mockGPU that notes when a task reached it, and the tokens of each tenant until one of them had so many tasks.
type overseen struct {
	*mockGPU
	until int
	done  chan struct{} // closed then

	mu     sync.Mutex
	came   map[string]time.Time
	tasks  map[string]int
	tokens map[string]float64
}

func (e *overseen) Do(ctx context.Context, q *infer.Request) (*infer.Response, error) {
	e.note(q.Key[:strings.LastIndexByte(q.Key, '/')])
	return e.mockGPU.Do(ctx, q)
}

func (e *overseen) note(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.came[id] = time.Now()
	whose, r := tenant.Of(id), e.trace[id]
	if e.until > 0 && e.tasks[whose] < e.until {
		e.tasks[whose]++
		e.tokens[whose] += float64(r.input + r.output)
		if e.tasks[whose] == e.until {
			e.until = 0
			close(e.done)
		}
	}
}

// hall is a node with one engine for tenants that replay a trace of lengths.
type hall struct {
	sys    *actors.System
	engine *overseen
	open   atomic.Bool
	began  atomic.Int64
}

func newHall(t *testing.T, trace map[string]request, until int) *hall {
	h := &hall{}
	h.engine = &overseen{mockGPU: newMockGPU("gpu", trace, 2000), until: until, done: make(chan struct{}),
		came: map[string]time.Time{}, tasks: map[string]int{}, tokens: map[string]float64{}}
	h.engine.mockGPU.open, h.engine.mockGPU.began = &h.open, &h.began
	h.open.Store(until == 0)
	h.sys = start(t, persisttest.NewStore(4), actors.Engine{Engine: h.engine, Concurrency: 16, Prefetch: 16})
	return h
}

func (h *hall) submit(t *testing.T, id string) {
	submit(t, h.sys, &task.Spec{ID: id, Prompt: "p", MaxTokens: max(h.engine.trace[id].output, 1)})
}

// TestReplaySmallTenant: tasks of who sends ten now and then, alone; beside another tenant with thousands waiting; and with those
// thousands its own.
func TestReplaySmallTenant(t *testing.T) {
	const bursts, each = 8, 10
	flood := rowsOf(t, 1500)
	rows := azure(t, flood)
	first := map[string]time.Duration{} // until the last of the first ten is at the engine
	for _, beside := range []string{"", "/other/", "/small/flood"} {
		trace := map[string]request{}
		if beside != "" {
			for i, r := range rows {
				trace[fmt.Sprintf("%s%d", beside, i)] = r
			}
		}
		backlog := slices.Sorted(maps.Keys(trace))
		for i := range bursts * each {
			trace[fmt.Sprintf("/small/%d-%d", i/each, i%each)] = rows[(7*i)%len(rows)]
		}
		h := newHall(t, trace, 0)
		for _, id := range backlog {
			h.submit(t, id)
		}
		var waits []time.Duration
		for burst := range bursts {
			at := time.Now()
			for i := range each {
				h.submit(t, fmt.Sprintf("/small/%d-%d", burst, i))
			}
			for i := range each {
				id := fmt.Sprintf("/small/%d-%d", burst, i)
				require.Equal(t, task.Completed, await(t, h.sys, id).State)
				h.engine.mu.Lock()
				waits = append(waits, h.engine.came[id].Sub(at))
				h.engine.mu.Unlock()
			}
		}
		first[beside] = slices.Max(waits[:each])
		slices.Sort(waits)
		t.Logf("beside %d of %-14q: the engine has a task after %v in the middle, %v at most; the last of the first ten after %v", len(backlog), beside,
			waits[len(waits)/2].Round(time.Microsecond), waits[len(waits)-1].Round(time.Microsecond), first[beside].Round(time.Microsecond))
	}
	require.Less(t, first["/other/"], first["/small/flood"]/2, "another tenant's backlog does not delay as one's own does")
}

// TestReplayShares: tenants whose tasks are long and short share an engine's tokens evenly while all of them have some waiting.
func TestReplayShares(t *testing.T) {
	rows := azure(t, rowsOf(t, 3000))
	trace := map[string]request{}
	names := []string{"a", "b", "c", "d"}
	slices.SortFunc(rows, func(x, y request) int { return x.input + x.output - y.input - y.output }) // a has the short ones, d the long ones
	for i, r := range rows {
		trace[fmt.Sprintf("/%s/%d", names[i*len(names)/len(rows)], i)] = r
	}
	h := newHall(t, trace, len(rows)/len(names)*9/10)
	for _, id := range slices.Sorted(maps.Keys(trace)) {
		h.submit(t, id)
	}
	h.open.Store(true)
	<-h.engine.done
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	var sum, squares float64
	for _, n := range names {
		sum += h.engine.tokens[n]
		squares += h.engine.tokens[n] * h.engine.tokens[n]
	}
	index := sum * sum / (float64(len(names)) * squares)
	t.Logf("tokens %v of tasks %v: Jain index %.4f", h.engine.tokens, h.engine.tasks, index)
	require.Greater(t, index, 0.95)
}
