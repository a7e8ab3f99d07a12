package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster/mesh"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	scanBytes = 4 << 20          // of one answer to a scan from another node
	watchPoll = 20 * time.Second // a question for changes on another node is asked again after this
)

// Read returns a journal as it stands now: everything that was committed before the call, by any
// owner, is in it.
func (r *Router) Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error) {
	return r.ReadIn(ctx, r.ShardOf(key), key, after)
}

// ReadIn is Read of a journal that lives in a shard of its own choice, like the coordinator's.
func (r *Router) ReadIn(ctx context.Context, shard int, key persistence.Key, after uint64) (l persistence.Log, err error) {
	ask, err := json.Marshal(readAsk{key, after})
	if err != nil {
		return l, fault.New(fault.Invalid, "cluster.read", key.String(), "%w", err)
	}
	body, err := r.CallOwner(ctx, shard, opRead, ask, func(ctx context.Context, o *Owner) error {
		l, err = o.readNow(ctx, key, after)
		return err
	})
	if err == nil && body != nil {
		err = decodeAnswer(body, &l)
	}
	return l, err
}

type readAsk struct {
	Key   persistence.Key `json:"key"`
	After uint64          `json:"after"`
}

func decodeAnswer(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fault.New(fault.Unavailable, "cluster.read", "", "the answer does not decode: %w", err)
	}
	return nil
}

func decodeAsk(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fault.New(fault.Invalid, "cluster.read", "", "the request does not decode: %w", err)
	}
	return nil
}

// readNow is Read after a look whether this owner is still the current one.
func (o *Owner) readNow(ctx context.Context, key persistence.Key, after uint64) (l persistence.Log, err error) {
	if err := o.current(ctx); err != nil {
		return l, err
	}
	return o.Read(key, after)
}

func serveRead(ctx context.Context, _ string, o *Owner, body []byte) ([]byte, error) {
	var q readAsk
	if err := decodeAsk(body, &q); err != nil {
		return nil, err
	}
	l, err := o.readNow(ctx, q.Key, q.After)
	if err != nil {
		return nil, err
	}
	return json.Marshal(l)
}

// ReadAll reads the journals of one shard from their starts, as many of the first keys as one answer holds, and at
// least one. It is the owner's view without a barrier, like Scan: for lists.
func (r *Router) ReadAll(ctx context.Context, shard int, keys []persistence.Key) (logs []persistence.Log, err error) {
	ask, err := json.Marshal(keys)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cluster.read", "", "%w", err)
	}
	body, err := r.CallOwner(ctx, shard, opReadAll, ask, func(_ context.Context, o *Owner) error {
		logs, err = o.readAll(keys)
		return err
	})
	if err == nil && body != nil {
		err = decodeAnswer(body, &logs)
	}
	if err == nil && len(logs) == 0 && len(keys) > 0 {
		err = fault.New(fault.Unavailable, "cluster.read", "", "shard %d: the answer is empty", shard)
	}
	return logs, err
}

func (o *Owner) readAll(keys []persistence.Key) (logs []persistence.Log, err error) {
	for size, i := 0, 0; i < len(keys) && (i == 0 || size < scanBytes); i++ {
		l, err := o.Read(keys[i], 0)
		if err != nil {
			return nil, err
		}
		size += len(l.Snap)
		for _, row := range l.Rows {
			size += len(row.Data)
		}
		logs = append(logs, l)
	}
	return logs, nil
}

func serveReadAll(_ context.Context, _ string, o *Owner, body []byte) ([]byte, error) {
	var keys []persistence.Key
	if err := decodeAsk(body, &keys); err != nil {
		return nil, err
	}
	logs, err := o.readAll(keys)
	if err != nil {
		return nil, err
	}
	return json.Marshal(logs)
}

// Reader reads journals through a Router, or what a package needs of one, for those who fold them.
type Reader struct {
	Context context.Context
	Router  interface {
		Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
	}
}

// Read is Router.Read.
func (r Reader) Read(key persistence.Key, after uint64) (persistence.Log, error) {
	return r.Router.Read(r.Context, key, after)
}

// IndexRow is one row of an index.
type IndexRow struct {
	Key   []byte `json:"k"`
	Value []byte `json:"v,omitempty"`
}

// Page is a part of an index, and how far the index is complete.
type Page struct {
	Rows    []IndexRow `json:"rows"`
	Ended   bool       `json:"ended"`   // nothing follows before the end that was asked for
	Settled time.Time  `json:"settled"` // see Owner.Settled; taken before the rows were read
}

// settleFor is how long a message may be in hand on a node of the version before, which does not count it when it says how far it
// is settled.
const settleFor = 250 * time.Millisecond

// Complete is a time before which an index ordered by the shard's time has all its rows: none will turn up there later.
func (p Page) Complete() time.Time { return p.Settled.Add(-settleFor) }

// Scan returns up to limit rows of a shard's index with from <= key < to (nil: its end), fewer when they are
// large: then Ended is false. It is the owner's view without a barrier: an owner that was just replaced may miss the newest rows.
func (r *Router) Scan(ctx context.Context, shard int, index string, from, to []byte, limit int) (p Page, err error) {
	q := scanAsk{index, from, to, limit}
	ask, err := json.Marshal(q)
	if err != nil {
		return p, fault.New(fault.Invalid, "cluster.scan", index, "%w", err)
	}
	body, err := r.CallOwner(ctx, shard, opScan, ask, func(_ context.Context, o *Owner) error {
		p, err = o.page(q)
		return err
	})
	if err == nil && body != nil {
		err = decodeAnswer(body, &p)
	}
	return p, err
}

type scanAsk struct {
	Index string `json:"index"`
	From  []byte `json:"from"`
	To    []byte `json:"to"`
	Limit int    `json:"limit"`
}

func (o *Owner) page(q scanAsk) (p Page, err error) {
	p.Settled, p.Ended = o.Settled(), true
	size := 0
	err = o.Scan(q.Index, q.From, q.To, func(key, value []byte) bool {
		if len(p.Rows) == q.Limit || size > scanBytes {
			p.Ended = false
			return false
		}
		size += len(key) + len(value)
		p.Rows = append(p.Rows, IndexRow{bytes.Clone(key), bytes.Clone(value)})
		return true
	})
	return p, err
}

func serveScan(_ context.Context, _ string, o *Owner, body []byte) ([]byte, error) {
	var q scanAsk
	if err := decodeAsk(body, &q); err != nil {
		return nil, err
	}
	p, err := o.page(q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

// Counters returns the exact counters of a shard, and when they were read.
func (r *Router) Counters(ctx context.Context, shard int) (c map[string]int64, err error) {
	body, err := r.CallOwner(ctx, shard, opCounters, nil, func(_ context.Context, o *Owner) error {
		c, err = o.Counters()
		return err
	})
	if err == nil && body != nil {
		err = decodeAnswer(body, &c)
	}
	return c, err
}

func serveCounters(_ context.Context, _ string, o *Owner, _ []byte) ([]byte, error) {
	c, err := o.Counters()
	if err != nil {
		return nil, err
	}
	return json.Marshal(c)
}

// Watch returns a channel that gets a value after each append to key, merged when the reader is slow,
// and a function that ends it. It follows the shard from owner to owner; each move is a value as well, because
// something may have happened meanwhile.
func (r *Router) Watch(key persistence.Key) (<-chan struct{}, func()) {
	out := make(chan struct{}, 1)
	tell := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		shard := r.ShardOf(key)
		for wait := askWaitMin; ctx.Err() == nil; wait = min(2*wait, askWaitMax) {
			if r.follow(ctx, shard, key, tell) {
				wait = askWaitMin
			}
			tell()
			if !r.pause(ctx, shard, wait) {
				return
			}
		}
	})
	return out, func() {
		cancel()
		wg.Wait()
	}
}

// follow watches a key at its owner until that is no more, and tells whether it found one.
func (r *Router) follow(ctx context.Context, shard int, key persistence.Key, tell func()) (found bool) {
	if o := r.owners[shard].Load(); o != nil {
		c, stop := o.Watch(key)
		defer stop()
		tell() // Watch returned before this one looks: what happened in between is news
		for {
			select {
			case <-c:
				tell()
			case <-o.gone:
				return true
			case <-ctx.Done():
				return true
			}
		}
	}
	node, _, _ := r.dir.at(shard)
	name, ok := r.peers.Name(node)
	if !ok || name == r.self || r.mesh == nil {
		return false
	}
	for seen := uint64(0); ; {
		ask, err := json.Marshal(readAsk{key, seen})
		if err != nil {
			return found
		}
		poll, cancel := context.WithTimeout(ctx, watchPoll)
		a, err := r.mesh.Ask(poll, name, &mesh.Request{Op: opWatch, Shard: shard, Body: ask})
		cancel()
		var last uint64
		if err != nil || json.Unmarshal(a.Body, &last) != nil {
			return found
		}
		if found = true; last > seen {
			seen = last
			tell()
		}
	}
}

// serveWatch answers with the last sequence of a journal once that is above the one asked with, or
// after half of what the asker waits.
func serveWatch(ctx context.Context, _ string, o *Owner, body []byte) ([]byte, error) {
	var q readAsk
	if err := decodeAsk(body, &q); err != nil {
		return nil, err
	}
	c, stop := o.Watch(q.Key)
	defer stop()
	t := time.NewTimer(watchPoll / 2)
	defer t.Stop()
	for {
		l, err := o.Read(q.Key, q.After)
		if err != nil {
			return nil, err
		}
		if l.Last > q.After {
			return json.Marshal(l.Last)
		}
		select {
		case <-c:
		case <-t.C:
			return json.Marshal(q.After)
		case <-o.gone:
			return nil, fault.New(fault.Fenced, "cluster.watch", q.Key.String(), "shard %d has moved", o.shard)
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "cluster.watch", q.Key.String(), "%w", context.Cause(ctx))
		}
	}
}
