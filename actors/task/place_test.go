package task

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestSplit(t *testing.T) {
	for _, tc := range []struct {
		split Split
		text  string
		want  []string
	}{
		{Split{By: "lines", Size: 2}, "a\nb\nc\n", []string{"a\nb\n", "c\n"}},
		{Split{By: "lines", Size: 2}, "a\nb", []string{"a\nb"}},
		{Split{By: "lines", Size: 3, Overlap: 1}, "a\nb\nc\nd\ne\n", []string{"a\nb\nc\n", "c\nd\ne\n"}},
		{Split{By: "lines", Size: 2, Overlap: 1}, "a\nb\nc", []string{"a\nb\n", "b\nc"}},
		{Split{By: "lines", Size: 1}, "", nil},
		{Split{By: "bytes", Size: 4}, "abcdefghij", []string{"abcd", "efgh", "ij"}},
		{Split{By: "bytes", Size: 4, Overlap: 2}, "abcdefgh", []string{"abcd", "cdef", "efgh"}},
		{Split{By: "bytes", Size: 4}, "aä日本", []string{"aä", "日", "本"}},
		{Split{By: "bytes", Size: 1}, "日本", []string{"日", "本"}},
		{Split{By: "bytes", Size: 4, Overlap: 3}, "日本語", []string{"日", "本", "語"}},
		{Split{By: "bytes", Size: 4}, "", nil},
		{Split{By: "rows", Size: 2}, "h1,h2\na,1\n\"b\nb\",2\nc,3\n", []string{"h1,h2\na,1\n\"b\nb\",2\n", "h1,h2\nc,3\n"}},
		{Split{By: "rows", Size: 2, Overlap: 1}, "h\n1\n2\n3", []string{"h\n1\n2\n", "h\n2\n3"}},
		{Split{By: "rows", Size: 1}, "h\tx\na\t\"1\n2\"\n", []string{"h\tx\na\t\"1\n2\"\n"}},
		{Split{By: "rows", Size: 1}, "only a head", nil},
	} {
		t.Run(fmt.Sprintf("%+v", tc.split), func(t *testing.T) {
			got, err := tc.split.Of(tc.text)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	_, err := (&Split{By: "lines", Size: 1}).Of(strings.Repeat("x\n", PartsMax+1))
	require.Equal(t, fault.TooLarge, fault.KindOf(err))
	parts, err := (&Split{By: "lines", Size: 1}).Of(strings.Repeat("x\n", PartsMax))
	require.NoError(t, err)
	require.Len(t, parts, PartsMax)
}

// FuzzSplit: without an overlap the parts are the text, and no split goes on for ever.
func FuzzSplit(f *testing.F) {
	f.Add("a\nb\n日本\n", 3, 1, 0)
	f.Fuzz(func(t *testing.T, text string, size, overlap, by int) {
		s := Split{By: []string{"lines", "bytes", "rows"}[uint(by)%3], Size: size, Overlap: overlap}
		if s.validate("") != nil {
			return
		}
		parts, err := s.Of(text)
		if err == nil && s.Overlap == 0 && s.By != "rows" {
			require.Equal(t, text, strings.Join(parts, ""))
		}
	})
}

func TestMergesGetFewer(t *testing.T) {
	for n := 1; n <= PartsMax; n++ {
		texts := make([]string, n)
		for i := range texts {
			texts[i] = strings.Repeat("x", rand.IntN(50))
		}
		for size := range 4 {
			groups := (&Reduce{Size: 20*size + 1}).groups(texts)
			var all []string
			for _, g := range groups {
				all = append(all, g...)
				require.True(t, len(g) >= 2 || n == 1)
			}
			require.Equal(t, texts, all)
			require.LessOrEqual(t, len(groups), max(1, n/2))
		}
	}
}

// TestAWholeLife answers each question as it comes, of a task with all kinds of steps, and looks at every record as if a crash had
// been just before it.
func TestAWholeLife(t *testing.T) {
	spec := `{"system":"S","prompt":"P","data_url":"http://d","metadata":{"k":"v"},"max_tokens":5,"steps":["plain {{.x}}",
		{"name":"d","system":"mapper","map":{"over":"data","split":{"by":"lines","size":1},"prompt":"part {{.index}}/{{.of}} {{trim .part}} of {{.steps.first.output}}"},
			"reduce":{"prompt":"merge {{join .parts \"+\"}}","size":8},"max_tokens":9},
		{"name":"j","prompt":"J {{.steps.d.output}}","history":false,"response_format":{"type":"json_object"},"temperature":0.5},
		{"prompt":"L {{.steps.j.json.a}} {{.metadata.k}} {{.prompt}} {{len .data}}"}]}`
	r := Record{Spec: new(Spec)}
	require.NoError(t, json.Unmarshal([]byte(spec), r.Spec))
	require.NoError(t, r.Spec.Validate())
	data := "one\ntwo\nthree\nfour\nfive\n"
	var said, places []string
	for range 100 {
		places = append(places, r.Where())
		a, err := r.Ask(nil)
		if err == ErrNeedsData || a.DataAt >= 0 {
			a, err = r.Ask(&data)
		}
		require.NoError(t, err)
		var line strings.Builder
		for _, m := range a.Messages {
			fmt.Fprintf(&line, "%c:%s ", m.Role[0], m.Content)
		}
		said = append(said, fmt.Sprintf("%s(%d, %d tokens, %s)", &line, a.DataAt, a.MaxTokens, a.Format))
		answer := Answer{Text: fmt.Sprintf("a%d", len(r.Answers)), Part: a.Part}
		if len(a.Format) > 0 {
			answer.Text = `{"a":1}`
		}
		b, err := json.Marshal(answer) // as its journal has it
		require.NoError(t, err)
		answer = Answer{}
		require.NoError(t, json.Unmarshal(b, &answer))
		if r.Ends(&answer) {
			r.Answers = append(r.Answers, answer)
			break
		}
		r.Answers = append(r.Answers, answer)
	}
	require.Equal(t, []string{
		"s:S u:P (1, 5 tokens, )",
		"s:S u:P a:a0 u:plain {{.x}} (1, 5 tokens, )",
		"s:mapper u:part 0/5 one of a0 (-1, 9 tokens, )",
		"s:mapper u:part 1/5 two of a0 (-1, 9 tokens, )",
		"s:mapper u:part 2/5 three of a0 (-1, 9 tokens, )",
		"s:mapper u:part 3/5 four of a0 (-1, 9 tokens, )",
		"s:mapper u:part 4/5 five of a0 (-1, 9 tokens, )",
		"s:mapper u:merge a2+a3+a4+a5+a6 (-1, 9 tokens, )",
		"s:S u:J a7 (-1, 5 tokens, {\"type\":\"json_object\"})",
		"s:S u:P a:a0 u:plain {{.x}} a:a1 u:merge a2+a3+a4+a5+a6 a:a7 u:J a7 a:{\"a\":1} u:L 1 v P 24 (1, 5 tokens, )",
	}, said)
	require.Equal(t, []string{"step 1 of 5", "step 2 of 5", "step 3 of 5 (d), part 1", "step 3 of 5 (d), part 2 of 5", "step 3 of 5 (d), part 3 of 5",
		"step 3 of 5 (d), part 4 of 5", "step 3 of 5 (d), part 5 of 5", "step 3 of 5 (d), merge 1 of 1, level 1", "step 4 of 5 (j)", "step 5 of 5"}, places)
	require.Empty(t, r.Where())
	var results []string
	for _, a := range r.Results() {
		results = append(results, a.Text)
	}
	require.Equal(t, []string{"a0", "a1", "a7", `{"a":1}`, "a9"}, results)
}

func TestDataThatChangedIsRefused(t *testing.T) {
	s := &Spec{DataURL: "http://d", Steps: Steps{{Map: &Map{Over: "data", Split: Split{By: "lines", Size: 1}, Prompt: "{{.part}}"}, Reduce: &Reduce{Prompt: "{{len .parts}}"}}}}
	require.NoError(t, s.Validate())
	r := &Record{Spec: s}
	require.NoError(t, r.SameData("a"), "nothing is pinned yet")
	r.Answers = []Answer{{Text: "x", DataSHA256: "a", Part: &Part{Of: 2}}}
	require.NoError(t, r.SameData("a"))
	err := r.SameData("b")
	require.False(t, fault.KindOf(err).Retryable())
	require.NotEmpty(t, fault.RemedyOf(err))
	r.Spec = &Spec{Prompt: "p", DataURL: "http://d", Steps: Texts("x")}
	require.NoError(t, r.SameData("b"), "old tasks see what there is")
}

func TestRepairsAreShown(t *testing.T) {
	r := &Record{Spec: &Spec{Prompt: "p", Format: json.RawMessage(`{"type":"json_object"}`)}}
	broken := &BrokenForm{Text: "{", Err: fault.New(fault.Malformed, "c", "", "no JSON")}
	two, none := 2, 0
	for _, tc := range []struct {
		name string
		r    Record
		err  error
		want bool
	}{
		{"once by default", Record{Spec: r.Spec}, broken, true},
		{"then not", Record{Spec: r.Spec, Repairs: 1}, broken, false},
		{"as the task says", Record{Spec: &Spec{Prompt: "p", Repair: &two}, Repairs: 1}, broken, true},
		{"as the step says", Record{Spec: &Spec{Repair: &two, Steps: Steps{{Prompt: "x", Repair: &none}}}}, broken, false},
		{"a request never", Record{Spec: &Spec{Request: json.RawMessage(`{}`)}}, broken, false},
		{"another error", Record{Spec: r.Spec}, broken.Err, false},
		{"too long", Record{Spec: r.Spec}, &BrokenForm{Text: strings.Repeat("x", RepairTextMax+1), Err: broken.Err}, false},
	} {
		p, _ := tc.r.repair(tc.err)
		require.Equal(t, tc.want, p != nil, tc.name)
	}
	r.Repair = &Repair{Text: "{", Error: "no JSON"}
	a, err := r.Ask(nil)
	require.NoError(t, err)
	require.Len(t, a.Messages, 3)
	require.Equal(t, Message{"assistant", "{"}, a.Messages[1])
	require.Contains(t, a.Messages[2].Content, "no JSON")
	require.Len(t, r.Conversation(), 1, "what it is like does not change by a repair")
}
