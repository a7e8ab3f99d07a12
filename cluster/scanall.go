package cluster

import (
	"bytes"
	"context"
	"sync"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	// NewestMax is how many rows one Newest returns at most: a page of ten thousand, and one that tells that more follow.
	NewestMax = 10_001

	newestPage = 512 // rows asked of a shard at once
)

// Newest returns the first rows of an index over all shards, by key, from from on: at most limit (1 to NewestMax) of those that
// keep wants (nil: all). It is for indexes whose keys begin with what they are to be listed by, say a time that counts down. Like
// Scan it has no barrier. A shard that does not answer fails it: a list with holes would look whole.
func (r *Router) Newest(ctx context.Context, index string, from []byte, limit int, keep func(IndexRow) bool) ([]IndexRow, error) {
	if limit < 1 || limit > NewestMax {
		return nil, fault.New(fault.Invalid, "cluster.newest", index, "a limit of %d: 1 to %d", limit, NewestMax)
	}
	page := newestPage
	if keep == nil {
		page = min(page, limit)
	}
	fronts := make([]*front, r.Shards())
	for i := range fronts {
		fronts[i] = &front{shard: i, from: from}
	}
	var out []IndexRow
	for len(out) < limit {
		if err := r.fill(ctx, index, fronts, page); err != nil {
			return nil, err
		}
		var first *front
		for _, f := range fronts {
			if len(f.rows) > 0 && (first == nil || bytes.Compare(f.rows[0].Key, first.rows[0].Key) < 0) {
				first = f
			}
		}
		if first == nil {
			break
		}
		if row := first.rows[0]; keep == nil || keep(row) {
			out = append(out, row)
		}
		first.rows = first.rows[1:]
	}
	return out, nil
}

// front is how far one shard is read: rows are those read and not yet merged.
type front struct {
	shard int
	rows  []IndexRow
	from  []byte
	ended bool
}

// fill reads on, side by side, where nothing is left to merge.
func (r *Router) fill(ctx context.Context, index string, fronts []*front, page int) error {
	var wg sync.WaitGroup
	errs := make([]error, len(fronts))
	for i, f := range fronts {
		if len(f.rows) > 0 || f.ended {
			continue
		}
		wg.Go(func() {
			var p Page
			if p, errs[i] = r.Scan(ctx, f.shard, index, f.from, nil, page); errs[i] != nil {
				return
			}
			if f.rows, f.ended = p.Rows, p.Ended; len(p.Rows) > 0 {
				f.from = successor(p.Rows[len(p.Rows)-1].Key)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Append is Create for journals that exist and that no actor is awake for: rows behind those that their writers know
// (Write.After > 0). The same write twice is one; a Conflict tells that the journal is not where the writer believes.
func (r *Router) Append(ctx context.Context, writes []persistence.Write) []error {
	for i := range writes {
		if writes[i].After == 0 {
			errs := make([]error, len(writes))
			for j := range errs {
				errs[j] = fault.New(fault.Invalid, "cluster.append", writes[i].Key.String(), "Append is for journals that exist: Create makes one")
			}
			return errs
		}
	}
	return r.Create(ctx, writes)
}
