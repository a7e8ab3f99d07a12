package batch

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func all(string) bool { return true }

// TestPart: whatever the others are given, and in whatever portions, the canary never has more than its part, and gets all of it.
func TestPart(t *testing.T) {
	none := func(string) int { return 0 }
	for _, percent := range []int{1, 10, 50, 99} {
		for _, each := range []int{1, 7, 100} {
			var ps parts
			ps.set(Part{Engines: []string{"new-0", "new-1"}, Of: []string{"old"}, Percent: percent})
			took, others := 0, 0
			for range 200 {
				ps.gave("old", each, all)
				ps.gave("stranger", 50, all)
				others += each
				for _, e := range []string{"new-0", "new-1"} {
					n := min(ps.room(e, none, all), 30)
					ps.gave(e, n, all)
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
	ps.gave("old", 9, all)
	require.Equal(t, 10, ps.room("a", func(string) int { return 0 }, all))
	require.Equal(t, 4, ps.room("a", func(e string) int { return map[string]int{"a": 2, "b": 4}[e] }, all), "of all its engines")
	require.Equal(t, math.MaxInt, ps.room("old", func(string) int { return 0 }, all))
	ps.gave("a", 10, all)
	require.Zero(t, ps.room("b", func(string) int { return 0 }, all))
	ps.set(Part{Engines: []string{"a", "b"}, Of: []string{"old"}, Percent: 75})
	require.Equal(t, 1, ps.room("b", func(string) int { return 0 }, all), "counted anew")
	ps.gave("old", 1, all)
	require.Equal(t, 4, ps.room("b", func(string) int { return 0 }, all))
	ps.set(Part{Engines: []string{"a", "b"}, Percent: 100})
	require.Equal(t, math.MaxInt, ps.room("b", func(string) int { return 0 }, all), "lifted")
	require.Empty(t, ps)
}

// TestAPartThatIsNotTaken is lost but for a little: a canary that was down is not given all at once what came in between.
func TestAPartThatIsNotTaken(t *testing.T) {
	none := func(string) int { return 0 }
	for percent, most := range map[int]int{1: 16, 10: 28, 50: 256, 90: 2304} {
		var ps parts
		ps.set(Part{Engines: []string{"new"}, Of: []string{"old"}, Percent: percent})
		for range 1000 {
			ps.gave("old", 100, all)
		}
		room := ps.room("new", none, all)
		require.LessOrEqual(t, room, most+1, "%d %%", percent)
		require.GreaterOrEqual(t, room, most, "%d %%", percent)
		ps.gave("new", room, all)
		require.Zero(t, ps.room("new", none, all), "%d %%", percent)
		ps.gave("old", 100, all)
		require.Positive(t, ps.room("new", none, all), "%d %%: it goes on from there", percent)
	}
}

// TestAPartOfNothing: while the old engines are down the canary takes what there is, which is not counted when they are back.
func TestAPartOfNothing(t *testing.T) {
	none := func(string) int { return 0 }
	down := func(engine string) bool { return engine == "new" }
	var ps parts
	ps.set(Part{Engines: []string{"new"}, Of: []string{"old-0", "old-1"}, Percent: 10})
	ps.gave("new", 1, all)
	require.Zero(t, ps.room("new", none, all))
	require.Equal(t, math.MaxInt, ps.room("new", none, down))
	ps.gave("new", 1000, down)
	require.Zero(t, ps.room("new", none, func(engine string) bool { return engine == "old-1" }), "one of them is enough")
	ps.gave("old-1", 9, all)
	require.Equal(t, 1, ps.room("new", none, all))
}
