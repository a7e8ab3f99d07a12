package actors_test

import (
	"bufio"
	"container/list"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// Replaying traces: the tasks of a whole trace wait at once, as in an offline job, and the real queues, batcher and inference actors
// feed engines that only keep count and take their time, a thousandth of what a GPU would. The model of an engine:
//
//	prefill  one prompt at a time, 8,000 tokens/s, but for the 512-token blocks that it has from prompts before (LRU)
//	decode   25 ms a token, all slots at once
//
// make replay runs whole traces and prints what each rule gains; the tests run an excerpt.
const (
	blockTokens   = 512
	blockBytes    = 512 // of text that stand for one
	prefillPerSec = 8000
	decodeEach    = 25 * time.Millisecond
	speedUp       = 1000
)

// request is one row of a trace.
type request struct {
	blocks []int
	input  int // tokens
	output int
}

// prompt is text that begins like another's as far as their blocks are equal.
func (r request) prompt() string {
	var b strings.Builder
	for _, id := range r.blocks {
		b.WriteString(strings.Repeat(fmt.Sprintf("%08x", id), blockBytes/8))
	}
	return b.String()
}

// mockGPU is an engine of the model above.
type mockGPU struct {
	name   string
	trace  map[string]request // by task id
	blocks int                // that fit into its cache

	mu    sync.Mutex    // the GPU
	busy  time.Duration // of the model, without decoding where slots decode at once
	lru   *list.List
	at    map[int]*list.Element
	hit   atomic.Int64 // tokens
	open  *atomic.Bool
	began *atomic.Int64 // Unix nanoseconds of the first request to any
	seen  atomic.Int64
}

func newMockGPU(name string, trace map[string]request, blocks int) *mockGPU {
	return &mockGPU{name: name, trace: trace, blocks: blocks, lru: list.New(), at: map[int]*list.Element{}}
}

func (e *mockGPU) Name() string { return e.name }

// Models says nothing before the gate is open, so that nothing is claimed.
func (e *mockGPU) Models(context.Context) ([]string, error) {
	if !e.open.Load() {
		return nil, fault.New(fault.Unavailable, "replay", "", "not yet")
	}
	return []string{"m"}, nil
}

func (e *mockGPU) Do(_ context.Context, q *infer.Request) (*infer.Response, error) {
	r := e.trace[q.Key[:strings.LastIndexByte(q.Key, '/')]]
	e.began.CompareAndSwap(0, time.Now().UnixNano())
	e.prefill(r)
	time.Sleep(time.Duration(r.output) * decodeEach / speedUp)
	return &infer.Response{Text: "a", FinishReason: "stop", PromptTokens: r.input, OutputTokens: r.output}, nil
}

// mockBatches is an engine that answers a batch as a whole, when its longest answer is there: as those without continuous batching
// do.
type mockBatches struct {
	*mockGPU
	size    int
	joining sync.Mutex
	forming *formed
}

type formed struct {
	rows []request
	full chan struct{}
	done chan struct{}
}

func (e *mockBatches) Do(_ context.Context, q *infer.Request) (*infer.Response, error) {
	e.began.CompareAndSwap(0, time.Now().UnixNano())
	r := e.trace[q.Key[:strings.LastIndexByte(q.Key, '/')]]
	e.joining.Lock()
	b := e.forming
	first := b == nil
	if first {
		b = &formed{full: make(chan struct{}), done: make(chan struct{})}
		e.forming = b
	}
	b.rows = append(b.rows, r)
	if len(b.rows) == e.size {
		close(b.full)
		e.forming = nil
	}
	e.joining.Unlock()
	if first {
		e.run(b)
	}
	<-b.done
	return &infer.Response{Text: "a", FinishReason: "stop", PromptTokens: r.input, OutputTokens: r.output}, nil
}

func (e *mockBatches) run(b *formed) {
	t := time.NewTimer(50 * time.Millisecond) // a machine that is busy takes a while to bring all of a batch
	select {
	case <-b.full:
		t.Stop()
	case <-t.C:
		e.joining.Lock()
		if e.forming == b {
			e.forming = nil
		}
		e.joining.Unlock()
	}
	longest := 0
	for _, r := range b.rows {
		e.prefill(r)
		longest = max(longest, r.output)
	}
	e.mu.Lock()
	e.busy += time.Duration(longest) * decodeEach
	time.Sleep(time.Duration(longest) * decodeEach / speedUp)
	e.mu.Unlock()
	close(b.done)
}

func (e *mockGPU) prefill(r request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	same := 0
	for same < len(r.blocks) && e.at[r.blocks[same]] != nil {
		same++
	}
	for _, id := range r.blocks {
		if x := e.at[id]; x != nil {
			e.lru.MoveToBack(x)
			continue
		}
		e.at[id] = e.lru.PushBack(id)
		if e.lru.Len() > e.blocks {
			old := e.lru.Remove(e.lru.Front()).(int)
			delete(e.at, old)
		}
	}
	hit := min(same*blockTokens, r.input)
	e.hit.Add(int64(hit))
	e.seen.Add(int64(r.input))
	took := time.Duration(r.input-hit) * time.Second / prefillPerSec
	e.busy += took
	time.Sleep(took / speedUp)
}

// replayed is what a run gave.
type replayed struct {
	hits float64 // share of the prompts' tokens that were in a cache
	took time.Duration
	busy time.Duration // of the engine that had most to do, by the model: prefill, and decoding of whole batches
}

// replay runs the rows on so many engines, which answer whole batches or not.
func replay(t *testing.T, rows []request, engines, slots, blocks int, whole bool, rules batch.Rules) replayed {
	t.Helper()
	store := persisttest.NewStore(4)
	trace := map[string]request{}
	var open atomic.Bool // all wait until all are there
	var began atomic.Int64
	var es []actors.Engine
	var gpus []*mockGPU
	for i := range engines {
		g := newMockGPU(fmt.Sprint("gpu", i), trace, blocks)
		g.open, g.began = &open, &began
		gpus = append(gpus, g)
		e := actors.Engine{Engine: g, Concurrency: slots, Prefetch: slots}
		if whole {
			e.Engine = &mockBatches{mockGPU: g, size: slots}
		}
		es = append(es, e)
	}
	now := time.Now()
	o := options(store, es...)
	o.Rules = rules
	kind := task.NewKind(o.Policy, nil, nil)
	var ws []persistence.Write
	for i, r := range rows {
		id := fmt.Sprintf("t%06d", i)
		trace[id] = r
		_, w, err := kind.First(id, &task.Submit{Spec: &task.Spec{ID: id, Prompt: r.prompt(), MaxTokens: max(r.output, 1)}, Model: "m"}, func() time.Time { return now.Add(time.Duration(i) * time.Microsecond) })
		require.NoError(t, err)
		ws = append(ws, w)
	}
	sys, err := actors.Start(o)
	require.NoError(t, err)
	defer func() { sys.Stop(); require.NoError(t, store.Close()) }()
	<-sys.Shards.Ready()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for len(ws) > 0 {
		n := min(len(ws), 200)
		for _, err := range sys.Router.Create(ctx, ws[:n]) {
			require.NoError(t, err)
		}
		ws = ws[n:]
	}
	open.Store(true)
	for i := range rows {
		r := await(t, sys, fmt.Sprintf("t%06d", i))
		require.Equal(t, task.Completed, r.State)
	}
	out := replayed{took: time.Since(time.Unix(0, began.Load()))}
	var hit, seen int64
	for _, g := range gpus {
		hit += g.hit.Load()
		seen += g.seen.Load()
		g.mu.Lock()
		out.busy = max(out.busy, g.busy)
		g.mu.Unlock()
	}
	out.hits = float64(hit) / float64(seen)
	return out
}

const tracesDir = "../../shared/data/"

// rowsOf is how many rows a test takes: AUTOGLM_REPLAY_ROWS, else few.
func rowsOf(t *testing.T, few int) int {
	v := os.Getenv("AUTOGLM_REPLAY_ROWS")
	if v == "" {
		return few
	}
	n, err := strconv.Atoi(v)
	require.NoError(t, err)
	return n
}

// mooncake reads the trace of shared prefixes.
func mooncake(t *testing.T, most int) (rows []request) {
	f, err := os.Open(tracesDir + "mooncake-synthetic_trace.jsonl")
	require.NoError(t, err)
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() && len(rows) < most {
		var row struct {
			Input  int   `json:"input_length"`
			Output int   `json:"output_length"`
			Blocks []int `json:"hash_ids"`
		}
		require.NoError(t, json.Unmarshal(s.Bytes(), &row))
		rows = append(rows, request{row.Blocks, row.Input, row.Output})
	}
	require.NoError(t, s.Err())
	return rows
}

// azure reads the trace of lengths; no two prompts begin alike.
func azure(t *testing.T, most int) (rows []request) {
	f, err := os.Open(tracesDir + "AzureLLMInferenceTrace_code.csv")
	require.NoError(t, err)
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	id := 0
	for _, row := range all[1:min(len(all), most+1)] {
		input, err := strconv.Atoi(row[1])
		require.NoError(t, err)
		output, err := strconv.Atoi(row[2])
		require.NoError(t, err)
		r := request{input: input, output: output}
		for range (input + blockTokens - 1) / blockTokens {
			id++
			r.blocks = append(r.blocks, id)
		}
		rows = append(rows, r)
	}
	return rows
}

// TestReplayPrefixes: giving an engine what begins alike makes its cache hit more often.
func TestReplayPrefixes(t *testing.T) {
	rows := mooncake(t, rowsOf(t, 600))
	for _, engines := range []int{1, 4} {
		plain := replay(t, rows, engines, 16, 2000, false, batch.Rules{})
		near := replay(t, rows, engines, 16, 2000, false, batch.Rules{Prefix: true})
		t.Logf("%d requests, %d engines: hits %.1f %% of tokens in order, %.1f %% by prefix; %.2f times less to read; %v and %v", len(rows), engines, 100*plain.hits, 100*near.hits,
			plain.busy.Seconds()/near.busy.Seconds(), plain.took.Round(time.Millisecond), near.took.Round(time.Millisecond))
		require.Greater(t, near.hits, plain.hits)
	}
}

// TestReplayLengths: an engine that answers whole batches gains by getting together what is about as long; one with continuous
// batching does not.
func TestReplayLengths(t *testing.T) {
	rows := azure(t, rowsOf(t, 600))
	plain := replay(t, rows, 2, 16, 2000, true, batch.Rules{})
	alike := replay(t, rows, 2, 16, 2000, true, batch.Rules{Length: true})
	t.Logf("%d requests, 2 engines that answer whole batches: busy for %v in order, %v by length: %.2f times as fast", len(rows),
		plain.busy.Round(time.Second), alike.busy.Round(time.Second), plain.busy.Seconds()/alike.busy.Seconds())
	require.Less(t, alike.busy, plain.busy)
}
