package node

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	pageMax      = 1000   // tasks of one page
	scanMax      = 20_000 // tasks looked at for one page: a page may be short and still have a next
	resultsPage  = 256    // rows read from a shard at a time
	recordsAhead = 32     // tasks read from a shard at a time
)

// A cursor is the last index key given, for each shard: a page merges all shards.
//
// Its text is base64url of the compressed sequence of (uvarint shard, uvarint length, key), by
// shard. It travels in a query string, where servers and proxies bound the whole line, and a
// node has up to 1024 shards with keys of several hundred bytes: so it is packed.
type cursor map[int][]byte

const (
	cursorMax       = 64 << 10 // bytes of its text, as in the API
	cursorPlainMax  = 2 << 20  // bytes before compression: a short text must not unpack to gigabytes
	cursorShardsMax = 1024     // as in persistence.Options
)

var packers = sync.Pool{New: func() any { // a new one takes hundreds of KiB
	w, err := flate.NewWriter(io.Discard, flate.DefaultCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

func (c cursor) String() string {
	if len(c) == 0 {
		return ""
	}
	var plain []byte
	for _, n := range slices.Sorted(maps.Keys(c)) {
		plain = binary.AppendUvarint(plain, uint64(n))
		plain = binary.AppendUvarint(plain, uint64(len(c[n])))
		plain = append(plain, c[n]...)
	}
	var b bytes.Buffer
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&b)
	_, err := w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err) // a buffer takes everything
	}
	return base64.RawURLEncoding.EncodeToString(b.Bytes())
}

func parseCursor(s string) (cursor, error) {
	c := cursor{}
	if s == "" {
		return c, nil
	}
	if !c.unpack(s) {
		return nil, fault.New(fault.Invalid, "node.list", "cursor", "is none of ours").WithRemedy("use the cursor of the page before, or none to start again")
	}
	return c, nil
}

// unpack is the inverse of String; false when it did not make s.
func (c cursor) unpack(s string) bool {
	if len(s) > cursorMax {
		return false
	}
	packed, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return false
	}
	r := flate.NewReader(bytes.NewReader(packed))
	defer r.Close()
	plain, err := io.ReadAll(io.LimitReader(r, cursorPlainMax+1))
	if err != nil || len(plain) == 0 || len(plain) > cursorPlainMax {
		return false
	}
	uvarint := func(max uint64) (int, bool) {
		n, size := binary.Uvarint(plain)
		if size <= 0 || n > max {
			return 0, false
		}
		plain = plain[size:]
		return int(n), true
	}
	for prev := -1; len(plain) > 0; {
		shard, ok := uvarint(cursorShardsMax - 1)
		if !ok || shard <= prev {
			return false
		}
		n, ok := uvarint(persistence.IndexKeyMax)
		if !ok || n == 0 || n > len(plain) {
			return false
		}
		c[shard], plain = plain[:n:n], plain[n:]
		prev = shard
	}
	return true
}

// stream is one shard's index rows in order, read ahead a little, with the tasks they are of.
type stream struct {
	shard  int
	rows   []indexRow
	last   []byte // key of the newest row handed out or skipped
	prefix []byte // all keys begin so
	ended  bool
	ahead  int // tasks read at a time
	read   func(from []byte, n int) (rows []indexRow, ended bool, err error)
	load   func(ids []string) ([]*task.Record, error) // of the first of them, at least one
}

type indexRow struct {
	sort []byte // what shards are merged by
	key  []byte
	id   string
	rec  *task.Record // nil until it is loaded
}

// head returns the next row, reading more when needed.
func (s *stream) head() (*indexRow, error) {
	for len(s.rows) == 0 && !s.ended {
		from := s.prefix
		if s.last != nil {
			from = append(bytes.Clone(s.last), 0) // the first key after it
		}
		rows, ended, err := s.read(from, resultsPage)
		if err != nil {
			return nil, err
		}
		s.rows, s.ended = rows, ended
	}
	if len(s.rows) == 0 {
		return nil, nil
	}
	return &s.rows[0], nil
}

// record returns the task of the next row; nil when it is gone.
func (s *stream) record() (*task.Record, error) {
	if s.rows[0].rec == nil {
		ids := make([]string, min(s.ahead, len(s.rows)))
		for i := range ids {
			ids[i] = s.rows[i].id
		}
		recs, err := s.load(ids)
		if err != nil {
			return nil, err
		}
		for i, r := range recs {
			s.rows[i].rec = r
		}
	}
	return s.rows[0].rec, nil
}

func (s *stream) pop() {
	s.last = s.rows[0].key
	s.rows = s.rows[1:]
}

// merge walks the rows of all streams in order until f returns false.
func merge(ss []*stream, f func(s *stream, r *indexRow) (bool, error)) error {
	for {
		var best *stream
		var row *indexRow
		for _, s := range ss {
			r, err := s.head()
			if err != nil {
				return err
			}
			if r != nil && (best == nil || bytes.Compare(r.sort, row.sort) < 0) {
				best, row = s, r
			}
		}
		if best == nil {
			return nil
		}
		if more, err := f(best, row); err != nil || !more {
			return err
		}
	}
}

// List merges the shards' pages.
func (s *service) List(ctx context.Context, q api.Query) ([]api.Item, string, error) {
	if q.Limit < 1 || q.Limit > pageMax {
		return nil, "", fault.New(fault.Invalid, "node.list", "limit", "is %d: use 1 to %d", q.Limit, pageMax)
	}
	cur, err := parseCursor(q.Cursor)
	if err != nil {
		return nil, "", err
	}
	whose := tenant.From(ctx)
	index, prefix, parse := listIndex(q.State, whose)
	if q.Cursor == "" && !q.Since.IsZero() && q.State.Final() {
		for n := range s.store.Shards() {
			cur[n] = append(bytes.Clone(prefix), task.EndedBound(q.Since)...) // no task has so short a key
		}
	}
	ss, err := s.streams(ctx, cur, index, prefix, parse, nil)
	if err != nil {
		return nil, "", err
	}
	for _, st := range ss {
		st.ahead = min(st.ahead, 1+q.Limit/len(ss))
	}
	var page []api.Item
	looked := 0
	more := false
	err = merge(ss, func(st *stream, r *indexRow) (bool, error) {
		if len(page) == q.Limit || looked == scanMax || ctx.Err() != nil {
			more = true
			return false, nil
		}
		looked++
		name, id := tenant.Split(r.id)
		if name != whose {
			st.pop()
			cur[st.shard] = st.last
			return true, nil
		}
		rec, err := st.record()
		if err != nil {
			return false, err
		}
		st.pop()
		cur[st.shard] = st.last
		if rec != nil && matches(q, rec) {
			page = append(page, api.Item{ID: id, Record: rec})
		}
		return true, nil
	})
	if err != nil || !more {
		return page, "", err
	}
	return page, cur.String(), nil
}

// matches holds a record against the filters. The state is checked again: the task
// may have moved on since its row was read.
func matches(q api.Query, r *task.Record) bool {
	if q.State != task.None && r.State != q.State || q.Model != "" && r.Model != q.Model {
		return false
	}
	if q.ErrorKind != "" && (r.Error == nil || r.Error.Kind != q.ErrorKind) || q.Open && r.RetriedAs != "" {
		return false
	}
	for k, v := range q.Metadata {
		if got, ok := r.Spec.Metadata[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// listIndex chooses the index that has a state's tasks in its own order. What waits and runs is in one index for all tenants, whose
// order only the operator's lists show: a cursor there may tell ids of others. Another tenant's come out of all of its own.
func listIndex(s task.State, whose string) (name string, prefix []byte, parse func(key []byte) (sort []byte, id string, ok bool)) {
	whole := func(key []byte) ([]byte, string, bool) { _, id, ok := task.ParseTimeKey(key); return key, id, ok }
	switch {
	case whose != tenant.Default && !s.Final():
	case s == task.Pending:
		return task.IndexReady, nil, func(key []byte) ([]byte, string, bool) {
			k, ok := task.ParseReadyKey(key)
			return key, k.ID, ok
		}
	case s == task.Running:
		return task.IndexRunning, nil, func(key []byte) ([]byte, string, bool) { return key, string(key), true }
	case s == task.Completed:
		return tenant.Index(task.IndexEnded, whose), nil, whole
	case s == task.Failed || s == task.Cancelled:
		return tenant.Index(task.IndexTrouble, whose), task.TroublePrefix(s), func(key []byte) ([]byte, string, bool) {
			_, id, ok := task.ParseTimeKey(key[1:])
			return key, id, ok
		}
	}
	return tenant.Index(task.IndexAll, whose), nil, whole
}

// streams opens an index on every shard behind the cursor. settled, unless it is nil, makes the key at which each stream ends of the time
// up to which its rows are complete now.
func (s *service) streams(ctx context.Context, cur cursor, index string, prefix []byte, parse func([]byte) ([]byte, string, bool), settled func(time.Time) []byte) ([]*stream, error) {
	var to []byte
	if prefix != nil {
		to = slices.Clone(prefix)
		to[len(to)-1]++
	}
	ss := make([]*stream, s.store.Shards())
	for n := range ss {
		st := &stream{shard: n, last: cur[n], prefix: prefix, ahead: recordsAhead}
		end := to
		asked := false
		st.read = func(from []byte, max int) (rows []indexRow, ended bool, err error) {
			if settled != nil && !asked {
				// How far the index is complete is asked first: what settled by then is in the pages. It is the shard's own
				// time, whatever other clocks say, and asked once: a reader comes to an end while tasks go on ending.
				p, err := s.sys.Router.Scan(ctx, n, index, nil, nil, 0)
				if err != nil {
					return nil, false, err
				}
				end, asked = settled(p.Complete()), true
			}
			p, err := s.sys.Router.Scan(ctx, n, index, from, end, max)
			if err != nil {
				return nil, false, err
			}
			for _, r := range p.Rows {
				if sort, id, ok := parse(r.Key); ok {
					rows = append(rows, indexRow{sort: sort, key: r.Key, id: id})
				}
			}
			return rows, p.Ended || len(rows) == 0, nil
		}
		st.load = func(ids []string) ([]*task.Record, error) { return s.records(ctx, n, ids) }
		ss[n] = st
	}
	return ss, nil
}

// records returns the first of some tasks of a shard, at least one.
func (s *service) records(ctx context.Context, shard int, ids []string) ([]*task.Record, error) {
	keys := make([]persistence.Key, len(ids))
	for i, id := range ids {
		keys[i] = task.Key(id)
	}
	logs, err := s.sys.Router.ReadAll(ctx, shard, keys)
	if err != nil {
		return nil, err
	}
	recs := make([]*task.Record, len(logs))
	for i, l := range logs {
		r, _, err := s.sys.Tasks.Fold(ids[i], l)
		if err != nil {
			return nil, err
		}
		if r.State != task.None { // else it was deleted since its row was read
			recs[i] = &r
		}
	}
	return recs, nil
}
