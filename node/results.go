package node

import (
	"bytes"
	"context"
	"math"
	"time"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// resultsQuery says which results are wanted: those behind a cursor, of all tasks or of the lines of a batch.
type resultsQuery struct {
	after string
	upTo  string // cursor of the last ones, "": all that are complete by now
	batch string // whole id; "": all tasks
}

// Results walks final tasks as they ended.
func (s *service) Results(ctx context.Context, after string, f func(api.Item) bool) (string, error) {
	return s.walk(ctx, resultsQuery{after: after}, f)
}

// BatchResults walks the lines of a batch as they ended.
func (s *service) BatchResults(ctx context.Context, batch, after string, f func(api.Item) bool) (string, error) {
	whole := tenant.Own(ctx, batch)
	if _, err := s.batches.Get(ctx, whole); err != nil {
		return after, err
	}
	return s.walk(ctx, resultsQuery{after: after, batch: whole}, f)
}

func (s *service) walk(ctx context.Context, q resultsQuery, f func(api.Item) bool) (string, error) {
	if q.after == wire.CursorEnd {
		c, err := s.end(ctx, q.batch)
		return c.String(), err
	}
	cur, err := resultCursor(q.after, q.batch)
	if err != nil {
		return q.after, err
	}
	ss, err := s.ends(ctx, cur, q.batch)
	if err == nil && q.upTo != "" {
		ss, err = upTo(ss, q.upTo, q.batch)
	}
	if err != nil {
		return q.after, err
	}
	err = merge(ss, func(st *stream, r *indexRow) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		rec, err := st.record()
		if err != nil {
			return false, err
		}
		id := tenant.Bare(r.id)
		st.pop()
		cur[st.shard] = st.last
		if rec == nil {
			return true, nil
		}
		return f(api.Item{ID: id, Record: rec}), nil
	})
	return cur.String(), err
}

// resultCursor reads a cursor of the results of all tasks, or of a batch: each has keys of its own.
func resultCursor(text, batch string) (cursor, error) {
	cur, err := parseCursor(text)
	if err != nil {
		return nil, err
	}
	for _, key := range cur {
		of, _, _, line := task.ParseLineEndKey(key)
		if line != (batch != "") || line && of != batch {
			return nil, fault.New(fault.Invalid, "node.results", "cursor", "is of other results").WithRemedy("use a cursor of the same batch, or of no batch, or none to start again")
		}
	}
	return cur, nil
}

// ends opens the index of ends on every shard.
func (s *service) ends(ctx context.Context, cur cursor, batch string) ([]*stream, error) {
	if batch == "" {
		index, _, parse := listIndex(task.Completed, tenant.From(ctx))
		return s.streams(ctx, cur, index, nil, parse, task.EndedBound)
	}
	parse := func(key []byte) ([]byte, string, bool) {
		_, _, number, ok := task.ParseLineEndKey(key)
		return key, bulk.LineID(batch, number), ok
	}
	return s.streams(ctx, cur, task.IndexLineEnd, task.LinePrefix(batch), parse, endBound(batch))
}

// endBound is a key of a batch's ends that is before all that are not before a time, and behind all others.
func endBound(batch string) func(time.Time) []byte {
	return func(t time.Time) []byte { return task.LineEndKey(batch, t.Add(-time.Microsecond), math.MaxUint64) }
}

// upTo ends each stream behind its key in a cursor; a shard that the cursor has no key of gave nothing. What lies between two cursors
// never changes, for all of it was complete when they were made.
func upTo(ss []*stream, text, batch string) ([]*stream, error) {
	to, err := resultCursor(text, batch)
	if err != nil {
		return nil, err
	}
	var bounded []*stream
	for _, st := range ss {
		last, ok := to[st.shard]
		if !ok {
			continue
		}
		read := st.read
		st.read = func(from []byte, n int) ([]indexRow, bool, error) {
			rows, ended, err := read(from, n)
			for i, r := range rows {
				if bytes.Compare(r.key, last) > 0 {
					return rows[:i], true, err
				}
			}
			return rows, ended, err
		}
		bounded = append(bounded, st)
	}
	return bounded, nil
}

// end is where every shard's results are complete.
func (s *service) end(ctx context.Context, batch string) (cursor, error) {
	index, bound := tenant.Index(task.IndexEnded, tenant.From(ctx)), task.EndedBound
	if batch != "" {
		index, bound = task.IndexLineEnd, endBound(batch)
	}
	c := cursor{}
	for n := range s.store.Shards() {
		p, err := s.sys.Router.Scan(ctx, n, index, nil, nil, 0)
		if err != nil {
			return nil, err
		}
		c[n] = bound(p.Complete())
	}
	return c, nil
}
