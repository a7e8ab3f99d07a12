package schedule

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A schedule that there is not is named once.
func TestAMissingScheduleIsNamedOnce(t *testing.T) {
	require.Equal(t, "nope: no such schedule", fault.Plain(noSuch("nope")))
}
