package batch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRipe(t *testing.T) {
	w := Window{SizeMax: 4, TokensMax: 100, AgeMax: 5 * time.Millisecond}
	for _, c := range []struct {
		name string
		load Load
		want Cause
		wait time.Duration
	}{
		{"nothing", Load{}, NotRipe, 0},
		{"nothing, more coming", Load{Coming: 3}, NotRipe, 0},
		{"full", Load{Count: 4, Coming: 9}, BySize, 0},
		{"over full", Load{Count: 9, Coming: 9}, BySize, 0},
		{"tokens", Load{Count: 1, Tokens: 100, Coming: 9}, ByTokens, 0},
		{"nothing else coming", Load{Count: 1}, ByDrain, 0},
		{"old", Load{Count: 1, Age: 5 * time.Millisecond, Coming: 1}, ByAge, 0},
		{"young, more coming", Load{Count: 3, Tokens: 99, Age: 2 * time.Millisecond, Coming: 1}, NotRipe, 3 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, wait := w.Ripe(c.load)
			require.Equal(t, c.want, got)
			require.Equal(t, c.wait, wait)
		})
	}
}

func TestCut(t *testing.T) {
	w := Window{SizeMax: 3, TokensMax: 10}
	for _, c := range []struct {
		tokens []int
		want   int
	}{
		{nil, 0}, {[]int{1}, 1}, {[]int{3, 3, 3, 3}, 3}, {[]int{6, 4, 1}, 2}, {[]int{6, 5}, 1},
		{[]int{50, 1}, 1}, // one that is too large alone still goes
	} {
		require.Equal(t, c.want, w.Cut(c.tokens), "%v", c.tokens)
	}
}

func TestWindowValidates(t *testing.T) {
	require.NoError(t, DefaultWindow().Validate())
	for _, w := range []Window{{}, {SizeMax: 1}, {SizeMax: 1, TokensMax: 1, AgeMax: -1}} {
		require.Error(t, w.Validate())
	}
}
