package persistence

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// A snapshot that begins again is no warning; a peer that sends what it must not is.
func TestLevelOfAPeersEnd(t *testing.T) {
	require.Equal(t, slog.LevelInfo, levelOf(fmt.Errorf("x: %w", errChunk)))
	require.Equal(t, slog.LevelWarn, levelOf(errFrame))
}
