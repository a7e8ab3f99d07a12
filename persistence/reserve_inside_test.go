package persistence

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// SetFree makes the store believe that its disk has so many bytes free, from now on.
func SetFree(s Store, free uint64) {
	r := s.(*store).reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statfs = func(string) (uint64, error) { return free, nil }
	r.looked = time.Time{}
}

// TestReserveAdmits: between keep/2 and keep, creates alone stay out; below, all does. What
// is refused is not counted as written.
func TestReserveAdmits(t *testing.T) {
	const keep = 1000 * writeTimes
	now := time.Now()
	for _, c := range []struct {
		free             uint64
		updates, creates int
		refused, nothing bool
		written          uint64
	}{
		{2 * keep, 10, 10, false, false, 20},
		{keep + 20*writeTimes, 10, 10, false, false, 20},
		{keep + 20*writeTimes - 1, 10, 10, true, false, 10},
		{keep + 20*writeTimes - 1, 10, 0, false, false, 10},
		{keep - 1, 0, 10, true, false, 0},
		{keep/2 + 10*writeTimes, 10, 10, true, false, 10},
		{keep/2 + 10*writeTimes - 1, 10, 10, false, true, 0},
		{keep/2 + 10*writeTimes - 1, 10, 0, false, true, 0},
		{0, 0, 10, true, false, 0},
		{0, 0, 0, false, false, 0},
	} {
		r := &reserve{keep: keep, log: slog.New(slog.DiscardHandler), now: func() time.Time { return now },
			statfs: func(string) (uint64, error) { return c.free, nil }}
		refused, err := r.admit(c.updates, c.creates)
		require.Equal(t, c.refused, refused != nil, "%+v: %v", c, refused)
		require.Equal(t, c.nothing, err != nil, "%+v: %v", c, err)
		for _, e := range []error{refused, err} {
			if e != nil {
				require.Equal(t, fault.NoSpace, fault.KindOf(e))
				require.NotEmpty(t, fault.RemedyOf(e))
			}
		}
		require.Equal(t, c.written*writeTimes, r.written, "%+v", c)
	}
}
