package task

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
)

// TestBytesAreCountedWhereAllNodesDo: a node that does not would erase the task and leave them counted.
func TestBytesAreCountedWhereAllNodesDo(t *testing.T) {
	for _, all := range []bool{true, false} {
		k := NewKind(Policy{Bytes: func() bool { return all }}, nil, nil)
		_, w, err := k.First("/acme/a", &Submit{Spec: &Spec{ID: "/acme/a", Prompt: "prompt"}, Model: "m"}, time.Now)
		require.NoError(t, err)
		var bytes []persistence.Count
		for _, c := range w.Count {
			if c.Name == countBytes+"acme" {
				bytes = append(bytes, c)
			}
		}
		if all {
			require.Len(t, bytes, 1)
			require.Positive(t, bytes[0].Delta)
		} else {
			require.Empty(t, bytes)
		}
	}
	require.Zero(t, Policy{Bytes: func() bool { return false }}.kept(7), "so of answers")
	require.Equal(t, 7, Policy{}.kept(7))
}
