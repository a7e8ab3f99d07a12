package retention

import (
	"bytes"
	"time"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Mark is up to where a sink has written the results of its tenant.
type Mark struct {
	Tenant string
	Last   map[int][]byte // by shard, the key in task.IndexEnded of the last result that is written; none: nothing of that shard is
}

// until is the end of what may be deleted of a shard's ended tasks of a tenant: they ended before cutoff, and every sink of the tenant has them.
func until(cutoff time.Time, marks []Mark, whose string, shard int) []byte {
	to := task.EndedBound(cutoff)
	for _, m := range marks {
		if m.Tenant != whose {
			continue
		}
		written := []byte{}
		if last := m.Last[shard]; last != nil {
			written = after(last)
		}
		if bytes.Compare(written, to) < 0 {
			to = written
		}
	}
	return to
}

// Awaited tells whether a sink of a task's tenant has not written its result.
func Awaited(marks []Mark, id string, shard int, ended time.Time) bool {
	return bytes.Compare(task.EndedKey(ended, id), until(ended.Add(time.Microsecond), marks, tenant.Of(id), shard)) >= 0
}

// after is the least key above k.
func after(k []byte) []byte { return append(bytes.Clone(k), 0) }

// candidate parses a row of task.IndexEnded. Lines of batches are none: they go with their batch, and a node may have millions of them, which are not
// to be asked each time.
func candidate(key []byte) (id string, ended time.Time, ok bool) {
	ended, id, ok = task.ParseTimeKey(key)
	return id, ended, ok && !bulk.IsLine(tenant.Bare(id))
}

// verdict is what follows when something was asked to go.
type verdict int

const (
	gone  verdict = iota // it is, or it was before
	held                 // something still needs it: the next pass asks again
	later                // it could not be asked: the pass ends
)

func judge(err error) verdict {
	switch {
	case err == nil:
		return gone
	case fault.KindOf(err) == fault.NotFound:
		return gone
	case fault.KindOf(err) == fault.Conflict:
		return held
	}
	return later
}
