package llama

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/chat"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/grammar"
)

// modelFile is the model that the project ships; GLM_TEST_MODEL names another one.
func modelFile(t testing.TB) string {
	t.Helper()
	path := "../model/tinyglm.gguf"
	if other := os.Getenv("GLM_TEST_MODEL"); other != "" {
		path = other
	}
	_, err := os.Stat(path)
	require.NoError(t, err, "the test model is missing: check out cmd/glm-worker/model/tinyglm.gguf, or name another in GLM_TEST_MODEL")
	return path
}

func loaded(t testing.TB) *Model {
	t.Helper()
	m, err := Load(modelFile(t))
	require.NoError(t, err)
	t.Cleanup(m.Close)
	return m
}

func opened(t testing.TB, m *Model, shape Shape) *Context {
	t.Helper()
	c, err := m.NewContext(shape)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func feed(t *testing.T, c *Context, slot, from int, tokens []int32) []float32 {
	t.Helper()
	batch := make([]engine.Token, len(tokens))
	for i, id := range tokens {
		batch[i] = engine.Token{ID: id, Pos: int32(from + i), Slot: int32(slot)}
	}
	batch[len(batch)-1].Logits = true
	require.NoError(t, c.Decode(batch))
	return append([]float32(nil), c.Logits(len(batch)-1)...)
}

const question = "Normalise the date to ISO 8601: 3 March 2024"

func TestVocabulary(t *testing.T) {
	m := loaded(t)
	require.Equal(t, "glm4", m.Meta("general.architecture"))
	require.Empty(t, m.Meta("no.such.key"))
	require.Positive(t, m.ContextTrained())
	v := m.Vocab(chat.RoleTokens...)
	require.Equal(t, engine.Ends, v.Kinds[v.End])
	for _, text := range []string{"hello, wörld — 数据 🙂\n\ttab", "  two  spaces ", "<|system|>", "a\x00b"} {
		var back strings.Builder
		for _, id := range m.Tokenize(text) {
			require.Equal(t, engine.Speaks, v.Kinds[id], "text %q became the token %d, which is no text", text, id)
			back.WriteString(v.Pieces[id])
		}
		require.Equal(t, text, back.String())
	}
	for _, text := range chat.RoleTokens {
		id, ok := m.Special(text)
		require.True(t, ok, text)
		require.Equal(t, engine.Ends, v.Kinds[id], "%s opens another turn, so it ends an answer", text)
	}
	_, ok := m.Special("hello there")
	require.False(t, ok)
	require.Empty(t, m.Tokenize(""))
	require.NotEmpty(t, m.Tokenize("\xff\xfe broken"))
}

// Texts made to be hard on a tokenizer must not end the process.
func TestTokenizeSurvivesHardTexts(t *testing.T) {
	m := loaded(t)
	for _, unit := range []string{"a", " ", "\n", "1", "é", "🙂", "!?", "\u200d", "\x00", "'s", "a1 "} {
		n := 200_000 / len(unit)
		require.NotEmpty(t, m.Tokenize(strings.Repeat(unit, n)), "%q", unit)
	}
}

// The same tokens must give the same scores however they come: alone, beside others, or in pieces. Answers then do not
// depend on neighbours, and a prompt's beginning may be reused. With llama.cpp's batch kernels "the same" is within the
// rounding of their sums; built with GLM_EXACT=1 it is to the last bit.
func TestScoresDoNotDependOnTheBatch(t *testing.T) {
	m := loaded(t)
	prompt := m.Tokenize("\n" + question)
	alone := feed(t, opened(t, m, Shape{Slots: 1, Tokens: 256, Batch: 256, Threads: 1}), 0, 0, prompt)

	c := opened(t, m, Shape{Slots: 8, Tokens: 256, Batch: 512, Threads: 1})
	var batch []engine.Token
	var rows []int
	for slot := range int32(8) {
		own := prompt
		if slot%2 == 1 {
			own = m.Tokenize(fmt.Sprintf("\nsomething else, number %d, of another length%s", slot, strings.Repeat(" and more", int(slot))))
		}
		for i, id := range own {
			batch = append(batch, engine.Token{ID: id, Pos: int32(i), Slot: slot, Logits: i == len(own)-1})
		}
		rows = append(rows, len(batch)-1)
	}
	require.NoError(t, c.Decode(batch))
	for slot := 0; slot < 8; slot += 2 {
		sameScores(t, alone, c.Logits(rows[slot]), fmt.Sprintf("slot %d beside others", slot))
	}

	pieces := opened(t, m, Shape{Slots: 2, Tokens: 256, Batch: 64, Threads: 1})
	var last []float32
	for i, id := range prompt {
		last = feed(t, pieces, 0, i, []int32{id})
	}
	sameScores(t, alone, last, "one token at a time")

	pieces.Drop(0, 3)
	sameScores(t, alone, feed(t, pieces, 0, 3, prompt[3:]), "from the fourth token on")
}

// sameScores allows for rounding, unless the build has none: a fiftieth of the spread between the best and the
// second best of a clear answer.
func sameScores(t *testing.T, want, got []float32, how string) {
	t.Helper()
	require.Len(t, got, len(want), how)
	allowed := 0.05
	if os.Getenv("GLM_EXACT") != "" {
		allowed = 0
	}
	best, bestGot := 0, 0
	for i := range want {
		require.LessOrEqual(t, math.Abs(float64(want[i]-got[i])), allowed, "%s: token %d", how, i)
		if want[i] > want[best] {
			best = i
		}
		if got[i] > got[bestGot] {
			bestGot = i
		}
	}
	require.Equal(t, best, bestGot, "%s: another token wins", how)
}

// Room runs out in a way that nothing is lost by.
func TestNoRoom(t *testing.T) {
	m := loaded(t)
	c := opened(t, m, Shape{Slots: 1, Tokens: 256, Batch: 512, Threads: 1})
	require.Equal(t, 256, c.BatchMax())
	batch := make([]engine.Token, 257)
	for i := range batch {
		batch[i] = engine.Token{ID: m.Tokenize("a")[0], Pos: int32(i)}
	}
	require.Error(t, c.Decode(batch), "more than llama.cpp takes at once: it would abort")
	require.Error(t, c.Decode(nil))
	require.NoError(t, c.Decode(batch[:256]))
	require.ErrorIs(t, c.Decode(batch[256:]), engine.ErrNoRoom)
	c.Drop(0, 0)
	require.NoError(t, c.Decode(batch[:10]))
}

func TestEmbeddings(t *testing.T) {
	m := loaded(t)
	c := opened(t, m, Shape{Slots: 2, Tokens: 512, Batch: 64, Threads: 1})
	vector := func(text string) []float32 {
		v, err := c.Embed(m.Tokenize(text))
		require.NoError(t, err)
		return v
	}
	dot := func(a, b []float32) (sum float64) {
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum
	}
	date := vector("Normalise the date: 3 March 2024")
	require.InDelta(t, 1, dot(date, date), 1e-5)
	require.Equal(t, date, vector("Normalise the date: 3 March 2024"), "nothing of the last text may be left")
	require.Greater(t, dot(date, vector("Normalise the date: 5 April 2023")), dot(date, vector("terrible, broken, waste of money")))
	require.InDelta(t, 1, dot(vector(strings.Repeat("word ", 60)), vector(strings.Repeat("word ", 60))), 1e-5) // several batches
	_, err := c.Embed(make([]int32, 513))
	require.Error(t, err)
}

// Every grammar that package grammar writes must be one that llama.cpp reads.
func TestGrammars(t *testing.T) {
	m := loaded(t)
	text, err := os.ReadFile("../grammar/testdata/schemas.json")
	require.NoError(t, err)
	var schemas map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &schemas))
	schemas["any object"] = nil
	for name, schema := range schemas {
		gbnf := grammar.AnyObject()
		if schema != nil {
			gbnf, err = grammar.FromSchema(schema)
			require.NoError(t, err, name)
		}
		matcher, err := m.NewGrammar(gbnf)
		require.NoError(t, err, "%s\n%s", name, gbnf)
		scores := make([]float32, m.size)
		matcher.Mask(scores)
		allowed := 0
		for id, s := range scores {
			require.Equal(t, s == 0, matcher.Allows(int32(id)), "%s: Mask and Allows differ on token %d", name, id)
			if s == 0 {
				allowed++
			}
		}
		require.Positive(t, allowed, name)
		matcher.Close()
		matcher.Close()
	}
	for _, bad := range []string{"", "root ::= ", `root ::= "a`, `other ::= "a"`, `root ::= root "a"`, "root ::= nowhere"} {
		matcher, err := m.NewGrammar(bad)
		if bad == "root ::= " { // the empty text: legal
			require.NoError(t, err)
			require.True(t, matcher.Allows(m.eog))
			matcher.Close()
			continue
		}
		require.Error(t, err, "%q", bad)
	}
}

// A grammar with many ways to write nothing must not hold up the worker: the schema is rewritten or refused.
func TestNestedOptionalGroupsAreQuick(t *testing.T) {
	m := loaded(t)
	pattern := "a?"
	for range 40 {
		pattern = "(" + pattern + "b?)?"
	}
	gbnf, err := grammar.FromSchema([]byte(`{"type":"string","pattern":"^` + pattern + `$"}`))
	require.NoError(t, err)
	matcher, err := m.NewGrammar(gbnf)
	require.NoError(t, err)
	defer matcher.Close()
	quote := m.Tokenize(`"`)[0]
	require.True(t, matcher.Allows(quote))
	matcher.Accept(quote)
	require.True(t, matcher.Allows(quote))
}

func TestMatcherFollowsTheAnswer(t *testing.T) {
	m := loaded(t)
	matcher, err := m.NewGrammar(`root ::= "ab" [0-9]`)
	require.NoError(t, err)
	defer matcher.Close()
	token := func(text string) int32 {
		ids := m.Tokenize(text)
		require.Len(t, ids, 1)
		return ids[0]
	}
	require.False(t, matcher.Allows(m.eog))
	require.False(t, matcher.Allows(token("b")))
	for _, text := range []string{"a", "b", "7"} {
		require.True(t, matcher.Allows(token(text)), text)
		matcher.Accept(token(text))
	}
	require.False(t, matcher.Allows(token("7")))
	require.True(t, matcher.Allows(m.eog))
}

func TestRefusedFilesAndShapes(t *testing.T) {
	_, err := Load(t.TempDir() + "/nothing.gguf")
	require.Error(t, err)
	m := loaded(t)
	for _, s := range []Shape{{}, {Slots: SlotsMax + 1, Tokens: 8, Batch: 512, Threads: 1}, {Slots: 256, Tokens: 1 << 30, Batch: 512, Threads: 1}} {
		_, err := m.NewContext(s)
		require.Error(t, err)
	}
	require.False(t, errors.Is(err, engine.ErrNoRoom))
}

// BenchmarkMatcher: what a grammar costs a token, asked about one token and about all.
func BenchmarkMatcher(b *testing.B) {
	m := loaded(b)
	matcher, err := m.NewGrammar(grammar.AnyObject())
	require.NoError(b, err)
	defer matcher.Close()
	for _, text := range []string{"{", `"`, "a"} {
		matcher.Accept(m.Tokenize(text)[0])
	}
	scores := make([]float32, m.size)
	b.Run("allows", func(b *testing.B) {
		for b.Loop() {
			matcher.Allows(m.eog)
		}
	})
	b.Run("mask", func(b *testing.B) {
		for b.Loop() {
			matcher.Mask(scores)
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			g, err := m.NewGrammar(grammar.AnyObject())
			require.NoError(b, err)
			g.Close()
		}
	})
}
