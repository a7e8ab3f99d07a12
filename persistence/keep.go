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
	since []growth // by shard
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
		since: make([]growth, s.dir.Shards)}
	for shard := range k.since {
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
		select {
		case k.wake <- struct{}{}:
		default:
		}
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

func (k *keeper) run() {
	for _, m := range k.s.machines {
		if err := m.sweepOld(k.stop); err != nil {
			k.log.Error("old generation not deleted", "shard", m.shard, "err", err)
		}
	}
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
		k.s.db.damage.CompareAndSwap(nil, &err)
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
	if !due {
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
