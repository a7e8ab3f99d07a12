package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// TestAModelListIsWholeInAFile: only a terminal cuts what went wrong.
func TestAModelListIsWholeInAFile(t *testing.T) {
	why := strings.Repeat("x", 400) + " the end"
	var b strings.Builder
	require.NoError(t, writeEngines(&b, &wire.Engines{Engines: []wire.EngineEntry{{Name: "e", Reason: why}}}))
	require.Contains(t, b.String(), why)
}

func TestOutcomesOfEngineChanges(t *testing.T) {
	now := time.Now()
	require.Equal(t, "begun", outcomeOf(wire.AuditEntry{Act: "engine.load", EndedAt: &now}))
	require.Equal(t, "done", outcomeOf(wire.AuditEntry{Act: "key.create", EndedAt: &now}))
	lost := wire.EngineEntry{Name: "e", State: "ready", Version: 2, Models: []string{"hm"}, Change: &wire.EngineChange{State: "done", Lost: []string{"pym"}}}
	require.Contains(t, outcome(lost, "swap"), "no engine of this node serves pym any more")
}
