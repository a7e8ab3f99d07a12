package batch

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPart: whatever the others are given, and in whatever portions, the canary never has more than its part, and gets all of it.
func TestPart(t *testing.T) {
	none := func(string) int { return 0 }
	for _, percent := range []int{1, 10, 50, 99} {
		for _, each := range []int{1, 7, 100} {
			var ps parts
			ps.set(Part{Engines: []string{"new-0", "new-1"}, Of: []string{"old"}, Percent: percent})
			took, others := 0, 0
			for range 200 {
				ps.gave("old", each)
				ps.gave("stranger", 50)
				others += each
				for _, e := range []string{"new-0", "new-1"} {
					n := min(ps.room(e, none), 30)
					ps.gave(e, n)
					took += n
				}
				require.LessOrEqual(t, (took-1)*100, percent*(took-1+others), "%d %%, %d each: %d of %d", percent, each, took, took+others)
			}
			if percent <= 10 {
				require.Greater(t, (took+1)*100, percent*(took+others), "it gets its part")
			}
		}
	}
}

func TestPartCountsWhatIsComing(t *testing.T) {
	var ps parts
	ps.set(Part{Engines: []string{"a", "b"}, Of: []string{"old"}, Percent: 50})
	ps.gave("old", 9)
	require.Equal(t, 10, ps.room("a", func(string) int { return 0 }))
	require.Equal(t, 4, ps.room("a", func(e string) int { return map[string]int{"a": 2, "b": 4}[e] }), "of all its engines")
	require.Equal(t, math.MaxInt, ps.room("old", func(string) int { return 0 }))
	ps.gave("a", 10)
	require.Zero(t, ps.room("b", func(string) int { return 0 }))
	ps.set(Part{Engines: []string{"a", "b"}, Of: []string{"old"}, Percent: 75})
	require.Equal(t, 1, ps.room("b", func(string) int { return 0 }), "counted anew")
	ps.gave("old", 1)
	require.Equal(t, 4, ps.room("b", func(string) int { return 0 }))
	ps.set(Part{Engines: []string{"a", "b"}, Percent: 100})
	require.Equal(t, math.MaxInt, ps.room("b", func(string) int { return 0 }), "lifted")
	require.Empty(t, ps)
}
