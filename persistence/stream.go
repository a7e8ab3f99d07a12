package persistence

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"

	"github.com/dgraph-io/badger/v4"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A stream is a shard at one applied index: what Raft sends to a replica that lags, and
// what a backup holds.
//
//	"AGLMSHRD" │ version 1 │ shard 2 │ epoch 8 │ applied 8
//	length of key │ length of value │ key │ value        … for every row of the generation
//	0 │ number of rows │ crc32c 4 of all before
//
// Keys are without the prefix of shard and generation.
const (
	streamMagic   = "AGLMSHRD"
	streamVersion = 1
	streamHeader  = len(streamMagic) + 1 + 2 + 8 + 8

	streamKeyMax   = 4 << 10
	streamValueMax = 1 << 20
)

type streamInfo struct {
	Shard   int    `json:"shard"`
	Epoch   uint64 `json:"epoch"`
	Applied uint64 `json:"applied"`
	Rows    uint64 `json:"rows"`
	Sum     uint32 `json:"crc32c"`
}

// pinned is a shard at one transaction.
type pinned struct {
	view view
	meta meta
}

// PrepareSnapshot pins the state; Update may go on while SaveSnapshot streams it.
func (s *stateMachine) PrepareSnapshot() (any, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if err := s.settled(); err != nil {
		return nil, err
	}
	return &pinned{view: s.db.view(), meta: s.meta}, nil
}

// SaveSnapshot streams what PrepareSnapshot pinned.
func (s *stateMachine) SaveSnapshot(p any, w io.Writer, stop <-chan struct{}) error {
	x := p.(*pinned)
	defer x.view.close()
	_, err := writeStream(w, s.shard, x.view, x.meta, stop)
	return err
}

// writeStream writes the pinned state and tells what it wrote.
func writeStream(w io.Writer, shard int, v view, m meta, stop <-chan struct{}) (streamInfo, error) {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10) // keeps its first error
	info := streamInfo{Shard: shard, Epoch: m.epoch, Applied: m.applied}
	head := append([]byte(streamMagic), streamVersion)
	head = binary.BigEndian.AppendUint16(head, uint16(shard))
	head = binary.BigEndian.AppendUint64(head, m.epoch)
	out.Write(binary.BigEndian.AppendUint64(head, m.applied))

	prefix := dataPrefix(nil, shard, m.generation)
	it := v.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: true, PrefetchSize: 256})
	defer it.Close()
	var lens []byte
	for it.Rewind(); it.Valid(); it.Next() {
		if info.Rows++; info.Rows%1024 == 0 && stopped(stop) {
			return info, sm.ErrSnapshotStopped
		}
		key := it.Item().Key()[dataPrefixLen:]
		if err := it.Item().Value(func(value []byte) error {
			lens = binary.AppendUvarint(lens[:0], uint64(len(key)))
			out.Write(binary.AppendUvarint(lens, uint64(len(value))))
			out.Write(key)
			_, err := out.Write(value)
			return err
		}); err != nil {
			return info, err
		}
	}
	out.Write(binary.AppendUvarint([]byte{0}, info.Rows))
	if err := out.Flush(); err != nil {
		return info, err
	}
	info.Sum = sum.Sum32()
	_, err := w.Write(binary.BigEndian.AppendUint32(nil, info.Sum))
	return info, err
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// readStream calls row for every row and then checks count and checksum: what row was
// given may be used only when the error is nil. key and value are lent.
func readStream(r io.Reader, stop <-chan struct{}, row func(key, value []byte) error) (streamInfo, error) {
	in := &summed{r: bufio.NewReaderSize(r, 256<<10), sum: crc32.New(castagnoli)}
	bad := func(what string, err error) error {
		if err == nil {
			err = errors.New("damaged")
		}
		return fault.New(fault.Corrupt, "stream.read", "", "%s: %w", what, err)
	}
	var info streamInfo
	head := make([]byte, streamHeader)
	if err := in.full(head); err != nil {
		return info, bad("header", err)
	}
	if string(head[:len(streamMagic)]) != streamMagic || head[len(streamMagic)] != streamVersion {
		return info, bad("header", errors.New("not a stream of this version"))
	}
	at := head[len(streamMagic)+1:]
	info = streamInfo{Shard: int(binary.BigEndian.Uint16(at)), Epoch: binary.BigEndian.Uint64(at[2:]), Applied: binary.BigEndian.Uint64(at[10:])}
	var buf []byte
	for {
		klen, err := binary.ReadUvarint(in)
		if err != nil {
			return info, bad("row", err)
		}
		if klen == 0 {
			break
		}
		vlen, err := binary.ReadUvarint(in)
		if err != nil || klen > streamKeyMax || vlen > streamValueMax {
			return info, bad("row length", err)
		}
		if uint64(cap(buf)) < klen+vlen {
			buf = make([]byte, 2*(klen+vlen))
		}
		buf = buf[:klen+vlen]
		if err := in.full(buf); err != nil {
			return info, bad("row", err)
		}
		if err := row(buf[:klen:klen], buf[klen:]); err != nil {
			return info, err
		}
		if info.Rows++; info.Rows%1024 == 0 && stopped(stop) {
			return info, sm.ErrSnapshotStopped
		}
	}
	rows, err := binary.ReadUvarint(in)
	if err != nil || rows != info.Rows {
		return info, bad("number of rows", err)
	}
	info.Sum = in.sum.Sum32()
	var end [4]byte
	if _, err := io.ReadFull(in.r, end[:]); err != nil {
		return info, bad("checksum", err)
	}
	if binary.BigEndian.Uint32(end[:]) != info.Sum {
		return info, bad("checksum", nil)
	}
	return info, nil
}

// summed adds what is read to a checksum.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash32
	one [1]byte
}

func (s *summed) full(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	s.sum.Write(b)
	return nil
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.sum.Write(s.one[:])
	}
	return b, err
}

// RecoverFromSnapshot loads a stream as the next generation and switches to it at the
// end: a broken stream leaves the state as it was.
func (s *stateMachine) RecoverFromSnapshot(r io.Reader, stop <-chan struct{}) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	if err := s.settled(); err != nil {
		return err
	}
	m := meta{generation: s.meta.generation + 1}
	s.loading.Lock()
	defer s.loading.Unlock()
	if err := s.sweep(stop); err != nil { // what an earlier, broken load left
		return err
	}
	info, err := load(s.db, r, dataPrefix(nil, s.shard, m.generation), stop)
	if err != nil {
		return err
	}
	if info.Shard != s.shard {
		return fault.New(fault.Corrupt, "stream.read", "", "a stream of shard %d for shard %d", info.Shard, s.shard)
	}
	m.applied, m.epoch = info.Applied, info.Epoch
	var b batch
	b.set(metaKey(s.shard), m.encode())
	if err := s.db.commit(&b); err != nil {
		return err
	}
	if s.swept != nil {
		s.swept(s.shard)
	}
	return s.load()
}

// load writes the rows of a stream under prefix.
func load(db *committer, r io.Reader, prefix []byte, stop <-chan struct{}) (streamInfo, error) {
	var b batch
	info, err := readStream(r, stop, func(key, value []byte) error {
		if b.size+len(key)+len(value) > txnBytes/2 || b.rows() >= txnRows/2 {
			if err := db.commit(&b); err != nil {
				return err
			}
			b.reset()
		}
		b.set(append(append(make([]byte, 0, len(prefix)+len(key)), prefix...), key...), append([]byte{}, value...))
		return nil
	})
	if err == nil {
		err = db.commit(&b)
	}
	return info, err
}

// sweepOld deletes what is not of the current generation; the store calls it in the
// background.
func (s *stateMachine) sweepOld(stop <-chan struct{}) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.sweep(stop)
}

// sweep needs loading. Generations are found by seeking from one to the next.
func (s *stateMachine) sweep(stop <-chan struct{}) error {
	current := s.generation.Load()
	for from := uint32(0); !stopped(stop); {
		var b batch
		v := s.db.view()
		it := v.NewIterator(badger.IteratorOptions{Prefix: dataPrefix(nil, s.shard, 0)[:3]})
		it.Seek(dataPrefix(nil, s.shard, from))
		for it.Valid() && b.rows() < txnRows/4 {
			key := it.Item().KeyCopy(nil)
			if g := binary.BigEndian.Uint32(key[3:]); g == current {
				it.Seek(dataPrefix(nil, s.shard, g+1))
				continue
			} else {
				from = g
			}
			b.delete(key)
			it.Next()
		}
		it.Close()
		v.close()
		if b.rows() == 0 {
			return nil
		}
		if err := s.db.commit(&b); err != nil {
			return err
		}
	}
	return nil
}
