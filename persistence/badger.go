package persistence

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// One Badger database holds all shards of a node. Its keys:
//
//	m shard2                                → meta: generation, applied index, epoch
//	t                                       → tick: written by every transaction
//	d shard2 generation4 …                  a shard's data in one generation:
//	    c name                              → counter, int64
//	    i len name │ key                    → value of an index row
//	    j len kind │ len id │ 0             → the snapshot's row
//	                        │ 1 seq8        → a row
//	                        │ 2 seq8 part4  → a piece of a row, see pieces.go
//	                        │ 3 seq8 part4  → a piece of a snapshot
//
// Numbers of a fixed width are big-endian, lengths are varints. A snapshot from
// another replica or a backup is loaded as the next generation beside the current one
// and becomes current by the write of the meta row.
//
// Badger runs in managed mode: the committer numbers its transactions 1, 2, 3, … without a
// gap, which is what verify.go checks after a crash.
const (
	prefixMeta = 'm'
	prefixTick = 't'
	prefixData = 'd'

	spaceCounter = 'c'
	spaceIndex   = 'i'
	spaceJournal = 'j'

	slotSnap      = 0
	slotRow       = 1
	slotRowPiece  = 2
	slotSnapPiece = 3
)

const indexCacheMin = 4 << 20 // bytes

// badgerOptions keeps Badger small: values live in its LSM tree (the largest piece is
// below ValueThreshold), so its value log stays empty and has nothing to collect.
func badgerOptions(dir string, o Options) badger.Options {
	indexes := int64(0) // all of them, as they lie in their mapped files
	if len(o.EncryptionKey) > 0 {
		indexes = max(indexCacheMin, int64(o.BlockCache)/2) // decrypted; Badger has to have a cache for them
	}
	return badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithDetectConflicts(false). // one writer: the committer
		WithMetricsEnabled(false).
		WithMemTableSize(int64(o.MemTableBytes)).
		WithNumMemtables(2).
		// Builders of tables take the most of Badger's memory: two to three times a memtable or table, see pieces.go and builders.go.
		WithBaseTableSize(1 << 20).
		WithBlockCacheSize(int64(o.BlockCache)).
		WithIndexCacheSize(indexes).
		WithEncryptionKey(o.EncryptionKey).
		WithValueThreshold(1 << 20).
		WithValueLogFileSize(1 << 20).
		WithNumCompactors(2).
		WithNumVersionsToKeep(1).
		WithCompression(options.Snappy).
		WithVerifyValueChecksum(true).
		// Tables are verified by verify.go before Badger maps them: reading them
		// here would leave every page of the store in this process.
		WithChecksumVerificationMode(options.OnBlockRead).
		WithLogger(badgerLogger{o.Logger.With("lib", "badger")})
}

func metaKey(shard int) []byte {
	return binary.BigEndian.AppendUint16([]byte{prefixMeta}, uint16(shard))
}

// dataPrefix is in front of every key of one generation of a shard.
func dataPrefix(b []byte, shard int, generation uint32) []byte {
	b = append(b, prefixData)
	b = binary.BigEndian.AppendUint16(b, uint16(shard))
	return binary.BigEndian.AppendUint32(b, generation)
}

const dataPrefixLen = 7

func counterKey[T string | []byte](prefix []byte, name T) []byte {
	b := make([]byte, 0, len(prefix)+1+len(name))
	b = append(append(b, prefix...), spaceCounter)
	return append(b, name...)
}

func indexKey[T string | []byte](prefix []byte, name T, key []byte) []byte {
	b := make([]byte, 0, len(prefix)+3+len(name)+len(key))
	b = append(append(b, prefix...), spaceIndex)
	return append(appendString(b, name), key...)
}

// journalKey is in front of every key of one journal.
func journalKey[T string | []byte](prefix []byte, kind, id T) []byte {
	b := make([]byte, 0, len(prefix)+5+len(kind)+len(id)+13)
	b = append(append(b, prefix...), spaceJournal)
	return appendString(appendString(b, kind), id)
}

func snapKey(journal []byte) []byte { return append(journal[:len(journal):len(journal)], slotSnap) }

func rowKey(journal []byte, seq uint64) []byte {
	b := make([]byte, 0, len(journal)+9)
	b = append(append(b, journal...), slotRow)
	return binary.BigEndian.AppendUint64(b, seq)
}

func pieceKey(journal []byte, slot byte, seq uint64, part int) []byte {
	b := make([]byte, 0, len(journal)+13)
	b = append(append(b, journal...), slot)
	b = binary.BigEndian.AppendUint64(b, seq)
	return binary.BigEndian.AppendUint32(b, uint32(part))
}

// meta is the shard's state beside its rows.
type meta struct {
	generation uint32
	applied    uint64 // index of the last Raft entry whose effect is here
	epoch      uint64 // of the current owner
}

const metaLen = 20

func (m meta) encode() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, metaLen), m.generation)
	b = binary.BigEndian.AppendUint64(b, m.applied)
	return binary.BigEndian.AppendUint64(b, m.epoch)
}

func (m *meta) decode(b []byte) bool {
	if len(b) != metaLen {
		return false
	}
	m.generation = binary.BigEndian.Uint32(b)
	m.applied = binary.BigEndian.Uint64(b[4:])
	m.epoch = binary.BigEndian.Uint64(b[12:])
	return true
}

// body is the value of a row: hash of the write, then the data or the number of its
// pieces.
type body struct {
	hash   uint64
	pieces int    // 0: data is here
	data   []byte // lies in the decoded bytes
}

// large tells whether the body has more than EraseBody bytes. All replicas say the same of it, in whichever form they have it.
func (x body) large() bool { return x.pieces > 0 || len(x.data) > EraseBody }

func (x body) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, x.hash)
	b = binary.AppendUvarint(b, uint64(x.pieces))
	return append(b, x.data...)
}

func (x *body) decode(b []byte) bool {
	if len(b) < 9 {
		return false
	}
	x.hash = binary.BigEndian.Uint64(b)
	n, k := binary.Uvarint(b[8:])
	if k <= 0 || n > piecesMax+1 {
		return false
	}
	x.pieces, x.data = int(n), b[8+k:]
	return true
}

// snapRow is the value of a snapshot's row. Rows first..last of the journal exist; a
// truncating snapshot moves first behind itself.
type snapRow struct {
	seq, first uint64 // first <= seq+1
	body
}

func (x snapRow) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, x.seq)
	b = binary.BigEndian.AppendUint64(b, x.first)
	return x.body.encode(b)
}

func (x *snapRow) decode(b []byte) bool {
	if len(b) < 16 {
		return false
	}
	x.seq, x.first = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	return x.body.decode(b[16:])
}

// badgerLogger sends Badger's lines to slog; its routine ones are debug here.
type badgerLogger struct{ log *slog.Logger }

func line(format string, args []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, args...))
}

func (l badgerLogger) Errorf(f string, a ...any)   { l.log.Error(line(f, a)) }
func (l badgerLogger) Warningf(f string, a ...any) { l.log.Warn(line(f, a)) }
func (l badgerLogger) Infof(string, ...any)        {}
func (l badgerLogger) Debugf(string, ...any)       {}
