package engine

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name  string
		seqs  []sequence
		limit int
		want  []part
	}{
		{"nothing to do", []sequence{{slot: 0, todo: 0}, {slot: 1, todo: 3, parked: true}}, 8, nil},
		{"running answers before prompts", []sequence{{slot: 0, order: 1, todo: 9}, {slot: 1, order: 2, todo: 1}}, 4, []part{{1, 1, true}, {0, 3, false}}},
		{"the oldest prompt first", []sequence{{slot: 0, order: 9, todo: 3}, {slot: 1, order: 7, todo: 3}}, 4, []part{{1, 3, true}, {0, 1, false}}},
		{"all fit", []sequence{{slot: 3, order: 1, todo: 2}, {slot: 1, order: 2, todo: 2}}, 4, []part{{3, 2, true}, {1, 2, true}}},
		{"room for some running answers only", []sequence{{slot: 0, order: 3, todo: 1}, {slot: 1, order: 2, todo: 1}, {slot: 2, order: 1, todo: 1}}, 2, []part{{2, 1, true}, {1, 1, true}}},
		{"no room", []sequence{{slot: 0, order: 1, todo: 1}}, 0, nil},
	} {
		require.Equal(t, c.want, plan(c.seqs, c.limit), c.name)
	}
}

// Whatever is asked of it, a plan stays within its limit, plans nobody twice, and leaves no room unused.
func TestPlanKeepsItsPromises(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var seqs []sequence
		total := 0
		for slot := range random.IntN(12) {
			s := sequence{slot: slot, order: random.Uint64N(100), todo: random.IntN(6), parked: random.IntN(4) == 0}
			if !s.parked {
				total += s.todo
			}
			seqs = append(seqs, s)
		}
		limit := random.IntN(20)
		seen, planned := map[int]bool{}, 0
		for _, p := range plan(seqs, limit) {
			require.False(t, seen[p.slot])
			seen[p.slot] = true
			s := seqs[p.slot]
			require.False(t, s.parked)
			require.Positive(t, p.n)
			require.LessOrEqual(t, p.n, s.todo)
			require.Equal(t, p.n == s.todo, p.last)
			planned += p.n
		}
		require.Equal(t, min(limit, total), planned)
	}
}

func TestVictim(t *testing.T) {
	require.Equal(t, -1, victim(nil))
	require.Equal(t, -1, victim([]sequence{{slot: 2, order: 1}, {slot: 1, order: 9, parked: true}}), "nobody else runs")
	require.Equal(t, 4, victim([]sequence{{slot: 2, order: 1}, {slot: 4, order: 5}, {slot: 1, order: 9, parked: true}}))
}

func TestShared(t *testing.T) {
	require.Equal(t, 0, shared(nil, []int32{1}))
	require.Equal(t, 2, shared([]int32{1, 2, 3}, []int32{1, 2, 4, 5}))
	require.Equal(t, 2, shared([]int32{1, 2}, []int32{1, 2, 4}))
}
