package persistence

import (
	"encoding/binary"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// EncodeWrites makes the bytes by which writes travel to the node that owns their shard. They passed Check.
func EncodeWrites(writes []Write) []byte {
	size := 0
	for i := range writes {
		size += writes[i].Size()
	}
	return appendAppend(make([]byte, 0, size+commandHeader+2*binary.MaxVarintLen64+8*len(writes)), 0, writes, nil)
}

// DecodeWrites is the inverse of EncodeWrites; the writes lie in b. Bytes it did not make are
// Corrupt.
func DecodeWrites(b []byte) ([]Write, error) {
	var c command
	if err := c.decode(b); err != nil || c.kind != kindAppend {
		return nil, fault.New(fault.Corrupt, "persistence.wire", "", "these are no writes")
	}
	writes := make([]Write, len(c.writes))
	for i := range c.writes {
		x := &c.writes[i]
		w := Write{Key: Key{Kind: string(x.kind), ID: string(x.id)}, After: x.after, Data: x.data}
		for _, r := range x.index {
			w.Index = append(w.Index, Index{Name: string(r.name), Key: r.key, Value: r.value, Delete: r.del})
		}
		for _, n := range x.count {
			w.Count = append(w.Count, Count{Name: string(n.name), Delta: n.delta})
		}
		if x.hasSnap {
			w.Snap = &Snapshot{State: x.snap, Truncate: x.truncate}
		}
		w.Erase = x.erase
		writes[i] = w
	}
	return writes, nil
}
