package explain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// folded is what facts add up to, a second after one another from noon on unless they say when.
func folded(t *testing.T, facts ...task.Fact) *task.Record {
	t.Helper()
	for i := range facts {
		if facts[i].At.IsZero() {
			facts[i].At = noon.Add(time.Duration(i) * time.Second)
		}
	}
	_, r, err := Story(facts)
	require.NoError(t, err)
	return &r
}

func engine(name string, change func(*Engine)) Engine {
	e := Engine{Name: name, Models: []string{"glm"}, Endpoints: []string{task.EndpointChat}, Healthy: true, Limit: 4}
	if change != nil {
		change(&e)
	}
	return e
}

func TestExplain(t *testing.T) {
	submitted := func(change func(*task.Spec)) task.Fact {
		s := &task.Spec{Prompt: "p"}
		if change != nil {
			change(s)
		}
		return task.Fact{Event: task.Submitted, Spec: s, Model: s.ModelOr("glm")}
	}
	claimed := task.Fact{Event: task.Claimed, Attempt: 1, Epoch: 7, Node: "a", Boot: "a1", Engine: "e", Until: noon.Add(90 * time.Second)}
	failed := task.Fact{Event: task.AttemptFailed, Attempt: 1, Until: noon.Add(time.Minute), Error: &task.Failure{Kind: "unavailable", Message: "connection refused."}}
	answered := task.Fact{Event: task.Answered, Attempt: 1, Answer: &task.Answer{Text: "x"}}
	called := func(s *task.Spec) { s.CallbackURL = "https://example.com/" }
	busy := func(e *Engine) { e.InFlight = 4 }
	down := func(e *Engine) { e.Healthy, e.Reason = false, "connection refused" }
	paused := func(e *Engine) { e.Paused = noon.Add(20 * time.Second) }
	other := func(e *Engine) { e.Models = []string{"tiny"} }
	tools := func(model string) func(*Engine) {
		return func(e *Engine) { e.Models, e.Endpoints = []string{model}, []string{task.EndpointTool} }
	}
	one := func(es ...Engine) []Node { return []Node{{Name: "a", Boot: "a1", Engines: es}} }
	now := noon.Add(10 * time.Second)
	seen := map[string]bool{}
	for name, c := range map[string]struct {
		facts  []task.Fact
		nodes  []Node
		ahead  Waiting
		newest string
		now    time.Time
		quota  Quota
		code   string
		until  time.Duration // after noon; 0: none
		text   string
	}{
		"its time": {facts: []task.Fact{submitted(func(s *task.Spec) { at := noon.Add(time.Hour); s.NotBefore = &at })}, code: ForTime, until: time.Hour,
			text: "It waits for its time, as submitted (not_before)."},
		"its time came": {facts: []task.Fact{submitted(func(s *task.Spec) { at := noon.Add(time.Hour); s.NotBefore = &at })}, now: noon.Add(time.Hour), nodes: one(engine("e", nil)), code: ForTurn,
			text: `It waits for an engine that serves model "glm". One has room, so it should be claimed soon: a/e has 0 of 4.`},
		"backoff": {facts: []task.Fact{submitted(nil), claimed, failed}, code: ForRetry, until: time.Minute,
			text: "Try 1 of 4 failed with unavailable: connection refused. It waits before the next one."},
		"its own number of tries": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Retry = &task.Retry{Attempts: 9} }), claimed, failed}, code: ForRetry, until: time.Minute,
			text: "Try 1 of 9 failed with unavailable: connection refused. It waits before the next one."},
		"backoff by the budget": {facts: []task.Fact{submitted(nil), claimed, failed}, newest: "the retry budget is used up", code: ForRetry, until: time.Minute,
			text: "Try 1 of 4 failed with unavailable: connection refused. It waits before the next one. The retry budget is used up."},
		"backoff is over": {facts: []task.Fact{submitted(nil), claimed, failed}, now: noon.Add(time.Minute), nodes: one(engine("e", busy)), code: ForSlot,
			text: `It waits for an engine that serves model "glm". All have as much as they may: a/e has 4 of 4.`},
		"nobody serves the model": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Model = "big" })}, nodes: one(engine("e", nil), engine("t", other)), ahead: Waiting{Known: true, Count: 5}, code: ForModel,
			text: `It waits for an engine that serves model "big": of the 1 node that answered, none does; they serve glm, tiny.`},
		"nobody serves the model of its step": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Steps = task.Steps{{Prompt: "x", Model: "big"}} }), claimed, {Event: task.StepDone, Attempt: 1, Answer: &task.Answer{Text: "x"}}},
			nodes: one(engine("e", nil), engine("tools-http", tools(task.ToolHTTP))), code: ForModel,
			text: `It waits for an engine that serves model "big": of the 1 node that answered, none does; they serve glm.`},
		"its step's model is busy": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Prompt, s.Steps = "", task.Steps{{Prompt: "x", Model: "tiny"}} })}, nodes: one(engine("e", nil), Engine{Name: "t", Models: []string{"tiny"}, Endpoints: []string{task.EndpointChat}, Healthy: true, Limit: 1, InFlight: 1}), code: ForSlot,
			text: `It waits for an engine that serves model "tiny". All have as much as they may: a/t has 1 of 1.`},
		"a tool's turn": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Prompt, s.Steps = "", task.Steps{{HTTP: &task.HTTPTool{URL: "http://h/"}}} })}, nodes: one(engine("e", busy), engine("tools-http", tools(task.ToolHTTP))), code: ForTurn,
			text: `It waits for an engine that serves HTTP tools. One has room, so it should be claimed soon: a/tools-http has 0 of 4.`},
		"nobody has the module": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Prompt, s.Steps = "", task.Steps{{Wasm: &task.WasmTool{Module: "score"}}} })}, nodes: one(engine("e", nil), engine("tools-wasm", tools(task.ToolWasm("other")))), code: ForModel,
			text: `It waits for an engine that serves WASM module "score": of the 1 node that answered, none does; they serve glm, wasm:other at tool.`},
		"there is no engine": {facts: []task.Fact{submitted(nil)}, nodes: one(), code: ForModel,
			text: `It waits for an engine that serves model "glm": of the 1 node that answered, none does, and there is no other engine.`},
		"nobody serves the endpoint": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Prompt, s.Endpoint, s.Request = "", task.EndpointEmbeddings, []byte(`{}`) })}, nodes: one(engine("e", nil)), code: ForModel,
			text: `It waits for an engine that serves model "glm" at /v1/embeddings: of the 1 node that answered, none does; they serve glm.`},
		"a node is silent": {facts: []task.Fact{submitted(nil)}, nodes: append(one(engine("t", other)), Node{Name: "b", Silent: true}), code: ForModel,
			text: `It waits for an engine that serves model "glm": of the 1 node that answered, none does; they serve tiny. Node b did not answer: its engines are not known.`},
		"down": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", down)), code: ForEngine,
			text: `It waits for an engine that serves model "glm". Every engine that does is down: a/e (connection refused).`},
		"an engine that has not said what it serves": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", func(e *Engine) { e.Models, e.Healthy, e.Reason = nil, false, "not asked yet" })), code: ForEngine,
			text: `It waits for an engine that serves model "glm". Every engine that does is down: a/e (not asked yet).`},
		"paused": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", paused), engine("f", down)), code: ForPause, until: 20 * time.Second,
			text: `It waits for an engine that serves model "glm". Those that do are overloaded and asked for a pause: a/e until 12:00:20 UTC. Down: a/f (connection refused).`},
		"the pause is over": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", paused)), now: noon.Add(20 * time.Second), code: ForTurn,
			text: `It waits for an engine that serves model "glm". One has room, so it should be claimed soon: a/e has 0 of 4.`},
		"busy, others waiting": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", busy), engine("f", paused)), ahead: Waiting{Known: true, Count: 12}, code: ForSlot,
			text: `It waits for an engine that serves model "glm". All have as much as they may: a/e has 4 of 4. Asked for a pause: a/f until 12:00:20 UTC. 12 tasks are before it in its queue.`},
		"many wait": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", nil)), ahead: Waiting{Known: true, Count: 1000, More: true, Own: true}, code: ForTurn,
			text: `It waits for an engine that serves model "glm". One has room, so it should be claimed soon: a/e has 0 of 4. At least 1000 tasks of yours are before it in its queue.`},
		"a deadline": {facts: []task.Fact{submitted(func(s *task.Spec) { d := noon.Add(24 * time.Hour); s.Deadline = &d })}, nodes: one(engine("e", nil)), ahead: Waiting{Known: true}, code: ForTurn,
			text: `It waits for an engine that serves model "glm". One has room, so it should be claimed soon: a/e has 0 of 4. No task is before it in its queue. It fails if it has not ended by its deadline, 2026-03-05 12:00:00 UTC.`},
		"any model": {facts: []task.Fact{submitted(func(s *task.Spec) { s.Model = task.AnyModel })}, nodes: one(engine("e", busy)), code: ForSlot,
			text: "It waits for an engine that serves any model. All have as much as they may: a/e has 4 of 4."},
		"quota used up": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", nil)), quota: Quota{Running: 3, May: 3}, code: ForQuota,
			text: "Its tenant has as many tasks running as its quota allows: 3 of 3."},
		"quota of tokens": {facts: []task.Fact{submitted(nil)}, nodes: one(engine("e", nil)), quota: Quota{Running: 2, May: 3, Other: "tokens a minute 600"}, code: ForTurn,
			text: `It waits for an engine that serves model "glm". One has room, so it should be claimed soon: a/e has 0 of 4. Its tenant's quota may hold it up for a while: tokens a minute 600.`},
		"running": {facts: []task.Fact{submitted(nil), claimed}, nodes: one(engine("e", nil)), code: ForAttempt, until: 90 * time.Second,
			text: "Attempt 1 (try 1 of 4) runs on node a, engine e, since 12:00:01 UTC, under a lease."},
		"running where the engine is down": {facts: []task.Fact{submitted(nil), claimed}, nodes: one(engine("e", down)), code: ForAttempt, until: 90 * time.Second,
			text: "Attempt 1 (try 1 of 4) runs on node a, engine e, since 12:00:01 UTC, under a lease. That engine is down: connection refused."},
		"running on a node that is silent": {facts: []task.Fact{submitted(nil), claimed}, nodes: []Node{{Name: "a", Boot: "a1", Silent: true}}, code: ForAttempt, until: 90 * time.Second,
			text: "Attempt 1 (try 1 of 4) runs on node a, engine e, since 12:00:01 UTC, under a lease. Node a did not answer just now."},
		"its node is gone": {facts: []task.Fact{submitted(nil), claimed}, nodes: []Node{{Name: "b"}}, code: ForLease,
			text: "Attempt 1 ran on node a, which is gone or was started again since. It is about to be taken back, at no cost of a try."},
		"its node was started again": {facts: []task.Fact{submitted(nil), claimed}, nodes: []Node{{Name: "a", Boot: "a2"}}, code: ForLease,
			text: "Attempt 1 ran on node a, which is gone or was started again since. It is about to be taken back, at no cost of a try."},
		"its lease is over": {facts: []task.Fact{submitted(nil), claimed}, nodes: one(engine("e", nil)), now: noon.Add(90 * time.Second), code: ForLease, until: 90 * time.Second,
			text: "Attempt 1 (try 1 of 4) runs on node a, engine e, since 12:00:01 UTC. Its lease is over: it is about to be taken back."},
		"completed": {facts: []task.Fact{submitted(nil), claimed, answered}, code: Nothing, text: "It is completed, after 1 attempt."},
		"failed": {facts: []task.Fact{submitted(nil), claimed, {Event: task.Refused, Attempt: 1, Error: &task.Failure{Kind: "invalid", Message: "too long", Remedy: "send less"}}}, code: Nothing,
			text: "It failed after 1 attempt, with invalid: too long. Send less."},
		"tried again": {facts: []task.Fact{submitted(nil), claimed, {Event: task.Refused, Attempt: 1, Error: &task.Failure{Kind: "invalid", Message: "too long"}}, {Event: task.Retried, As: "t.retry-1", Skip: true}}, code: Nothing,
			text: "It failed after 1 attempt, with invalid: too long. It was tried again as t.retry-1."},
		"callback under way": {facts: []task.Fact{submitted(called), claimed, answered}, code: ForCallback, text: "It is completed, after 1 attempt. Its callback is being sent."},
		"callback waits": {facts: []task.Fact{submitted(called), claimed, answered, {Event: task.CallbackLost, Attempt: 2, Until: noon.Add(time.Hour), Error: &task.Failure{Kind: "unavailable", Message: "the receiver answered 503"}}},
			code: ForCallback, until: time.Hour,
			text: "It is completed, after 1 attempt. Its callback failed 2 times, the newest with unavailable: the receiver answered 503. It waits for the next try."},
		"callback delivered": {facts: []task.Fact{submitted(called), claimed, answered, {Event: task.CallbackSent, Attempt: 1}}, code: Nothing,
			text: "It is completed, after 1 attempt. Its callback was delivered at try 1."},
		"callback given up": {facts: []task.Fact{submitted(called), claimed, answered, {Event: task.CallbackGaveUp, Attempt: 10, Error: &task.Failure{Kind: "refused", Message: "410 Gone"}}}, code: Nothing,
			text: "It is completed, after 1 attempt. Its callback was given up after 10 tries: refused: 410 Gone."},
		"cancelled": {facts: []task.Fact{submitted(nil), {Event: task.CancelAsked}}, code: Nothing, text: "It is cancelled, after 0 attempts."},
	} {
		t.Run(name, func(t *testing.T) {
			s := Scene{Now: now, Record: folded(t, c.facts...), Newest: c.newest, Attempts: 4, Nodes: c.nodes, Ahead: c.ahead, Quota: c.quota}
			if !c.now.IsZero() {
				s.Now = c.now
			}
			w := Explain(s)
			require.Equal(t, c.code, w.Code)
			require.Equal(t, c.text, w.Text)
			if c.until == 0 {
				require.Nil(t, w.Until)
			} else {
				require.Equal(t, noon.Add(c.until), *w.Until)
			}
			if w.Ahead != nil {
				require.Equal(t, []any{c.ahead.Count, c.ahead.More}, []any{*w.Ahead, w.More})
			}
		})
		seen[c.code] = true
	}
	for _, code := range []string{Nothing, ForTime, ForRetry, ForModel, ForEngine, ForPause, ForSlot, ForTurn, ForQuota, ForAttempt, ForLease, ForCallback} {
		require.True(t, seen[code], "%s is in no case", code)
	}
	require.Equal(t, ForSomething, Explain(Scene{Record: &task.Record{State: 99}}).Code)
}

func TestStory(t *testing.T) {
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	steps, r, err := Story([]task.Fact{
		{Event: task.Submitted, At: at(0), Spec: &task.Spec{Prompt: "p", Steps: task.Texts("q"), CallbackURL: "http://x/"}, Model: "m"},
		{Event: task.Claimed, At: at(2), Attempt: 1, Epoch: 3, Node: "a", Engine: "e", Until: at(92)},
		{Event: task.AttemptFailed, At: at(5), Attempt: 1, Until: at(10), Error: &task.Failure{Kind: "unavailable", Message: "x", Status: 503, Body: []byte(`{}`)}},
		{Event: task.Claimed, At: at(14), Attempt: 2, Epoch: 3, Node: "b", Engine: "f", Until: at(100)},
		{Event: task.StepDone, At: at(20), Attempt: 2, Answer: &task.Answer{Text: "t", PromptTokens: 7, OutputTokens: 3, StartedAt: at(15), EndedAt: at(19)}},
		{Event: task.Claimed, At: at(21), Attempt: 3, Epoch: 4, Node: "b", Engine: "f", Until: at(100)},
		{Event: task.OwnerMoved, At: at(22), Attempt: 3, Reason: "node b is gone"},
		{Event: task.Newer, At: at(22), Skip: true},
		{Event: task.Claimed, At: at(23), Attempt: 4, Epoch: 4, Node: "a", Engine: "e", Until: at(100)},
		{Event: task.Answered, At: at(25), Attempt: 4, Answer: &task.Answer{Text: "t", StartedAt: at(22), EndedAt: at(24)}}, // another node's clock
		{Event: task.CallbackLost, At: at(26), Attempt: 1, Until: at(31), Error: &task.Failure{Kind: "timeout", Message: "y"}},
	})
	require.NoError(t, err)
	require.Equal(t, task.Completed, r.State)
	type row struct {
		event                      string
		version                    uint64
		step                       int
		node, engine               string
		queued, fetched, ran, took float64
	}
	const no = -1
	var rows []row
	or := func(f *float64) float64 {
		if f == nil {
			return no
		}
		return *f
	}
	for _, s := range steps {
		rows = append(rows, row{s.Event.String(), s.Version, s.Step, s.Node, s.Engine, or(s.Queued), or(s.Fetched), or(s.Ran), or(s.Took)})
	}
	require.Equal(t, []row{
		{"submitted", 1, 0, "", "", no, no, no, no},
		{"claimed", 2, 0, "a", "e", 2, no, no, no},
		{"attempt_failed", 3, 0, "a", "e", no, no, no, 3},
		{"claimed", 4, 0, "b", "f", 4, no, no, no}, // since its backoff was over
		{"step_done", 5, 0, "b", "f", no, 1, 4, 6},
		{"claimed", 6, 1, "b", "f", 1, no, no, no},
		{"owner_moved", 7, 1, "b", "f", no, no, no, 1},
		{"newer", 8, 0, "", "", no, no, no, no},
		{"claimed", 9, 1, "a", "e", 1, no, no, no},
		{"answered", 10, 1, "a", "e", no, 0, 2, 2},
		{"callback_lost", 11, 0, "", "", no, no, no, no},
	}, rows)
	require.Nil(t, steps[2].Error.Body)
	require.Equal(t, at(31), *steps[10].Until)
	require.Equal(t, []int{7, 3}, []int{steps[4].Prompt, steps[4].Output})
	_, _, err = Story([]task.Fact{{Event: task.Claimed}})
	require.Error(t, err)
}

// TestStoryOfASecondRun: who answered, and who should have.
func TestStoryOfASecondRun(t *testing.T) {
	steps, r, err := Story([]task.Fact{
		{Event: task.Submitted, At: noon, Spec: &task.Spec{Prompt: "p"}, Model: "m"},
		{Event: task.Claimed, At: noon, Attempt: 1, Node: "a", Engine: "e"},
		{Event: task.Answered, At: noon.Add(time.Minute), Attempt: 1, Answer: &task.Answer{Text: "t", Second: &task.Place{Node: "b", Engine: "f"}}},
	})
	require.NoError(t, err)
	require.Equal(t, "b/f", steps[2].Node+"/"+steps[2].Engine)
	require.Equal(t, "a second run of the attempt, as it took much longer than others like it at a/e", steps[2].Reason)
	require.Equal(t, "a", r.Attempts[0].Node, "who claimed it")
}
