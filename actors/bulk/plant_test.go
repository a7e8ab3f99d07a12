package bulk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// plant is a node without its HTTP: batches, files and tasks on a few shards in memory, and an engine that echoes. Time runs fast.
type plant struct {
	t       *testing.T
	store   *persisttest.Store
	sys     *actors.System
	files   *file.Library
	batches *bulk.Batches
	now     func() time.Time
	appends atomic.Int64  // so far, of all shards
	gate    chan struct{} // the engine answers while it is closed; see hold

	mu    sync.Mutex
	posts []callback.Delivery
	down  int // deliveries that fail
}

const (
	shards = 3
	haste  = 10 // seconds of the plant's in one of ours
)

// held is an engine that answers when it is let.
type held struct {
	*infer.Echo
	gate chan struct{}
}

func (h *held) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	select {
	case <-h.gate:
		return h.Echo.Do(ctx, r)
	case <-ctx.Done():
		return nil, fault.New(fault.Timeout, "test", "", "%w", ctx.Err())
	}
}

func newPlant(t *testing.T, window int) *plant {
	p := &plant{t: t, store: persisttest.NewStore(shards), gate: make(chan struct{})}
	began := time.Now()
	p.now = func() time.Time { return began.Add(haste * time.Since(began)) }
	log := slog.New(slog.DiscardHandler)
	m := meter.New(prometheus.NewRegistry())
	policy := task.DefaultPolicy(rand.Float64)
	policy.BackoffMin, policy.BackoffMax, policy.Attempts = 5*time.Millisecond, 20*time.Millisecond, 2
	p.batches = bulk.New(p.now, log)
	janitor := file.NewJanitor(0, log)
	engine := &held{infer.NewEcho(infer.EchoOptions{Directives: true}), p.gate}
	var err error
	p.sys, err = actors.Start(actors.Options{
		Node: "n1", Store: p.store, Engines: []actors.Engine{{Engine: engine, Concurrency: 64, Prefetch: 64}}, Policy: policy, Window: batch.DefaultWindow(),
		Reconcile: 250 * time.Millisecond, Runner: &infer.Runner{Meter: m, Now: p.now}, Meter: m, Now: p.now, Log: log,
		Kinds: append(janitor.Kinds(), p.batches.Kind()),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.sys.StopEngines()
		p.batches.Stop()
		janitor.Stop()
		p.sys.Stop()
		require.NoError(t, p.store.Close())
	})
	<-p.sys.Shards.Ready()
	p.files = file.NewLibrary(p.sys.Router, blob.New(p.sys.Router), p.now)
	p.batches.Attach(bulk.Options{
		Router: p.sys.Router, Files: p.files, Tasks: p.sys.Tasks, Submit: p.submit, Dir: t.TempDir(), Window: window, DriversMax: 4, TimeoutMax: time.Hour,
		Served: func(_ context.Context, _, model string) error {
			if model == "unknown" {
				return fault.New(fault.Invalid, "test", "model", "nobody serves it")
			}
			return nil
		},
		Hooks: []string{"http://hook/"}, Post: p.post,
		Next: func(try int, _ error) (time.Duration, bool) { return time.Second, try >= 3 },
	})
	p.files.Outputs(p.batches)
	return p
}

// letGo lets the engine answer.
func (p *plant) letGo() { close(p.gate) }

func (p *plant) submit(ctx context.Context, lines []*task.Submit) []error {
	writes := make([]persistence.Write, len(lines))
	for i, m := range lines {
		if m.Model == "" {
			m.Model = task.AnyModel
		}
		if err := m.Validate(); err != nil {
			return []error{err}
		}
		var err error
		if _, writes[i], err = p.sys.Tasks.First(m.Spec.ID, m, p.now); err != nil {
			return []error{err}
		}
	}
	errs := p.sys.Router.Create(ctx, writes)
	for i, err := range errs {
		if fault.KindOf(err) == fault.Conflict {
			_, errs[i] = p.sys.Router.Ask(ctx, task.Key(lines[i].Spec.ID), lines[i])
		}
	}
	return errs
}

func (p *plant) post(_ context.Context, d callback.Delivery) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down > 0 {
		p.down--
		return fault.New(fault.Unavailable, "test", "", "down")
	}
	p.posts = append(p.posts, d)
	return nil
}

// every makes f the hook of all shards, with the number of the append over all of them.
func (p *plant) every(lose bool, f func(n int64) error) {
	for i := range shards {
		hook := func(int) error { return f(p.appends.Add(1)) }
		if m := p.store.Memory(i); lose {
			m.LoseAppend = hook
		} else {
			m.FailAppend = hook
		}
	}
}

// moved makes every shard lose its owner and get it back.
func (p *plant) moved() {
	for i := range shards {
		p.store.Lead(persistence.Lead{Shard: i})
		p.store.Lead(persistence.Lead{Shard: i, Leading: true})
	}
}

// again repeats what failed for a while, as clients do.
func again[T any](p *plant, f func(ctx context.Context) (T, error)) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	for {
		v, err := f(ctx)
		if err == nil {
			return v
		}
		require.True(p.t, fault.KindOf(err).Retryable(), "%v", err)
		require.NoError(p.t, ctx.Err(), "%v", err)
	}
}

// line is one of the input: what it says is echoed, "!" fails.
func line(id, prompt string) string {
	if prompt == "!" {
		prompt = infer.EchoMark + "fail=always kind=invalid\nx"
	}
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/tasks","body":{"prompt":%q}}`, id, prompt) + "\n"
}

// input is n lines, of which every seventh fails.
func input(n int) string {
	var b strings.Builder
	for i := range n {
		prompt := fmt.Sprint("say ", i)
		if i%7 == 3 {
			prompt = "!"
		}
		b.WriteString(line(fmt.Sprint("c", i), prompt))
	}
	return b.String()
}

// put stores an input.
func (p *plant) put(in string) string {
	p.t.Helper()
	return again(p, func(ctx context.Context) (file.Info, error) {
		return p.files.Put(ctx, file.PutOptions{Filename: "in.jsonl", Purpose: file.PurposeBatch}, strings.NewReader(in))
	}).ID
}

// create makes a batch of an input, and returns its id.
func (p *plant) create(in string, change func(*bulk.Header)) string {
	p.t.Helper()
	h := &bulk.Header{InputFile: p.put(in), Endpoint: bulk.EndpointTasks, Window: "24h"}
	change(h)
	require.NoError(p.t, h.Validate())
	id := bulk.NewID()
	again(p, func(ctx context.Context) (bulk.State, error) { return p.batches.Create(ctx, id, h) })
	return id
}

func plain(*bulk.Header) {}

// until waits for a state.
func (p *plant) until(id string, ok func(bulk.State) bool) bulk.State {
	p.t.Helper()
	changed, stop := p.batches.Watch(id)
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for {
		s := again(p, func(ctx context.Context) (bulk.State, error) { return p.batches.Get(ctx, id) })
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(p.t, "the batch does not come so far", "%+v", s)
		}
	}
}

func (p *plant) final(id string) bulk.State {
	p.t.Helper()
	return p.until(id, func(s bulk.State) bool { return s.Phase.Final() })
}

// answer is a line of an output or error file.
type answer struct {
	ID       string `json:"id"`
	CustomID string `json:"custom_id"`
	Response *struct {
		StatusCode int `json:"status_code"`
		Body       struct {
			Text string `json:"text"`
		} `json:"body"`
	} `json:"response"`
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
}

// read reads a part of a batch from its file.
func (p *plant) read(id, part string) (lines []answer, raw []byte) {
	p.t.Helper()
	raw = again(p, func(ctx context.Context) ([]byte, error) {
		r, _, err := p.files.Open(ctx, bulk.FileID(id, part), 0)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	})
	for sc := bufio.NewScanner(bytes.NewReader(raw)); sc.Scan(); {
		var a answer
		require.NoError(p.t, json.Unmarshal(sc.Bytes(), &a), "%s", sc.Text())
		lines = append(lines, a)
	}
	return lines, raw
}

// check holds a final batch against its input of n lines: every line is in one of its files once, in order, and the counts are the lines.
func (p *plant) check(id string, n int) (output, errors []answer) {
	p.t.Helper()
	s := p.final(id)
	for _, part := range []string{bulk.PartOutput, bulk.PartErrors} {
		if s.Bytes(part) == 0 {
			_, err := p.files.Get(context.Background(), bulk.FileID(id, part))
			require.Equal(p.t, fault.NotFound, fault.KindOf(err), "a file only where it has lines")
			continue
		}
		lines, raw := p.read(id, part)
		require.EqualValues(p.t, s.Bytes(part), len(raw), "%s of %+v", part, s)
		info, err := p.files.Get(context.Background(), bulk.FileID(id, part))
		require.NoError(p.t, err)
		require.EqualValues(p.t, len(raw), info.Bytes)
		if part == bulk.PartOutput {
			output = lines
		} else {
			errors = lines
		}
	}
	total, completed, failed := s.Counts()
	require.EqualValues(p.t, n, total)
	require.EqualValues(p.t, len(output), completed)
	require.EqualValues(p.t, len(errors), failed)
	seen := map[string]bool{}
	for _, part := range [][]answer{output, errors} {
		last := -1
		for _, a := range part {
			require.False(p.t, seen[a.CustomID], "%s comes twice", a.CustomID)
			seen[a.CustomID] = true
			var number int
			_, err := fmt.Sscanf(a.CustomID, "c%d", &number)
			require.NoError(p.t, err)
			require.Greater(p.t, number, last, "in the input's order")
			last = number
			if a.Response != nil && a.Response.StatusCode == 200 {
				require.Equal(p.t, fmt.Sprint("say ", number), a.Response.Body.Text)
			}
		}
	}
	require.Len(p.t, seen, n, "every line is there")
	return output, errors
}
