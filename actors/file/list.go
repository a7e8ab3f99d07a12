package file

import (
	"context"
	"encoding/binary"
	"encoding/json"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// The ordered indexes of files, a pair for each tenant; see tenant.Index. A row is there while the file is seen, and has all of Info but Content, so that a list
// wakes and reads nothing else. Times are big-endian microseconds.
//
//	file     ^created id → Info   newest first
//	fileold   created id → Info   oldest first
const (
	IndexNewest = "file"
	IndexOldest = "fileold"
)

// Order is that of a list.
type Order string

// The orders; "" is Newest.
const (
	Newest Order = "desc"
	Oldest Order = "asc"
)

// PageMax is how many files a page has at most.
const PageMax = 10_000

// Query says which files to list.
type Query struct {
	After   string // id of the last file of the page before; "": from the start
	Limit   int    // 1 to PageMax
	Purpose string // "": any
	Order   Order
}

func orderKey(index string, in Info) []byte {
	t := uint64(in.CreatedAt.UnixMicro())
	if index == IndexNewest {
		t = ^t
	}
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(in.ID)), t), in.ID...)
}

// index returns the rows that change when a file goes from one record to another.
func index(id string, before, after Record) (rows []persistence.Index) {
	was, is := before.Status == Processed, after.Status == Processed
	if !is && !was || is && was && before.Bytes == after.Bytes {
		return nil
	}
	for _, order := range []string{IndexNewest, IndexOldest} {
		name := tenant.Index(order, tenant.Of(id))
		if !is {
			rows = append(rows, persistence.Index{Name: name, Key: orderKey(order, before.Info), Delete: true})
			continue
		}
		shown := after.Info
		shown.Content = nil
		value, err := json.Marshal(shown)
		if err != nil {
			panic(err) // plain data
		}
		rows = append(rows, persistence.Index{Name: name, Key: orderKey(order, shown), Value: value})
	}
	return rows
}

// List returns a page of the files of the tenant that ctx is for, without their Content, and whether more follow.
func (l *Library) List(ctx context.Context, q Query) (page []Info, more bool, err error) {
	order := IndexNewest
	switch q.Order {
	case Newest, "":
	case Oldest:
		order = IndexOldest
	default:
		return nil, false, fault.New(fault.Invalid, "file.list", "order", "is %q: use asc or desc", q.Order)
	}
	if q.Limit < 1 || q.Limit > PageMax {
		return nil, false, fault.New(fault.Invalid, "file.list", "limit", "is %d: use 1 to %d", q.Limit, PageMax)
	}
	var from []byte
	if q.After != "" {
		r, err := l.load(ctx, q.After)
		if err != nil {
			return nil, false, err
		}
		if r.Status == None { // one that was deleted meanwhile still has its place
			return nil, false, fault.New(fault.Invalid, "file.list", "after", "is no file: %.100q", q.After)
		}
		from = append(orderKey(order, r.Info), 0)
	}
	var bad error
	var shown []Info
	rows, err := l.router.Newest(ctx, tenant.Index(order, tenant.From(ctx)), from, q.Limit+1, func(row cluster.IndexRow) bool {
		var in Info
		if e := json.Unmarshal(row.Value, &in); e != nil {
			bad = fault.New(fault.Corrupt, "file.list", order, "a row: %w", e)
			return false
		}
		if q.Purpose != "" && in.Purpose != q.Purpose {
			return false
		}
		shown = append(shown, in)
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, false, err
	}
	if more = len(rows) > q.Limit; more {
		shown = shown[:q.Limit]
	}
	for i := range shown {
		if shown[i], err = l.sized(ctx, shown[i]); err != nil {
			return nil, false, err
		}
	}
	return shown, more, nil
}
