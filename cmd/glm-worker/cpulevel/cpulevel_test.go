package cpulevel

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A binary that runs at all must find its own processor good enough, and must name what is gone when a bit is.
func TestMissingNamesTheFirstAbsentFeature(t *testing.T) {
	require.Empty(t, missing(present()))
	if Level() != "x86-64-v3" {
		t.Logf("built for %s: there is nothing to lack", Level())
		return
	}
	require.Equal(t, "avx", missing(0))
	require.Equal(t, "avx2", missing(present()&^(1<<1)))
	require.Equal(t, "f16c", missing(present()&^(1<<5)))
}
