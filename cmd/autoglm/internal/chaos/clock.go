package chaos

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/clock"
)

// Of a clock that jumps. A task that a node accepts while its clock is ahead, for a shard of another node, starts only when
// that node's clock gets there: with more than EndMax the run would call it stuck.
const (
	offMin, offMax   = time.Minute, 90 * time.Second
	jumpMin, jumpMax = time.Second, 6 * time.Second // until it jumps again
)

// clockOf is the file that says how far off a node's wall clock is.
func clockOf(dir, node string) string { return filepath.Join(dir, node+".clock") }

// setClock puts a node's wall clock off by d, as it runs.
func (e *Env) setClock(i int, d time.Duration) error { return clock.Set(clockOf(e.dir, e.name(i)), d) }

// jump: the wall clock of a node that owns shards is set off by minutes while it runs, forward or back, then by as much the other way,
// then right. It owns shards so that its time is written down.
func jump(ctx context.Context, e *Env) error {
	i, d := e.owner(ctx, e.Rand.Uint64()), e.moment(offMin, offMax).Round(time.Second)
	if e.Rand.IntN(2) == 0 {
		d = -d
	}
	for _, off := range []time.Duration{d, -d, 0} {
		e.Log("the clock of %s is set off by %v", e.name(i), off)
		if err := e.setClock(i, off); err != nil {
			return err
		}
		if err := e.hold(ctx, e.moment(jumpMin, jumpMax)); err != nil {
			return errors.Join(err, e.setClock(i, 0))
		}
	}
	return nil
}
