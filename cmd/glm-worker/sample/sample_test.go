package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	nan = float32(math.NaN())
	inf = float32(math.Inf(-1))
)

func TestBest(t *testing.T) {
	require.EqualValues(t, 2, Best([]float32{1, inf, 3, 3}))
	require.EqualValues(t, -1, Best([]float32{inf, nan}))
	require.EqualValues(t, -1, Best(nil))
	require.EqualValues(t, 1, Best([]float32{nan, -5}))
}

// drawn counts how often each token comes out of many draws.
func drawn(p Params, scores []float32) map[int32]int {
	counts := map[int32]int{}
	s := New(p, &Scratch{})
	for range 20000 {
		counts[s.Pick(slices.Clone(scores))]++
	}
	return counts
}

func TestDistribution(t *testing.T) {
	scores := []float32{float32(math.Log(0.5)), float32(math.Log(0.3)), float32(math.Log(0.15)), float32(math.Log(0.05)), inf, nan}
	for _, c := range []struct {
		name string
		p    Params
		want []float64
	}{
		{"greedy", Params{}, []float64{1, 0, 0, 0}},
		{"as it is", Params{Temperature: 1, TopP: 1}, []float64{0.5, 0.3, 0.15, 0.05}},
		{"cooler", Params{Temperature: 0.5}, []float64{0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365}},
		{"top k", Params{Temperature: 1, TopK: 2}, []float64{0.625, 0.375, 0, 0}},
		{"top p keeps what crosses the line", Params{Temperature: 1, TopP: 0.6}, []float64{0.625, 0.375, 0, 0}},
		{"top p of what top k left", Params{Temperature: 1, TopK: 3, TopP: 0.55}, []float64{0.625, 0.375, 0, 0}},
		{"min p", Params{Temperature: 1, MinP: 0.2}, []float64{0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0}},
		{"all at once", Params{Temperature: 1, MinP: 0.2, TopK: 3, TopP: 0.99}, []float64{0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0}},
	} {
		got := drawn(c.p, scores)
		for i, want := range c.want {
			require.InDelta(t, want, float64(got[int32(i)])/20000, 0.015, "%s: token %d of %v", c.name, i, got)
		}
	}
}

func TestSeedDecides(t *testing.T) {
	scores := make([]float32, 100)
	pick := func(seed uint64) (out []int32) {
		s := New(Params{Temperature: 1, Seed: seed}, &Scratch{})
		for range 50 {
			out = append(out, s.Pick(scores))
		}
		return out
	}
	require.Equal(t, pick(7), pick(7))
	require.NotEqual(t, pick(7), pick(8))
}

// lift must order as a sort does.
func TestLiftAgreesWithSorting(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for range 500 {
		n := 1 + random.IntN(50)
		w, ids := make([]float64, n), make([]int32, n)
		for i := range w {
			w[i], ids[i] = float64(random.IntN(10)), int32(i)
		}
		want := slices.Clone(ids)
		slices.SortFunc(want, func(a, b int32) int {
			if w[a] != w[b] {
				return int(w[b] - w[a])
			}
			return int(a - b)
		})
		k := 1 + random.IntN(n)
		require.Equal(t, want[:k], lift(ids, w, func(have int, _ float64) bool { return have == k }))
	}
}

func TestLogProbs(t *testing.T) {
	scores := []float32{float32(math.Log(0.5)) + 3, float32(math.Log(0.3)) + 3, float32(math.Log(0.2)) + 3, inf}
	of, top := LogProbs(scores, 1, 2)
	require.InDelta(t, math.Log(0.3), of, 1e-6)
	require.Len(t, top, 2)
	require.EqualValues(t, 0, top[0].Token)
	require.InDelta(t, math.Log(0.5), top[0].Log, 1e-6)
	of, _ = LogProbs(scores, 3, 0)
	require.True(t, math.IsInf(of, -1))
	of, top = LogProbs([]float32{inf}, 0, 3)
	require.True(t, math.IsInf(of, -1))
	require.Empty(t, top)
}

func BenchmarkPick(b *testing.B) {
	scores := make([]float32, 151552) // GLM-4's vocabulary
	random := rand.New(rand.NewPCG(1, 1))
	for i := range scores {
		scores[i] = float32(random.NormFloat64() * 3)
	}
	for name, p := range map[string]Params{"greedy": {}, "free": {Temperature: 1}, "top": {Temperature: 1, TopK: 40, TopP: 0.9}} {
		b.Run(name, func(b *testing.B) {
			s := New(p, &Scratch{})
			for b.Loop() {
				s.Pick(scores)
			}
		})
	}
}
