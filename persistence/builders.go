package persistence

import (
	"reflect"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/ristretto/v2/z"
)

// builders keeps small what Badger keeps: the memory of up to eight builders of tables, in a pool from which they are taken in
// turn, so that in the end each is as large as the largest table that was ever built. There is no option for that; the pool's
// own methods take one out and put one back. A small one that is there also spares the 256 MiB that Badger would reserve for a
// builder without one, when it makes one table of many of level 0.
type builders struct {
	pool *z.AllocatorPool
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

const (
	buildersPooled = 8       // by Badger
	buildersKept   = 4 << 20 // bytes of one that may stay in the pool
	buildersBegin  = 1 << 20 // bytes of one that replaces another
	buildersEvery  = 200 * time.Millisecond
)

// trimBuilders begins with it; nil without the pool, in another version of Badger, which a test would tell.
func trimBuilders(db *badger.DB) *builders {
	pool := builderPool(db)
	if pool == nil {
		return nil
	}
	b := &builders{pool: pool, stop: make(chan struct{})}
	b.wg.Go(b.run)
	return b
}

// builderPool reads a field of Badger's that is set once, before DB is anybody's.
func builderPool(db *badger.DB) *z.AllocatorPool {
	f := reflect.ValueOf(db).Elem().FieldByName("allocPool")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*z.AllocatorPool]() {
		return nil
	}
	return (*z.AllocatorPool)(f.UnsafePointer())
}

// close has to come before that of the database, which closes the pool.
func (b *builders) close() {
	if b != nil {
		b.once.Do(func() { close(b.stop) })
		b.wg.Wait()
	}
}

func (b *builders) run() {
	t := time.NewTicker(buildersEvery)
	defer t.Stop()
	for {
		b.trim()
		select {
		case <-t.C:
		case <-b.stop:
			return
		}
	}
}

// trim takes out all that the pool has, and puts as many back as it holds.
func (b *builders) trim() {
	var all [buildersPooled]*z.Allocator
	for i := range all {
		all[i] = b.pool.Get(buildersBegin, "builders")
		if all[i].Allocated() > buildersKept {
			all[i].Release() // to the garbage collector
			all[i] = z.NewAllocator(buildersBegin, "builders")
		}
	}
	for _, a := range all {
		b.pool.Return(a)
	}
}
