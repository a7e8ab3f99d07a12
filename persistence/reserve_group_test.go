package persistence_test

import (
	"testing"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// TestCreatesRefusedAlone: with the reserve touched, a task's answer is not lost because a
// stranger's new task shares its proposal.
func TestCreatesRefusedAlone(t *testing.T) {
	const keep = 1 << 20
	s := open(t, persistence.Options{Shards: 1, DiskReserve: keep})
	persistence.SetFree(s, 1<<40)
	persisttest.CreatesRefused(persisttest.Own(t, s.Journal(0)), func(on bool) {
		if on {
			persistence.SetFree(s, keep*3/4)
		} else {
			persistence.SetFree(s, 1<<40)
		}
	})
}
