package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func kinOf(s Spec) Kin {
	r := Record{Spec: &s}
	return r.Kin()
}

func TestPromptsThatBeginAlikeHaveTheSameMarks(t *testing.T) {
	system := strings.Repeat("You clean dates. ", 200)
	a := kinOf(Spec{System: system, Prompt: "3 March"})
	b := kinOf(Spec{System: system, Prompt: "4 April 2024"})
	require.Equal(t, a.Marks[:3], b.Marks[:3])
	require.NotZero(t, a.Marks[2])
	require.Zero(t, a.Marks[3], "it is shorter")

	c := kinOf(Spec{System: system[:600] + "!" + system[601:], Prompt: "3 March"})
	require.Equal(t, a.Marks[:2], c.Marks[:2])
	require.NotEqual(t, a.Marks[2], c.Marks[2])

	require.Equal(t, a, kinOf(Spec{Messages: []Message{{"system", system}, {"user", "3 March"}}}), "however it is written")
	require.Equal(t, [len(markAt)]uint32{}, kinOf(Spec{Prompt: "short"}).Marks)

	body := func(before, text string) Spec {
		return Spec{Request: request(`{` + before + `"messages":[{"role":"system","content":"` + system + `"},{"role":"user","content":"` + text + `"}]}`)}
	}
	x, y := kinOf(body(`"model":"m",`, "x")), kinOf(body(`"temperature":0.5,`, "y"))
	require.Equal(t, x.Marks[:3], y.Marks[:3], "what stands before the prompt is no part of it")
	require.NotEqual(t, kinOf(body("", "x")).Marks[0], a.Marks[0])

	question := strings.Repeat("Summarise this. ", 8)
	require.Equal(t, kinOf(Spec{Prompt: question, DataURL: "http://d/1"}).Marks, kinOf(Spec{Prompt: question, DataURL: "http://d/2"}).Marks)
	require.Equal(t, uint8(8), kinOf(Spec{Prompt: "x", MaxTokens: 200}).Size)
}

func TestTheNextStepBeginsAsTheOneBefore(t *testing.T) {
	r := Record{Spec: &Spec{Prompt: strings.Repeat("p", 3000), Steps: Texts("and")}}
	first := r.Kin()
	r.Answers = []Answer{{Text: "a"}}
	next := r.Kin()
	require.Equal(t, first.Marks[:3], next.Marks[:3])
}

// group is a kin whose prompts share the first depth marks of a group.
func group(g uint32, depth int, size uint8) (k Kin) {
	for i := range depth {
		k.Marks[i] = g*10 + uint32(i)
	}
	k.Size = size
	return k
}

func TestChoose(t *testing.T) {
	rows := func(ks ...Kin) (out []ReadyKey) {
		for i, k := range ks {
			out = append(out, ReadyKey{"m", 5, time.UnixMicro(int64(i)), fmt.Sprint(i), true, k})
		}
		return out
	}
	mixed := rows(group(1, 2, 8), group(2, 2, 8), group(1, 2, 9), group(2, 2, 8), group(1, 1, 8), group(3, 0, 8))
	for _, c := range []struct {
		name  string
		rows  []ReadyKey
		n     int
		taste Taste
		must  bool
		want  []int
	}{
		{"like the first one, deepest first", mixed, 2, Taste{Alike: true}, false, []int{0, 2}},
		{"then those that share less, then in order", mixed, 4, Taste{Alike: true}, false, []int{0, 1, 2, 4}},
		{"what is warm before the first one", mixed, 2, Taste{Warm: Warm{20, 21}}, false, []int{1, 3}},
		{"the first one when its time has come, and what is warm", mixed, 3, Taste{Warm: Warm{20, 21}}, true, []int{0, 1, 2}},
		{"of the same length", rows(group(0, 0, 8), group(0, 0, 12), group(0, 0, 9), group(0, 0, 8)), 3, Taste{Length: true}, false, []int{0, 2, 3}},
		{"nothing alike", rows(group(1, 1, 1), group(2, 1, 1), group(3, 1, 1)), 2, Taste{Alike: true, Warm: Warm{77}}, false, []int{0, 1}},
	} {
		require.Equal(t, c.want, choose(c.rows, c.n, c.taste, c.must), c.name)
	}
}

// TestNobodyIsPassedOverForEver: behind an endless stream of what is warm, the first row goes after passMax takes.
func TestNobodyIsPassedOverForEver(t *testing.T) {
	f := newFeed("m", 5)
	f.more, f.next, f.early = false, nil, early{}
	now := time.UnixMicro(1 << 40)
	n := 0
	put := func(k Kin) {
		n++
		f.put(ReadyKey{"m", 5, time.UnixMicro(int64(n)), fmt.Sprint(n), true, k}, now)
	}
	put(group(1, 1, 8)) // id 1
	for range 20 {
		put(group(2, 1, 8))
	}
	for take := 1; ; take++ {
		require.LessOrEqual(t, take, passMax+1)
		got := f.take(4, now, Taste{Warm: Warm{20}})
		require.Len(t, got, 4)
		if slices.ContainsFunc(got, func(k ReadyKey) bool { return k.ID == "1" }) {
			require.Equal(t, passMax+1, take)
			return
		}
		for range 4 {
			put(group(2, 1, 8))
		}
	}
}

func TestWarmIsBoundedAndNewestLast(t *testing.T) {
	var w Warm
	for g := range uint32(warmMax) {
		w = w.Add(group(g+1, 2, 0))
	}
	require.Len(t, w, warmMax)
	require.Equal(t, uint32(warmMax*10+1), w[warmMax-1])
	w = w.Add(group(warmMax-10, 2, 0))
	require.Len(t, w, warmMax, "a mark stands once")
	require.Equal(t, uint32((warmMax-10)*10+1), w[warmMax-1])
}
