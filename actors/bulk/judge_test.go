package bulk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// judged gives lines to a judge.
func judged(t *testing.T, h *Header, served func(endpoint, model string) error, in ...string) (Fact, *judge) {
	t.Helper()
	j := newJudge(h, t.TempDir(), time.Hour, served)
	defer j.ids.close()
	for i, l := range in {
		var bad error
		if l == "!" {
			bad = errLineLong
		}
		require.NoError(t, j.line(uint64(i), []byte(l), bad))
	}
	f, err := j.verdict()
	require.NoError(t, err)
	return f, j
}

func TestJudge(t *testing.T) {
	line := func(id, model string) string {
		return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"model":%q}}`, id, model)
	}
	served := func(_, model string) error {
		if model == "no" {
			return fault.New(fault.Invalid, "test", "model", "unknown")
		}
		return nil
	}
	type wrong struct {
		code string
		line uint64
	}
	for _, c := range []struct {
		name  string
		in    []string
		mixed bool
		model string
		total uint64
		wrong []wrong
	}{
		{"good", []string{line("a", "m"), line("b", "m")}, false, "m", 2, nil},
		{"blank at the end", []string{line("a", "m"), "", "  "}, false, "m", 1, nil},
		{"blank between", []string{line("a", "m"), "", "", line("b", "m")}, false, "", 0, []wrong{{codeJSON, 2}}},
		{"nothing", nil, false, "", 0, []wrong{{codeEmpty, 0}}},
		{"blank", []string{"", ""}, false, "", 0, []wrong{{codeEmpty, 0}}},
		{"twice", []string{line("a", "m"), line("b", "m"), line("a", "m"), line("a", "m")}, false, "", 0, []wrong{{codeTwice, 3}, {codeTwice, 4}}},
		{"two models", []string{line("a", "m"), line("b", "n"), line("c", "m")}, false, "", 0, []wrong{{codeModel, 2}}},
		{"two models, allowed", []string{line("a", "m"), line("b", "n")}, true, "", 2, nil},
		{"one model, more allowed", []string{line("a", "m")}, true, "m", 1, nil},
		{"not served", []string{line("a", "no"), line("b", "no")}, false, "", 0, []wrong{{codeNoModel, 1}, {codeNoModel, 2}}},
		{"too long", []string{line("a", "m"), "!", line("a", "m")}, false, "", 0, []wrong{{codeTooLarge, 2}, {codeTwice, 3}}},
		{"all kinds", []string{"{", line("a", "m"), line("a", "m"), line("b", "n")}, false, "", 0, []wrong{{codeJSON, 1}, {codeTwice, 3}, {codeModel, 4}}},
	} {
		h := &Header{Endpoint: task.EndpointChat, MixedModels: c.mixed}
		f, _ := judged(t, h, served, c.in...)
		if c.wrong == nil {
			require.Equal(t, Fact{Event: Accepted, Total: c.total, Model: c.model}, f, c.name)
			continue
		}
		require.Equal(t, Rejected, f.Event, c.name)
		var got []wrong
		for _, p := range f.Errors {
			got = append(got, wrong{p.Code, p.Line})
		}
		require.Equal(t, c.wrong, got, c.name)
	}
}

func TestJudgeKeepsTheFirstProblems(t *testing.T) {
	in := slices.Repeat([]string{good}, 3*problemsMax)
	f, j := judged(t, &Header{Endpoint: task.EndpointChat}, func(string, string) error { return nil }, in...)
	require.Len(t, f.Errors, problemsMax)
	for i, p := range f.Errors {
		require.EqualValues(t, i+2, p.Line)
	}
	require.EqualValues(t, len(in), j.total)
}

func TestJudgeWaitsForAnAnswerAboutModels(t *testing.T) {
	down := fault.New(fault.Unavailable, "test", "", "down")
	j := newJudge(&Header{Endpoint: task.EndpointChat}, t.TempDir(), time.Hour, func(string, string) error { return down })
	require.ErrorIs(t, j.line(0, []byte(good), nil), down)
}

func TestJudgeHoldsTimeoutsAgainstTheNode(t *testing.T) {
	l := `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"x","timeout":"61m"}}`
	f, _ := judged(t, &Header{Endpoint: EndpointTasks}, func(string, string) error { return nil }, l, strings.Replace(strings.Replace(l, "61m", "60m", 1), `"a"`, `"b"`, 1))
	require.Len(t, f.Errors, 1)
	require.Equal(t, Problem{Code: codeInvalid, Param: "body.timeout", Line: 1, Message: f.Errors[0].Message}, f.Errors[0])
}

// TestJudgeHoldsTheStepsOfALine: models and tools of steps are asked for, once each, and one that nobody has is named with its field.
func TestJudgeHoldsTheStepsOfALine(t *testing.T) {
	line := func(id, steps string) string {
		return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/tasks","body":{"prompt":"x","steps":[%s]}}`, id, steps)
	}
	var asked []string
	served := func(endpoint, model string) error {
		asked = append(asked, endpoint+" "+model)
		if model == "no" || model == "wasm:gone" {
			return fault.New(fault.Invalid, "test", "model", "nobody has it").WithRemedy("take another")
		}
		return nil
	}
	http, large := `{"http":{"url":"http://h/"}}`, `{"prompt":"x","model":"large"}`
	f, _ := judged(t, &Header{Endpoint: EndpointTasks}, served, line("a", http), line("b", http+","+large), line("c", `{"wasm":{"module":"gone"}}`), line("d", large+`,{"prompt":"x","model":"no"}`), line("e", `{"wasm":{"module":"gone"}}`))
	require.Equal(t, []string{EndpointTasks + " ", "tool http", task.EndpointChat + " large", "tool wasm:gone", task.EndpointChat + " no"}, asked)
	var got []string
	for _, p := range f.Errors {
		got = append(got, fmt.Sprint(p.Line, " ", p.Code, " ", p.Param, " ", p.Message))
	}
	require.Equal(t, []string{
		`3 model_not_found body.steps[0].wasm.module A step needs WASM module "gone", which is not available: take another.`,
		`4 model_not_found body.steps[1].model A step needs model "no", which is not available: take another.`,
		`5 model_not_found body.steps[0].wasm.module A step needs WASM module "gone", which is not available: take another.`}, got)
}

// TestUnique compares the finder with a map, for ids that are few, and that are too many for memory.
func TestUnique(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, c := range []struct{ ids, max, among, keep int }{
		{0, 10, 1, 10}, {10, 100, 1 << 30, 10}, {1000, 100, 1 << 30, 10}, {1000, 100, 2000, 10000}, {1000, 100, 2000, 7}, {1000, 2000, 2000, 7}, {5000, 1, 3, 20}, {5000, 4, 5, 10000},
	} {
		dir := t.TempDir()
		u := newUnique(dir, c.max, c.keep)
		first := map[string]uint64{}
		var want []repeat
		for i := range uint64(c.ids) {
			id := fmt.Sprint("id-", rng.IntN(c.among))
			if f, ok := first[id]; ok {
				want = append(want, repeat{i, f})
			} else {
				first[id] = i
			}
			require.NoError(t, u.add(id, i))
		}
		got, err := u.repeats()
		require.NoError(t, err)
		require.ElementsMatch(t, want[:min(len(want), c.keep)], got, "%+v", c)
		require.LessOrEqual(t, len(u.few), c.max+1)
		u.close()
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestUniqueSaysWhenItCannotSpill(t *testing.T) {
	u := newUnique(t.TempDir()+"/missing", 1, 1)
	require.NoError(t, u.add("a", 0))
	require.Equal(t, fault.Unavailable, fault.KindOf(u.add("b", 1)))
	u.close()
}

// While a node lives that knows no steps that are objects, a batch with such is refused as a whole, and says which line and why.
func TestStepsThatNotAllNodesKnow(t *testing.T) {
	for _, known := range []bool{true, false} {
		j := newJudge(&Header{Endpoint: EndpointTasks, MixedModels: true}, t.TempDir(), time.Hour, func(string, string) error { return nil })
		own := false
		j.steps = func(lanes bool) error {
			if own = own || lanes; known {
				return nil
			}
			return fault.New(fault.Conflict, "node.knows", "", "the cluster is being upgraded").WithRemedy("upgrade all nodes first")
		}
		for i, body := range []string{`{"prompt":"x","steps":["y"]}`, `{"steps":[{"prompt":"p"}]}`, `{"steps":[{"prompt":"p","model":"m"}]}`} {
			require.NoError(t, j.line(uint64(i), []byte(fmt.Sprintf(`{"custom_id":"%d","method":"POST","url":"/v1/tasks","body":%s}`, i, body)), nil))
		}
		f, err := j.verdict()
		require.NoError(t, err)
		if known {
			require.Equal(t, Accepted, f.Event)
			require.True(t, own, "a step with a model is told from others")
			continue
		}
		require.Equal(t, Rejected, f.Event)
		require.Len(t, f.Errors, 2)
		require.Equal(t, Problem{Code: codeInvalid, Param: "body.steps", Message: "The cluster is being upgraded. Upgrade all nodes first.", Line: 2}, f.Errors[0])
	}
}
