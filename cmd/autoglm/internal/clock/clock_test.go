package clock

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestShift: the wall clock jumps, the monotonic one does not.
func TestShift(t *testing.T) {
	require.True(t, works())
	before := time.Now()
	for _, s := range []int64{0, 1, -1, 3600, -86400} {
		after := shift(before, s)
		require.Zero(t, after.Sub(before), "by the monotonic clock no time has passed")
		require.Equal(t, time.Duration(s)*time.Second, after.Round(0).Sub(before.Round(0)))
		require.Equal(t, before.Nanosecond(), after.Nanosecond())
		require.Equal(t, before.Location(), after.Location())
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	now, stop, err := Follow(path)
	require.NoError(t, err)
	defer stop()
	off := func() time.Duration { return now().Round(0).Sub(time.Now().Round(0)).Round(time.Second) }
	require.Zero(t, off(), "no file")
	for _, d := range []time.Duration{7 * time.Minute, -7 * time.Minute, 0} {
		require.NoError(t, Set(path, d))
		require.Eventually(t, func() bool { return off() == d }, time.Minute, time.Millisecond)
	}
	require.NoError(t, Set(path, time.Minute))
	require.Eventually(t, func() bool { return off() == time.Minute }, time.Minute, time.Millisecond)
	stop()
	stop()

	require.NoError(t, os.WriteFile(path, []byte("noon"), 0o600))
	_, _, err = Follow(path)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))
}
