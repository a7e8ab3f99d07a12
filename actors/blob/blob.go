package blob

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Kind is the kind of a chunk's journal. No actor is of it.
const Kind = "chunk"

// ChunkBytes is what one chunk carries. With its checksum and its name it is written together with its row (256 KiB at most), and four of them
// inside a proposal (1 MiB).
const ChunkBytes = 255 << 10

const (
	sumBytes  = 4  // CRC-32C in front of a chunk's bytes
	inFlight  = 8  // chunks of one blob on their way at once, written or read: 2 MiB
	buryBatch = 64 // chunks deleted at once; at least inFlight, see Sweep
)

// Ref names a blob and says how long it is.
type Ref struct {
	ID    string `json:"id"`
	Bytes int64  `json:"bytes"`
}

// chunks returns how many chunks the blob has.
func (r Ref) chunks() int64 { return (r.Bytes + ChunkBytes - 1) / ChunkBytes }

// sizeOf returns the bytes of chunk n.
func (r Ref) sizeOf(n int64) int64 { return min(ChunkBytes, r.Bytes-n*ChunkBytes) }

// Store writes and reads blobs through a router. It is safe for many goroutines.
type Store struct{ router *cluster.Router }

// New returns a store on a router.
func New(router *cluster.Router) *Store { return &Store{router: router} }

func chunkKey(id string, n int64) persistence.Key {
	return persistence.Key{Kind: Kind, ID: id + "." + strconv.FormatInt(n, 10)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal fills in the checksum in front of a chunk's bytes.
func seal(row []byte) []byte {
	binary.LittleEndian.PutUint32(row, crc32.Checksum(row[sumBytes:], castagnoli))
	return row
}

// unseal returns the bytes of chunk n of a blob, as its journal has them.
func unseal(ref Ref, n int64, l persistence.Log) ([]byte, error) {
	key := chunkKey(ref.ID, n)
	bad := func(kind fault.Kind, format string, args ...any) error {
		return fault.New(kind, "blob.read", key.String(), format, args...)
	}
	switch {
	case l.Last == 0:
		return nil, bad(fault.Corrupt, "the chunk is missing")
	case l.SnapSeq > 0 || len(l.Rows) != 1 || len(l.Rows[0].Data) <= sumBytes:
		return nil, bad(fault.NotFound, "it was deleted")
	}
	row := l.Rows[0].Data
	body := row[sumBytes:]
	switch {
	case int64(len(body)) != ref.sizeOf(n):
		return nil, bad(fault.Corrupt, "the chunk has %d bytes, not %d", len(body), ref.sizeOf(n))
	case binary.LittleEndian.Uint32(row) != crc32.Checksum(body, castagnoli):
		return nil, bad(fault.Corrupt, "the chunk fails its checksum")
	}
	return body, nil
}

// none stands for a chunk that was never written, so that it never will be; it is shorter than any chunk.
var none = []byte{0}

func noneWrite(id string, n int64) persistence.Write {
	return persistence.Write{Key: chunkKey(id, n), Data: none}
}

// buryWrite empties a chunk: the snapshot stands for its row, and is nothing.
func buryWrite(id string, n int64) persistence.Write {
	return persistence.Write{Key: chunkKey(id, n), After: 1, Data: none, Snap: &persistence.Snapshot{State: none, Truncate: true}}
}

func wrap(op string, err error) error { return fmt.Errorf("blob.%s: %w", op, err) }
