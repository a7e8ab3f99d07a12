package infer

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Each row is a story: what is heard of the tasks, and whether the engine is still trusted. A letter is a task that fails, a dot an answer.
func TestBreakerOpens(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name, heard string
		want        Circuit
	}{
		{"nothing yet", "", Closed},
		{"four in a row", "abcd", Closed},
		{"five in a row", "abcde", Open},
		{"five with an answer between", "ab.cde", Closed},
		{"a task that no engine can answer", "aaaaaaaaaaaaaaaaaaaaaaaa", Closed},
		{"four such tasks", "abcdabcdabcdabcdabcd", Closed},
		{"two of three", "ab.cd.ef.gh.ij.kl.m", Open},
		{"half of them", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.", Closed},
		{"long ago", "ab.cd.ef.gh.ij." + "....................ab.cd.", Closed},
	} {
		b := Breaker{}
		for _, r := range c.heard {
			if r == '.' {
				b = b.Good(false)
			} else {
				b = b.Bad(now, string(r), false, 0)
			}
		}
		require.Equal(t, c.want, b.State(now), c.name)
	}
}

func TestBreakerTries(t *testing.T) {
	now := time.Unix(1000, 0)
	b := Breaker{}
	for i := range BreakerRun {
		require.Equal(t, 7, b.Room(now, 7, 0))
		b = b.Bad(now, fmt.Sprint(i), false, 0)
	}
	require.Equal(t, Open, b.State(now))
	for _, wait := range []time.Duration{BreakerMin, 2 * BreakerMin, 4 * BreakerMin, 8 * BreakerMin, 16 * BreakerMin, BreakerMax, BreakerMax} {
		require.Equal(t, now.Add(wait), b.Until())
		require.Zero(t, b.Room(now, 7, 0))
		require.Equal(t, b, b.Good(false).Bad(now, "x", false, 0), "what was sent before it opened says nothing")
		require.Equal(t, Open, b.State(b.Until().Add(-1)))
		now = b.Until()
		require.Equal(t, HalfOpen, b.State(now))
		require.Equal(t, 1, b.Room(now, 7, 0), "one task")
		require.Zero(t, b.Room(now, 7, 1), "at a time")
		require.Zero(t, b.Room(now, 0, 0), "and no more than there is room for")
		require.Equal(t, b, b.Good(false), "of before")
		b = b.Bad(now, "trial", true, 0)
	}
	b = b.Good(true)
	require.Equal(t, Breaker{}, b, "trusted, and nothing held against it")
	for i := range BreakerRun {
		b = b.Bad(now, fmt.Sprint(i), false, 1)
	}
	require.Equal(t, now.Add(BreakerMin/2), b.Until(), "chance takes up to half")
}

func TestBadAnswers(t *testing.T) {
	for kind, bad := range map[fault.Kind]bool{fault.Unavailable: true, fault.Malformed: true, fault.Timeout: false, fault.Overloaded: false,
		fault.Invalid: false, fault.Refused: false, fault.TooLarge: false, fault.NotFound: false} {
		require.Equal(t, bad, BadAnswer(fault.New(kind, "t", "", "x")), kind.String())
	}
	require.Equal(t, "closed open half-open", fmt.Sprint(Closed, Open, HalfOpen))
}
