package persistence

import (
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A command is what goes into the Raft log:
//
//	version 1 │ kind 1 │ crc32c 4 of all the rest │ body
//	  acquire: the epoch that the proposer knows
//	  append:  epoch │ number of writes │ for each: length, write
//	  write:   kind │ id │ after │ data │ index rows │ counts │ snapshot, or that it erases
//
// Numbers are varints, byte strings carry their length. The bytes of one write
// are also what its hash is taken of, so a change of this coding needs a new version, and
// an old one must stay readable for as long as a log may hold it.
const (
	commandVersion = 1
	commandHeader  = 6 // bytes

	kindAcquire = 1
	kindAppend  = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// command is a decoded command. All slices lie in the bytes it was decoded from.
type command struct {
	kind   byte
	epoch  uint64
	writes []wireWrite
}

// wireWrite is a Write as the log carries it.
type wireWrite struct {
	raw      []byte // the whole encoding, for its hash
	kind, id []byte
	after    uint64
	data     []byte
	index    []wireIndex
	count    []wireCount
	snap     []byte
	hasSnap  bool
	truncate bool
	erase    bool
}

type wireIndex struct {
	name, key, value []byte
	del              bool
}

type wireCount struct {
	name  []byte
	delta int64
}

// name returns the length of kind and id.
func (w *wireWrite) name() int { return len(w.kind) + len(w.id) }

// cost bounds what the rows of w take of a transaction; see Write.inline.
func (w *wireWrite) cost() int {
	key := len(w.kind) + len(w.id) + rowCost
	n := key + bodyCost(len(w.data), w.name())
	if w.hasSnap {
		n += key + bodyCost(len(w.snap), w.name())
	}
	if w.erase {
		n += int(min(w.after, EraseRows)+2) * key
	}
	for i := range w.index {
		n += len(w.index[i].name) + len(w.index[i].key) + len(w.index[i].value) + rowCost
	}
	for i := range w.count {
		n += len(w.count[i].name) + rowCost
	}
	return n
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

const bufferKept = 1 << 20 // bytes: a larger buffer is left to the garbage collector

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

func putBuffer(b *[]byte) {
	if cap(*b) <= bufferKept {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// appendAcquire encodes an acquire into b.
func appendAcquire(b []byte, expect uint64) []byte {
	at := len(b)
	b = append(b, commandVersion, kindAcquire, 0, 0, 0, 0)
	return seal(binary.AppendUvarint(b, expect), at)
}

// appendAppend encodes writes that passed Check into b.
func appendAppend(b []byte, epoch uint64, writes []Write, skip []bool) []byte {
	at := len(b)
	b = append(b, commandVersion, kindAppend, 0, 0, 0, 0)
	b = binary.AppendUvarint(b, epoch)
	n := len(writes)
	for _, s := range skip {
		if s {
			n--
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for i := range writes {
		if skip != nil && skip[i] {
			continue
		}
		start := len(b)
		b = append(b, 0, 0, 0, 0) // length, fixed so that it can be filled in
		b = appendWrite(b, &writes[i])
		binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	}
	return seal(b, at)
}

func appendWrite(b []byte, w *Write) []byte {
	b = appendString(b, w.Key.Kind)
	b = appendString(b, w.Key.ID)
	b = binary.AppendUvarint(b, w.After)
	b = appendString(b, w.Data)
	b = binary.AppendUvarint(b, uint64(len(w.Index)))
	for i := range w.Index {
		x := &w.Index[i]
		if x.Delete {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
		b = appendString(b, x.Name)
		b = appendString(b, x.Key)
		b = appendString(b, x.Value)
	}
	b = binary.AppendUvarint(b, uint64(len(w.Count)))
	for i := range w.Count {
		b = appendString(b, w.Count[i].Name)
		b = binary.AppendVarint(b, w.Count[i].Delta)
	}
	switch {
	case w.Erase:
		return append(b, 3)
	case w.Snap == nil:
		return append(b, 0)
	case w.Snap.Truncate:
		b = append(b, 2)
	default:
		b = append(b, 1)
	}
	return appendString(b, w.Snap.State)
}

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// seal fills in the checksum of the command that starts at b[at].
func seal(b []byte, at int) []byte {
	binary.LittleEndian.PutUint32(b[at+2:], commandSum(b[at:]))
	return b
}

func commandSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:2], castagnoli), castagnoli, b[commandHeader:])
}

// decode reads b into c and reuses c's slices. It never panics; whatever does not
// decode is fault.Corrupt.
func (c *command) decode(b []byte) error {
	c.writes = c.writes[:0]
	bad := func(what string) error {
		return fault.New(fault.Corrupt, "command.decode", "", "%s", what)
	}
	if len(b) < commandHeader {
		return bad("shorter than a header")
	}
	if b[0] != commandVersion {
		return bad("unknown version")
	}
	if binary.LittleEndian.Uint32(b[2:]) != commandSum(b) {
		return bad("wrong checksum")
	}
	c.kind = b[1]
	r := reader{b: b[commandHeader:]}
	c.epoch = r.uvarint()
	switch c.kind {
	case kindAcquire:
	case kindAppend:
		n := r.uvarint()
		if n > AppendCount {
			return bad("more writes than AppendCount")
		}
		for range n {
			raw := r.take(uint64(r.uint32()))
			if r.bad {
				break
			}
			if len(c.writes) < cap(c.writes) {
				c.writes = c.writes[:len(c.writes)+1]
			} else {
				c.writes = append(c.writes, wireWrite{})
			}
			if !c.writes[len(c.writes)-1].decode(raw) {
				return bad("a write does not decode")
			}
		}
	default:
		return bad("unknown kind")
	}
	if r.bad || len(r.b) != 0 {
		return bad("wrong length")
	}
	return nil
}

func (w *wireWrite) decode(raw []byte) bool {
	*w = wireWrite{raw: raw, index: w.index[:0], count: w.count[:0]}
	r := reader{b: raw}
	w.kind, w.id, w.after, w.data = r.bytes(), r.bytes(), r.uvarint(), r.bytes()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		flag := r.byte()
		w.index = append(w.index, wireIndex{del: flag == 1, name: r.bytes(), key: r.bytes(), value: r.bytes()})
		r.bad = r.bad || flag > 1
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		w.count = append(w.count, wireCount{name: r.bytes(), delta: r.varint()})
	}
	switch flag := r.byte(); flag {
	case 0:
	case 1, 2:
		w.hasSnap, w.truncate, w.snap = true, flag == 2, r.bytes()
	case 3: // a program of a version before this one refuses it, and with it the whole entry
		w.erase = true
	default:
		return false
	}
	return !r.bad && len(r.b) == 0 && len(w.kind) > 0 && len(w.id) > 0 && len(w.data) > 0
}

// reader takes values off a slice; after the first that does not fit it is bad and
// returns zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}
