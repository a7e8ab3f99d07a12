package sink

import (
	"context"
	"time"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	batchBytes = 4 << 20 // of results, of one batch; the last one may be more
	scanMax    = 20_000  // results looked at for one batch, the sink's or not
	skipAfter  = time.Minute
	skipMax    = 10_000 // results that are not the sink's, until the cursor behind them is journaled; or skipAfter, for what the cursor has not passed cannot be deleted
)

// batch is results in memory, and what is known of them.
type batch struct {
	seq            uint64 // once it is planned
	items          []Item
	upTo           string // cursor behind the last result that was looked at
	oldest, newest time.Time
	looked         int
	full           bool // a limit ended it: it does not grow by waiting
}

// gather reads the next results after a cursor, at most a batch.
func (d *driver) gather(ctx context.Context, def *Definition, after string) (*batch, error) {
	return d.read(ctx, def, after, "", func(b *batch, size int) bool {
		return len(b.items) >= def.Rows || size >= batchBytes || b.looked >= scanMax
	})
}

// gatherAgain reads the batch that is planned: whatever its limits were then, it is what lies between two cursors.
func (d *driver) gatherAgain(ctx context.Context, s *State) (*batch, error) {
	b, err := d.read(ctx, s.Def, s.Cursor, s.Next.UpTo, func(*batch, int) bool { return false })
	if err != nil {
		return nil, err
	}
	b.seq, b.upTo = s.Next.Seq, s.Next.UpTo
	switch n := len(b.items); {
	case n < s.Next.Rows: // whoever was asked does not know yet that it owns a shard no more
		return nil, fault.New(fault.Unavailable, "sink.gather", d.name, "%d of the %d results of batch %d can be read now", n, s.Next.Rows, b.seq)
	case n > s.Next.Rows: // a node of an older version put one where all was complete: it is written, too
		d.Log.Warn("a sink's batch has more results than it was planned with", "sink", d.name, "batch", b.seq, "planned", s.Next.Rows, "has", n)
	}
	return b, nil
}

func (d *driver) read(ctx context.Context, def *Definition, after, upTo string, full func(b *batch, size int) bool) (*batch, error) {
	b := &batch{}
	var failed error
	size := 0
	next, err := d.Results(ctx, d.name, after, upTo, func(id string, r *task.Record) bool {
		b.looked++
		if def.wants(r) {
			it := Item{Row: result.Of(id, r, def.Prompt)}
			if def.Format == FormatJSONL {
				if it.JSON, failed = d.Line(id, r, def.Prompt); failed != nil {
					return false
				}
			}
			size += it.Row.Size() + len(it.JSON)
			b.items = append(b.items, it)
			if b.oldest.IsZero() || r.EndedAt.Before(b.oldest) {
				b.oldest = r.EndedAt
			}
			if r.EndedAt.After(b.newest) {
				b.newest = r.EndedAt
			}
		}
		b.full = full(b, size)
		return !b.full
	})
	if err == nil {
		err = failed
	}
	b.upTo = next
	return b, err
}
