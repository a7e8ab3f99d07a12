package persistence

import (
	"encoding/binary"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// logged is what the Raft log holds of one shard.
type logged struct {
	cut     uint64 // index up to which entries may be gone
	durable uint64 // last index up to cut that changed the state: <= cut, <= what the store applied
	last    uint64 // index of the last entry; all in cut+1..last are there
	bytes   uint64 // of the entries after cut
	install bool   // the newest snapshot came from another replica: the store may be behind it
}

// Keys of dragonboat's log: kind 2, zeros 2, group 8, replica 8, and for some an index 8.
const (
	logEntry    = 0x0101
	logLast     = 0x0303
	logSnapshot = 0x0505
)

// verifyLog reads dragonboat's log before dragonboat does, since that runs in goroutines
// whose panics nobody can recover. Every block read is checked by Pebble. What it holds of
// replicas other than replica(shard) does not count.
func verifyLog(dir string, replica func(shard int) uint64) (map[int]logged, error) {
	found := map[int]logged{}
	next := map[int]uint64{} // by shard: the entry expected next, once there is one
	var db *pebble.DB
	err := guard(dir, func() (err error) {
		db, err = pebble.Open(dir, &pebble.Options{ReadOnly: true, ErrorIfNotExists: true, Logger: quiet{}})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	err = guard(dir, func() error {
		it := db.NewIter(nil)
		defer it.Close()
		for it.First(); it.Valid(); it.Next() {
			k := it.Key()
			if len(k) < 20 {
				continue
			}
			shard := int(binary.BigEndian.Uint64(k[4:])) - 1
			if binary.BigEndian.Uint64(k[12:]) != replica(shard) {
				continue
			}
			x := found[shard]
			switch binary.BigEndian.Uint16(k) {
			case logLast:
				if len(it.Value()) != 8 {
					return fmt.Errorf("shard %d: last index does not decode", shard)
				}
				x.last = binary.BigEndian.Uint64(it.Value())
			case logSnapshot:
				var s raftpb.Snapshot
				if err := s.Unmarshal(it.Value()); err != nil {
					return fmt.Errorf("shard %d: snapshot record: %w", shard, err)
				}
				if s.Index >= x.cut {
					x.install = !s.Dummy
				}
				x.cut, x.durable = max(x.cut, s.Index), max(x.durable, s.OnDiskIndex)
			}
			found[shard] = x
		}
		if err := it.Error(); err != nil {
			return err
		}
		for it.SeekGE([]byte{logEntry >> 8, logEntry & 0xff}); it.Valid(); it.Next() {
			k := it.Key()
			if len(k) != 28 || binary.BigEndian.Uint16(k) != logEntry {
				break
			}
			shard, index := int(binary.BigEndian.Uint64(k[4:]))-1, binary.BigEndian.Uint64(k[20:])
			x := found[shard]
			if binary.BigEndian.Uint64(k[12:]) != replica(shard) || index <= x.cut || index > x.last {
				continue
			}
			want := max(next[shard], x.cut+1)
			if index != want {
				return fmt.Errorf("shard %d: entries %d to %d are missing", shard, want, index-1)
			}
			var e raftpb.Entry
			if err := e.Unmarshal(it.Value()); err != nil || e.Index != index {
				return fmt.Errorf("shard %d: entry %d does not decode", shard, index)
			}
			next[shard] = index + 1
			x.bytes += uint64(len(it.Value()))
			found[shard] = x
		}
		return it.Error()
	})
	if err != nil {
		return nil, err
	}
	for shard, x := range found {
		if x.last > x.cut && next[shard] != x.last+1 {
			return nil, corrupt(dir, "shard %d: entries %d to %d are missing", shard, max(next[shard], x.cut+1), x.last)
		}
	}
	return found, nil
}

// verifyTogether compares what was applied with what the log holds. Applied to less than the
// log was cut at, the effect of the entries between is lost; applied to more
// than it holds, acknowledged entries are gone and new ones would be taken for them. A snapshot that
// another replica sent is logged before it is loaded: Raft loads it again.
func verifyTogether(path string, shard int, applied uint64, log logged) error {
	switch {
	case applied < log.durable && !log.install:
		return corrupt(filepath.Join(path, storeName), "shard %d: applied up to %d, and the log was cut when it was %d", shard, applied, log.durable)
	case applied > max(log.last, log.cut):
		return corrupt(filepath.Join(path, raftName), "shard %d: ends at %d, and %d was applied", shard, max(log.last, log.cut), applied)
	}
	return nil
}

type quiet struct{}

func (quiet) Infof(string, ...any) {}

func (quiet) Fatalf(f string, a ...any) {
	panic(fault.New(fault.Corrupt, "store.verify", "", f, a...))
}
