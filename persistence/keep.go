package persistence

import (
	"log/slog"
	"sync"
	"time"
)

// keeper keeps the disk use bounded: it cuts a shard's Raft log once what was applied
// since the last cut passes LogBytes or LogEntries, and deletes generations that a snapshot
// replaced. It also looks for damage now and then.
type keeper struct {
	s    *store
	log  *slog.Logger
	wake chan struct{}
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu    sync.Mutex
	since []growth     // by shard
	stale map[int]bool // shards with a generation to delete
}

// growth is what a shard's log grew by since it was cut.
type growth struct{ bytes, entries, cutAt, applied uint64 }

const (
	keptEntries = 2000 // entries that stay behind a cut, for replicas that lag a little
	cutTimeout  = 10 * time.Second
)

// newKeeper starts counting from what the logs hold already.
func newKeeper(s *store, logs map[int]logged) *keeper {
	k := &keeper{s: s, log: s.opts.Logger, wake: make(chan struct{}, 1), stop: make(chan struct{}),
		since: make([]growth, s.dir.Shards), stale: map[int]bool{}}
	for shard := range k.since {
		k.stale[shard] = true
		x := logs[shard]
		k.since[shard] = growth{bytes: x.bytes, cutAt: x.cut, applied: x.cut}
	}
	return k
}

// grown is called by the state machines after every batch; it never waits.
func (k *keeper) grown(shard int, bytes, applied uint64) {
	k.mu.Lock()
	g := &k.since[shard]
	g.bytes += bytes
	g.applied = applied
	due := k.due(g)
	k.mu.Unlock()
	if due {
		k.look()
	}
}

// sweep has old generations of a shard deleted; it never waits.
func (k *keeper) sweep(shard int) {
	k.mu.Lock()
	k.stale[shard] = true
	k.mu.Unlock()
	k.look()
}

// forget starts counting anew for a shard that has a new replica.
func (k *keeper) forget(shard int) {
	k.mu.Lock()
	k.since[shard] = growth{}
	k.mu.Unlock()
}

func (k *keeper) look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) due(g *growth) bool {
	return g.bytes > uint64(k.s.opts.LogBytes) || g.applied-g.cutAt > uint64(k.s.opts.LogEntries)
}

func (k *keeper) start() { k.wg.Go(k.run) }

func (k *keeper) close() {
	k.once.Do(func() { close(k.stop) })
	k.wg.Wait()
}

// delete deletes old generations of the shards that may have some.
func (k *keeper) delete() {
	k.mu.Lock()
	stale := k.stale
	k.stale = map[int]bool{}
	k.mu.Unlock()
	for shard := range stale {
		if err := k.s.machines[shard].sweepOld(k.stop); err != nil {
			k.log.Error("old generation not deleted", "shard", shard, "err", err)
		}
	}
}

func (k *keeper) run() {
	k.delete()
	verify := time.NewTicker(k.s.opts.VerifyEvery)
	defer verify.Stop()
	for {
		select {
		case <-verify.C:
			k.verify()
			continue
		case <-k.wake:
		case <-k.stop:
			return
		}
		k.delete()
		for shard := range k.since {
			if stopped(k.stop) {
				return
			}
			k.cut(shard)
		}
	}
}

// verify reads all tables. Once one is damaged, every read fails: a scan over it would be
// short without a word.
func (k *keeper) verify() {
	if err := verifyLive(k.s.badger, k.stop); err != nil {
		k.log.Error("the store is damaged: reading is refused", "err", err)
		if k.s.db.damage.CompareAndSwap(nil, &err) && k.s.opts.Damaged != nil {
			k.s.opts.Damaged(err)
		}
	}
}

// cut drops the log of a shard that is due, except its newest entries: at most keptEntries, and
// about half of LogBytes.
func (k *keeper) cut(shard int) {
	k.mu.Lock()
	g := k.since[shard]
	due := k.due(&g)
	if due {
		k.since[shard] = growth{cutAt: g.applied, applied: g.applied}
	}
	k.mu.Unlock()
	if !due || k.s.hosted(shard) == 0 {
		return
	}
	each := g.bytes/max(1, g.applied-g.cutAt) + 1
	keep := min(keptEntries, uint64(k.s.opts.LogBytes)/2/each)
	rs, err := k.s.groups.cut(shard, keep, cutTimeout)
	if err != nil {
		k.log.Warn("raft log not cut", "shard", shard, "err", err)
		return
	}
	<-rs.ResultC()
	rs.Release()
}
