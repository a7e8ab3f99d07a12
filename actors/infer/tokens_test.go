package infer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoughTokens(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int
	}{
		{"", 0},
		{"a", 1},
		{"abcd", 1},
		{"abcde", 2},
		{strings.Repeat("word ", 80), 100},
		{"你好世界", 3},           // 4 × 0.7 = 2.8
		{"日本語のテキスト", 6},       // 8 × 0.7 = 5.6
		{"한국어", 3},            // 3 × 0.7 = 2.1
		{"，。！", 3},            // full-width marks are CJK
		{"naïve", 2},          // 4 / 4 + 0.5
		{"abcd你", 2},          // 1 + 0.7
		{"\xff\xfe", 1},       // invalid: a rune a byte
		{"привет", 3},         // 6 × 0.5
		{"a\x00b", 1},         // control bytes are ASCII
		{"日期: 2024-05-06", 5}, // 1.4 + 12 / 4
		{strings.Repeat("a", 4000), 1000},
	} {
		require.Equal(t, c.want, RoughTokens(c.in), "%q", c.in)
	}
}

func TestEstimator(t *testing.T) {
	for _, c := range []struct {
		name    string
		reports [][2]int // rough, actual
		rough   int
		want    int
	}{
		{"no report", nil, 100, 100},
		{"one report counts whole", [][2]int{{100, 150}}, 200, 300},
		{"two are a mean", [][2]int{{100, 100}, {100, 200}}, 100, 150},
		{"no usage is no report", [][2]int{{100, 0}, {0, 50}, {100, -1}}, 100, 100},
		{"nonsense is bounded above", [][2]int{{1, 1_000_000}}, 10, 100},
		{"nonsense is bounded below", [][2]int{{1_000_000, 1}}, 100, 10},
		{"never below one", [][2]int{{100, 10}}, 1, 1},
		{"nothing is nothing", [][2]int{{100, 150}}, 0, 0},
		{"negative is nothing", [][2]int{{100, 150}}, -3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Estimator
			for _, r := range c.reports {
				e = e.Observe(r[0], r[1])
			}
			require.Equal(t, c.want, e.Estimate(c.rough))
		})
	}
}

func TestEstimatorFollowsAChange(t *testing.T) {
	var e Estimator
	require.Equal(t, 1.0, e.Factor())
	for range 100 {
		e = e.Observe(100, 100)
	}
	for range 50 {
		e = e.Observe(100, 200)
	}
	require.InDelta(t, 2, e.Factor(), 0.02)
}

func TestEstimatorsAreBoundedAndApart(t *testing.T) {
	ms := []Message{{Role: "user", Content: strings.Repeat("word ", 80)}}
	es := Estimators{}
	es.Observe("glm", ms, 208, 20)
	require.Equal(t, 208, es.Estimate("glm", ms))
	require.Equal(t, 104, es.Estimate("other", ms))
	require.Equal(t, 20, es.Output("glm", 0))
	require.Equal(t, 7, es.Output("glm", 7))
	require.Equal(t, outputFirst, es.Output("other", 0))
	for i := range 2 * EstimatorModelsMax {
		es.Observe(fmt.Sprint(i), ms, 208, 20)
	}
	require.Len(t, es, EstimatorModelsMax)
	es.Observe("glm", ms, 208, 20)
	require.Equal(t, 2, es["glm"].seen, "a known model goes on learning")
}
