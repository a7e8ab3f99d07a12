package actors_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tool"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// workshop is a tool's server that outlives the nodes: it knows what it was asked twice. It holds every request after a number of them.
type workshop struct {
	mu    sync.Mutex
	asked map[string]int // by idempotency key
	left  int
	held  chan struct{}
	url   string
}

func newWorkshop(t *testing.T, left int) *workshop {
	w := &workshop{asked: map[string]int{}, left: left, held: make(chan struct{})}
	s := httptest.NewServer(w)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	w.url = s.URL
	return w
}

// times tells how often a call was made.
func (w *workshop) times(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[key]
}

func (w *workshop) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	key := r.Header.Get(tool.KeyHeader)
	w.asked[key]++
	nth := w.asked[key]
	w.left--
	hold := w.left < 0
	if w.left == -1 {
		close(w.held)
	}
	w.mu.Unlock()
	switch {
	case hold:
		<-r.Context().Done()
	case r.URL.Path == "/twice" && nth <= 2:
		rw.WriteHeader(500)
	case r.URL.Path == "/busy" && nth <= 2:
		rw.WriteHeader(503)
	case r.URL.Path == "/never":
		rw.WriteHeader(500)
	case r.URL.Path == "/no":
		rw.WriteHeader(404)
	default:
		fmt.Fprintf(rw, `{"length":%d,"said":%q}`, len(body), body)
	}
}

// tools runs HTTP tools, also of this machine.
func tools(t *testing.T, n int) actors.Engine {
	h := tool.NewHTTP(egress.Policy{AllowLoopback: true})
	t.Cleanup(h.Close)
	return actors.Engine{Engine: h, Endpoints: []string{task.EndpointTool}, Concurrency: n}
}

func named(name string, models ...string) actors.Engine {
	return actors.Engine{Engine: infer.NewEcho(infer.EchoOptions{Name: name, Models: models}), Concurrency: 4, Prefetch: 4}
}

// TestEachStepGoesToItsModel: two engines with a model each, on two nodes. Every question waits for the one that its step names, and a tool's for neither.
func TestEachStepGoesToItsModel(t *testing.T) {
	w, shop := newWorld(t, 2, "a", "b"), newWorkshop(t, 1<<30)
	a := w.start("a", nil, named("small-a", "small", "m"), tools(t, 2))
	w.start("b", nil, named("large-b", "large"))
	w.spread("a", "b")
	for i := range 20 {
		s := &task.Spec{ID: fmt.Sprint("t", i), Prompt: "one", Steps: task.Steps{
			{Name: "two", Prompt: "two after {{ .steps.first.output }}", Model: "large"},
			{Name: "three", HTTP: &task.HTTPTool{URL: shop.url + "/", Body: json.RawMessage(`{"text":"{{ .steps.two.output }}"}`)}},
			{Name: "four", Prompt: "four of {{ .steps.three.json.length }}", Model: "small"},
			{Text: "five"}}}
		require.NoError(t, s.Validate())
		submit(t, a.System, s)
	}
	for i := range 20 {
		r := await(t, a.System, fmt.Sprint("t", i))
		require.Equal(t, task.Completed, r.State, "%+v", r.Error)
		var engines []string
		for _, x := range r.Attempts {
			engines = append(engines, x.Engine)
		}
		require.Equal(t, []string{"small-a", "large-b", tool.HTTPName, "small-a", "small-a"}, engines)
		require.Equal(t, "two after one", r.Answers[1].Text)
		require.Equal(t, `{"length":24,"said":"{\"text\":\"two after one\"}"}`, r.Answers[2].Text)
		require.Equal(t, "four of 24", r.Answers[3].Text)
	}
	for i := range 20 {
		require.Equal(t, 1, shop.times(task.ToolKey(fmt.Sprint("t", i), 2)))
	}
}

// TestTroubleOfATool is its task's own: it is tried again or not by what was answered, under the same key, and others go on meanwhile.
func TestTroubleOfATool(t *testing.T) {
	shop := newWorkshop(t, 1<<30)
	sys := startWith(t, persisttest.NewStore(2), func(o *actors.Options) { o.Policy.SlowFactor = 1 }, echo(4), tools(t, 4))
	paths := map[string]struct {
		state    task.State
		attempts int
		kind     string
	}{"/twice": {task.Completed, 3, ""}, "/busy": {task.Completed, 3, ""}, "/never": {task.Failed, 4, "unavailable"}, "/no": {task.Failed, 1, "not_found"}, "/": {task.Completed, 1, ""}}
	for i := range 8 {
		for path := range paths {
			s := &task.Spec{ID: fmt.Sprint(path[1:], i), Steps: task.Steps{{Name: "x", HTTP: &task.HTTPTool{URL: shop.url + path}}, {Prompt: "{{ .steps.x.json.length }}"}}}
			require.NoError(t, s.Validate())
			submit(t, sys, s)
		}
	}
	for path, want := range paths {
		for i := range 8 {
			id := fmt.Sprint(path[1:], i)
			r := await(t, sys, id)
			require.Equal(t, want.state, r.State, "%s: %+v", id, r.Error)
			require.Equal(t, want.attempts, shop.times(task.ToolKey(id, 0)), id)
			if want.kind != "" {
				require.Equal(t, want.kind, r.Error.Kind)
				require.Len(t, r.Attempts, want.attempts)
			}
		}
	}
	for _, e := range sys.Engines() {
		require.True(t, e.Healthy, "%+v", e)
		require.Equal(t, 4, e.Limit, "one tool that is down, or busy, says nothing about the others")
		require.Zero(t, e.Unrecorded)
	}
}

// TestAToolsTimeoutIsItsStepsOwn: not the task's, which is longer.
func TestAToolsTimeoutIsItsStepsOwn(t *testing.T) {
	shop := newWorkshop(t, 0)
	sys := start(t, persisttest.NewStore(1), tools(t, 1))
	s := &task.Spec{ID: "slow", Timeout: task.Duration(time.Hour), Retry: &task.Retry{Attempts: 2}, Steps: task.Steps{{HTTP: &task.HTTPTool{URL: shop.url, Timeout: task.Duration(200 * time.Millisecond)}}}}
	require.NoError(t, s.Validate())
	submit(t, sys, s)
	r := await(t, sys, "slow")
	require.Equal(t, "timeout", r.Error.Kind)
	require.Len(t, r.Attempts, 2)
	require.Equal(t, 2, shop.times(task.ToolKey("slow", 0)))
}

// TestToolsSurviveTheirNode: the node dies while tools are asked. What they answered is not asked again; what was under way is, under the same key.
func TestToolsSurviveTheirNode(t *testing.T) {
	const n = 12
	shop := newWorkshop(t, 17)
	w := newWorld(t, 2, "a", "b")
	a := w.start("a", nil, echo(4), tools(t, 4))
	w.spread("a")
	for i := range n {
		s := &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("task ", i), Steps: task.Steps{
			{Name: "one", HTTP: &task.HTTPTool{URL: shop.url + "/one", Body: json.RawMessage(`"{{ .steps.first.output }}"`)}},
			{Name: "two", Prompt: "{{ .steps.one.json.said }}, {{ .steps.one.json.length }}"},
			{Name: "three", HTTP: &task.HTTPTool{URL: shop.url + "/three", Body: json.RawMessage(`{"all":"{{ .steps.two.output }}"}`)}}}}
		require.NoError(t, s.Validate())
		submit(t, a.System, s)
	}
	<-shop.held
	shop.mu.Lock()
	shop.left = 1 << 30
	before := len(shop.asked)
	shop.mu.Unlock()
	b := w.start("b", nil, echo(4), tools(t, 4))
	w.kill("a", "b")
	for i := range n {
		id := fmt.Sprint("t", i)
		r := await(t, b.System, id)
		require.Equal(t, task.Completed, r.State, "%+v", r.Error)
		require.Len(t, r.Answers, 4)
		text := fmt.Sprintf(`{"all":"task %d, %d"}`, i, len(fmt.Sprint("task ", i)))
		require.Equal(t, fmt.Sprintf(`{"length":%d,"said":%q}`, len(text), text), r.Answers[3].Text)
		w.once(b, id)
	}
	shop.mu.Lock()
	defer shop.mu.Unlock()
	require.Len(t, shop.asked, 2*n)
	again := 0
	for key, times := range shop.asked {
		require.LessOrEqual(t, times, 2, key)
		again += times - 1
	}
	t.Logf("%d calls before the node died, %d of %d made twice", before, again, 2*n)
	require.LessOrEqual(t, again, 8, "four were held, and as many answers may not have been durable")
	require.Positive(t, again)
}

// TestToolsAreCharged: a call that failed, too, so that nobody's many calls are always before others'.
func TestToolsAreCharged(t *testing.T) {
	for _, path := range []string{"/", "/no"} {
		shop := newWorkshop(t, 1<<30)
		sys := start(t, persisttest.NewStore(2), tools(t, 4))
		require.NoError(t, quota.New(sys.Router).Set(t.Context(), quota.Terms{Tenant: "acme", Hard: quota.Limits{TokensPerMinute: 300}}))
		until(t, "it knows", func() bool { return knows(sys, "acme") && sys.Quota.Room("acme", 5, 1<<20) > 0 })
		for i := range 20 {
			for _, whose := range []string{"acme", "other"} {
				submit(t, sys, &task.Spec{ID: fmt.Sprint("/", whose, "/", i), Steps: task.Steps{{HTTP: &task.HTTPTool{URL: shop.url + path}}}})
			}
		}
		for i := range 20 {
			require.True(t, await(t, sys, fmt.Sprint("/other/", i)).State.Final())
		}
		until(t, "nothing is under way, and it is in debt", func() bool { return sys.Busy() == 0 && sys.Quota.Room("acme", 5, 1<<20) == 0 })
		shop.mu.Lock()
		require.Less(t, len(shop.asked), 40, path)
		shop.mu.Unlock()
	}
}

// slowly is an engine that has something to do before a request.
type slowly struct {
	*infer.Echo
	mu             sync.Mutex
	ready, request time.Duration // how long each may take
}

func (e *slowly) Ready(ctx context.Context, _ *infer.Request) error {
	until, _ := ctx.Deadline()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ready = time.Until(until)
	return nil
}

func (e *slowly) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	until, _ := ctx.Deadline()
	e.mu.Lock()
	e.request = time.Until(until)
	e.mu.Unlock()
	return e.Echo.Do(ctx, r)
}

// TestWhatAnEngineDoesBeforehandIsNoneOfTheTimeout: but of the lease.
func TestWhatAnEngineDoesBeforehandIsNoneOfTheTimeout(t *testing.T) {
	e := &slowly{Echo: infer.NewEcho(infer.EchoOptions{})}
	sys := startWith(t, persisttest.NewStore(1), func(o *actors.Options) { o.Policy.LeaseMargin = time.Hour }, actors.Engine{Engine: e, Concurrency: 1})
	submit(t, sys, &task.Spec{ID: "t", Prompt: "p", Timeout: task.Duration(time.Minute)})
	require.Equal(t, task.Completed, await(t, sys, "t").State)
	e.mu.Lock()
	defer e.mu.Unlock()
	require.Greater(t, e.ready, time.Hour/2)
	require.LessOrEqual(t, e.request, time.Minute)
}
