package batch

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// shelf is a Queue that is only looked at.
type shelf struct {
	name string
	near bool
}

func (s *shelf) Shard() int                                                        { return 0 }
func (s *shelf) Near() bool                                                        { return s.near }
func (s *shelf) Claim(task.QueueName, int, *task.Claim, func([]*task.Work, error)) {}
func (s *shelf) Next(task.QueueName) (at time.Time, ok bool)                       { return at, false }

func TestRank(t *testing.T) {
	asks := []*hint{
		{queue: &shelf{"far", false}},
		{queue: &shelf{"near", true}},
		{queue: &shelf{"far, passed once", false}, passed: 1},
		{queue: &shelf{"near, passed once", true}, passed: 1},
		{queue: &shelf{"far, passed twice", false}, passed: 2},
	}
	for range 20 { // whatever chance says
		rank(asks)
		var got []string
		for _, h := range asks {
			got = append(got, h.queue.(*shelf).name)
		}
		require.Equal(t, []string{"far, passed twice", "near, passed once", "far, passed once", "near", "far"}, got)
	}
}

// TestNobodyStarves: with credit for one shard at a time, all are asked equally often in the long run.
func TestNobodyStarves(t *testing.T) {
	var asks []*hint
	for i := range 6 {
		asks = append(asks, &hint{queue: &shelf{fmt.Sprint(i), i < 2}})
	}
	asked := map[string]int{}
	for range 600 {
		rank(asks)
		asked[asks[0].queue.(*shelf).name]++
		asks[0].passed = 0
		for _, h := range asks[1:] {
			h.passed++
		}
	}
	for name, n := range asked {
		require.InDelta(t, 100, n, 1, name)
	}
}

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		kind fault.Kind
		near bool
		want string
	}{
		{fault.Fenced, true, "DEBUG"}, {fault.Fenced, false, "DEBUG"},
		{fault.Unavailable, true, "WARN"}, {fault.Unavailable, false, "DEBUG"}, {fault.Timeout, false, "DEBUG"},
		{fault.TooLarge, false, "WARN"}, {fault.Corrupt, true, "WARN"},
	} {
		require.Equal(t, c.want, levelOf(fault.New(c.kind, "t", "", "x"), c.near).String(), "%v near %v", c.kind, c.near)
	}
}
