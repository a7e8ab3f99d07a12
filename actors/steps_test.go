package actors_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

//go:embed testdata/hotpot-20.jsonl
var hotpot []byte

// scholar answers by what it is asked, so that an answer shows the question that it was to, and holds every question after a number of them.
type scholar struct {
	*infer.Echo
	mu    sync.Mutex
	asked map[string]int // by task and whole conversation
	left  int            // questions that are answered
	held  chan struct{}  // closed when the next one came
}

func newScholar(left int) *scholar {
	return &scholar{Echo: infer.NewEcho(infer.EchoOptions{}), asked: map[string]int{}, left: left, held: make(chan struct{})}
}

func (s *scholar) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	s.mu.Lock()
	said, err := json.Marshal(r.Messages)
	if err != nil {
		return nil, err
	}
	s.asked[r.Key[:strings.LastIndexByte(r.Key, '/')]+string(said)]++
	s.left--
	hold := s.left < 0
	if s.left == -1 {
		close(s.held)
	}
	s.mu.Unlock()
	if hold {
		<-ctx.Done()
		return nil, fault.New(fault.Unavailable, "scholar", "", "it was killed: %w", ctx.Err())
	}
	last := r.Messages[len(r.Messages)-1].Content
	text := "[" + last + "]"
	switch q, plan := strings.CutPrefix(last, "PLAN "); {
	case plan && strings.Contains(q, "Ed Wood"):
		text = "I would look for " + q // no JSON: it is told so
	case plan || strings.HasPrefix(last, "That answer does not keep"):
		text = fmt.Sprintf(`{"hops":["who: %d","what: %d"]}`, len(r.Messages), len(last))
	}
	return &infer.Response{Text: text, FinishReason: "stop", Model: r.Model, PromptTokens: 1, OutputTokens: 1}, nil
}

const planSchema = `{"type":"json_schema","json_schema":{"name":"plan","schema":{"type":"object","required":["hops"],"properties":{"hops":{"type":"array","minItems":2,"items":{"type":"string"}}}}}}`

// hop is a question in four steps, where each needs what those before it found.
func hop(t *testing.T, i int, question string) *task.Spec {
	no := false
	s := &task.Spec{ID: fmt.Sprint("hop", i), Metadata: map[string]string{"question": question}, Steps: task.Steps{
		{Name: "plan", Prompt: "PLAN {{ .metadata.question }}", Format: json.RawMessage(planSchema)},
		{Name: "one", Prompt: "{{ index .steps.plan.json.hops 0 }}"},
		{Name: "two", Prompt: "{{ index .steps.plan.json.hops 1 }} given {{ .steps.one.output }}"},
		{Name: "answer", Prompt: "{{ .metadata.question }} by {{ join .steps.plan.json.hops \" and \" }}: {{ .steps.two.output }}", History: &no},
	}}
	require.NoError(t, s.Validate())
	return s
}

// TestWhatIsRepairedIsCounted for the tenant, too: it is journaled like an answer.
func TestWhatIsRepairedIsCounted(t *testing.T) {
	sys := startWith(t, persisttest.NewStore(2), func(*actors.Options) {}, actors.Engine{Engine: newScholar(1 << 30), Concurrency: 1})
	s := &task.Spec{ID: "r", Steps: task.Steps{{Name: "plan", Prompt: "PLAN Ed Wood", Format: json.RawMessage(planSchema)}}}
	submit(t, sys, s)
	r := await(t, sys, "r")
	require.Equal(t, task.Completed, r.State, "%+v", r.Error)
	require.Len(t, r.Attempts, 2)
	require.Equal(t, s.Bytes()+len("I would look for Ed Wood")+len(r.Answers[0].Text), r.Kept)
}

// TestHopsSurviveTheirNode: twenty questions of several hops, and one task that reads all of them as its data, when the node that owns and
// runs them dies in the middle. What was finished is not asked again, and every task ends as if nothing had happened.
func TestHopsSurviveTheirNode(t *testing.T) {
	var specs []*task.Spec
	for s := bufio.NewScanner(bytes.NewReader(hotpot)); s.Scan(); {
		var q struct{ Question string }
		require.NoError(t, json.Unmarshal(s.Bytes(), &q))
		specs = append(specs, hop(t, len(specs), q.Question))
	}
	require.Len(t, specs, 20)
	digest := &task.Spec{ID: "digest", DataURL: "http://data/hotpot", Steps: task.Steps{
		{Name: "all", Map: &task.Map{Over: "data", Split: task.Split{By: "lines", Size: 2}, Prompt: "{{ .index }} of {{ .of }}: {{ len (lines .part) }}"},
			Reduce: &task.Reduce{Prompt: "{{ len .parts }}: {{ join .parts \" \" }}", Size: 60}},
		{Prompt: "In short: {{ .steps.all.output }}"}}}
	require.NoError(t, digest.Validate())
	specs = append(specs, digest)

	run := func(t *testing.T, left int) (map[string][]string, *world, *node, []*scholar) {
		w := newWorld(t, 2, "a", "b")
		sum := sha256.Sum256(hotpot)
		fetch := func(o *actors.Options) {
			o.Runner.Fetch = func(context.Context, string) (source.Data, error) {
				return source.Data{Text: string(hotpot), MediaType: "application/x-ndjson", SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(hotpot))}, nil
			}
		}
		first, second := newScholar(left), newScholar(1<<30)
		a := w.start("a", fetch, actors.Engine{Engine: first, Concurrency: 4})
		w.spread("a")
		for _, s := range specs {
			submit(t, a.System, s)
		}
		on := a
		if left < 1<<30 {
			<-first.held
			on = w.start("b", fetch, actors.Engine{Engine: second, Concurrency: 4})
			w.kill("a", "b")
		}
		ended := map[string][]string{}
		for _, s := range specs {
			r := await(t, on.System, s.ID)
			require.Equal(t, task.Completed, r.State, "%+v", r.Error)
			for _, x := range r.Answers {
				ended[s.ID] = append(ended[s.ID], x.Text)
			}
		}
		return ended, w, on, []*scholar{first, second}
	}
	calm, _, _, quiet := run(t, 1<<30)
	total := 0
	for said, n := range quiet[0].asked {
		require.Equal(t, 1, n, said)
		total++
	}
	require.Equal(t, 20*4+1+10+len(calm["digest"])-10, total, "and one repair")
	require.Greater(t, len(calm["digest"]), 10+1+1, "its parts are merged in levels")

	for _, left := range []int{5, 41, 80} {
		t.Run(fmt.Sprint("after ", left), func(t *testing.T) {
			ended, w, on, engines := run(t, left)
			require.Equal(t, calm, ended)
			again := 0
			for said, n := range engines[0].asked {
				require.Equal(t, 1, n, said)
				again += min(1, engines[1].asked[said])
			}
			// Only what was under way is asked again: four at the engine, and answers that had not reached their tasks.
			require.LessOrEqual(t, again, 8)
			for _, s := range specs {
				w.once(on, s.ID)
				facts, err := on.Tasks.History(w.disks.Memory(on.Router.ShardOf(task.Key(s.ID))), s.ID, 0)
				require.NoError(t, err)
				answers := 0
				for _, f := range facts {
					if f.Answer != nil {
						answers++
					}
				}
				require.Equal(t, len(ended[s.ID]), answers, "each step has one answer in the journal")
			}
		})
	}
}

// TestDataIsFetchedOnceAndMustStay: one fetch for all parts of a map, and none of them is about other data.
func TestDataIsFetchedOnceAndMustStay(t *testing.T) {
	spec := func(id string) *task.Spec {
		return &task.Spec{ID: id, DataURL: "http://data/" + id, Steps: task.Steps{
			{Map: &task.Map{Over: "data", Split: task.Split{By: "lines", Size: 1}, Prompt: "{{ .part }}"}, Reduce: &task.Reduce{Prompt: "{{ join .parts \",\" }}"}},
			{Prompt: "{{ .data }} again"}}}
	}
	var mu sync.Mutex
	fetched := 0
	text := "one\ntwo\nthree\n"
	fetch := func(o *actors.Options) {
		o.Runner.Fetch = func(context.Context, string) (source.Data, error) {
			mu.Lock()
			defer mu.Unlock()
			fetched++
			sum := sha256.Sum256([]byte(text))
			return source.Data{Text: text, SHA256: hex.EncodeToString(sum[:])}, nil
		}
	}
	store := persisttest.NewStore(1)
	sys := startWith(t, store, fetch, echo(1))
	submit(t, sys, spec("same"))
	r := await(t, sys, "same")
	require.Equal(t, task.Completed, r.State, "%+v", r.Error)
	require.Equal(t, "one\ntwo\nthree\n again", r.Text())
	require.Equal(t, 1, fetched)

	w := newWorld(t, 1, "a", "b")
	e := newScholar(2)
	a := w.start("a", fetch, actors.Engine{Engine: e, Concurrency: 1})
	w.spread("a")
	submit(t, a.System, spec("changed"))
	<-e.held
	mu.Lock()
	text = "four\n"
	mu.Unlock()
	b := w.start("b", fetch, echo(1))
	w.kill("a", "b")
	r = await(t, b.System, "changed")
	require.Equal(t, task.Failed, r.State)
	require.Contains(t, r.Error.Message, "has changed since the first step")
	require.NotEmpty(t, r.Error.Remedy)
	require.Len(t, r.Answers, 2)
}
