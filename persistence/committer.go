package persistence

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// Bounds of one Badger transaction: 15 % of the smallest memtable are 1,258,291 bytes and
// 13,107 rows. One Raft entry always fits: its cost is at most AppendMax.
const (
	txnBytes = 1_200_000
	txnRows  = 12_500
)

// batch is what one shard wants written at once. A later operation on a key replaces
// an earlier one.
type batch struct {
	ops  []op
	size int // as Badger counts it
	done chan error
}

type op struct {
	key, value []byte
	del        bool
}

func (b *batch) set(key, value []byte) {
	b.ops = append(b.ops, op{key: key, value: value})
	b.size += len(key) + len(value) + 14
}

func (b *batch) delete(key []byte) {
	b.ops = append(b.ops, op{key: key, del: true})
	b.size += len(key) + 14
}

// find returns what the batch does to key, nil when that is nothing.
func (b *batch) find(key []byte) *op {
	for i := len(b.ops) - 1; i >= 0; i-- {
		if bytes.Equal(b.ops[i].key, key) {
			return &b.ops[i]
		}
	}
	return nil
}

func (b *batch) rows() int { return len(b.ops) }

func (b *batch) reset() {
	clear(b.ops)
	b.ops, b.size = b.ops[:0], 0
}

// committer is the only writer of the database. It merges the batches of all shards that
// wait into one transaction with one sync; each shard's batch stays whole.
//
//	shard 3 ─┐
//	shard 7 ─┼─► queue ─► transaction n ─► sync ─► committed = n ─► answers
//	shard 9 ─┘
//
// It also hands out views: snapshots of the database at a committed transaction, that
// never wait for one in flight.
type committer struct {
	db     *badger.DB
	queue  chan *batch
	wg     sync.WaitGroup
	stop   sync.Once
	broken atomic.Pointer[error] // the first failed commit; nothing is written after it
	damage atomic.Pointer[error] // found while running: reads fail with it
	fail   func(n uint64) error  // tests: makes commit n fail

	mu        sync.Mutex
	committed uint64         // number of the last transaction on disk
	pins      map[uint64]int // open views by their transaction
}

const discardEvery = 64 // transactions between two reports of what Badger may forget

func newCommitter(db *badger.DB, queue int) *committer {
	c := &committer{db: db, queue: make(chan *batch, queue), committed: db.MaxVersion(), pins: map[uint64]int{}}
	db.SetDiscardTs(c.committed)
	c.wg.Go(c.run)
	return c
}

// close ends the committer after what is queued; no commit may be called any more.
func (c *committer) close() {
	c.stop.Do(func() { close(c.queue) })
	c.wg.Wait()
}

// commit writes b and returns after it is on disk. b is the caller's again then.
func (c *committer) commit(b *batch) error {
	if b.done == nil {
		b.done = make(chan error, 1)
	}
	c.queue <- b
	return <-b.done
}

func (c *committer) run() {
	var group []*batch
	var next *batch // did not fit: the first of the next group
	for {
		b := next
		next = nil
		if b == nil {
			var open bool
			if b, open = <-c.queue; !open {
				return
			}
		}
		group = append(group[:0], b)
		size, rows := b.size, b.rows()
	fill:
		for {
			select {
			case b, open := <-c.queue:
				if !open {
					break fill // the next receive sees it too
				}
				if size+b.size > txnBytes || rows+b.rows() > txnRows {
					next = b
					break fill
				}
				group = append(group, b)
				size, rows = size+b.size, rows+b.rows()
			default:
				break fill
			}
		}
		err := c.write(group)
		for _, b := range group {
			b.done <- err
		}
	}
}

// write commits the group as the next transaction.
func (c *committer) write(group []*batch) error {
	if e := c.broken.Load(); e != nil {
		return *e
	}
	n := c.committed + 1 // only this goroutine moves it
	err := func() error {
		if c.fail != nil {
			if err := c.fail(n); err != nil {
				return err
			}
		}
		tx := c.db.NewTransactionAt(n-1, true)
		defer tx.Discard()
		for _, b := range group {
			for i := range b.ops {
				o := &b.ops[i]
				var err error
				if o.del {
					err = tx.Delete(o.key)
				} else {
					err = tx.Set(o.key, o.value)
				}
				if err != nil {
					return err
				}
			}
		}
		if err := tx.Set([]byte{prefixTick}, binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
		return tx.CommitAt(n, nil)
	}()
	if err != nil {
		c.broken.CompareAndSwap(nil, &err)
		return err
	}
	c.mu.Lock()
	c.committed = n
	c.mu.Unlock()
	if n%discardEvery == 0 {
		c.discard()
	}
	return nil
}

// discard tells Badger which versions no view can ask for any more.
func (c *committer) discard() {
	c.mu.Lock()
	ts := c.committed
	for pin := range c.pins {
		ts = min(ts, pin)
	}
	c.mu.Unlock()
	c.db.SetDiscardTs(ts)
}

// view is the database at one committed transaction. Close it: until then Badger
// keeps every version it can see.
type view struct {
	*badger.Txn
	c  *committer
	at uint64
}

// view pins the newest committed transaction.
func (c *committer) view() view {
	c.mu.Lock()
	at := c.committed
	c.pins[at]++
	c.mu.Unlock()
	return view{Txn: c.db.NewTransactionAt(at, false), c: c, at: at}
}

func (v view) close() {
	v.Discard()
	v.c.mu.Lock()
	if v.c.pins[v.at]--; v.c.pins[v.at] == 0 {
		delete(v.c.pins, v.at)
	}
	v.c.mu.Unlock()
}

// get copies nothing: the value lives as long as the view. found is false when there is
// no such key.
func (v view) get(key []byte, f func(value []byte) error) (found bool, err error) {
	item, err := v.Get(key)
	if err == badger.ErrKeyNotFound {
		return false, nil
	}
	if err == nil {
		err = item.Value(f)
	}
	return err == nil, err
}
