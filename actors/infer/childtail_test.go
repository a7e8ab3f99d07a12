package infer

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOnlyTheNewestProcessIsHeard: what others said before it is forgotten with its first line, and is never taken for its own.
func TestOnlyTheNewestProcessIsHeard(t *testing.T) {
	l := newLineTail(func(string) {})
	say := func(s string) { _, _ = l.Write([]byte(s)) }
	l.begin()
	say("one\ntwo") // it dies without a line's end
	require.Equal(t, "one\ntwo", l.String())
	l.begin()
	require.Empty(t, l.fresh())
	require.Equal(t, "one\ntwo", l.String(), "the newest has said nothing yet")
	say("three")
	require.Equal(t, "three", l.String())
	say("\nfour\n")
	require.Equal(t, "three\nfour", l.String())
	require.Equal(t, "three\nfour", strings.TrimSpace(l.fresh()))
}
