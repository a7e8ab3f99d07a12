package bulk

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"slices"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// unique finds custom_ids that come twice, among any number of them. It keeps 128 bits of each: in memory as long as they are few,
// beyond that in files by their first bits, which are sorted one after the other at the end.
type unique struct {
	dir   string
	salt  [16]byte            // of this judging alone: a hash on disk lets nobody try whether a guess is right
	max   int                 // kept in memory
	few   map[[16]byte]uint64 // first line of each, until they are many
	parts []*part
	twice []repeat // at most keep
	keep  int
}

// repeat is a line whose custom_id an earlier one had.
type repeat struct{ line, first uint64 }

type part struct {
	f *os.File
	w *bufio.Writer
}

const (
	uniqueMax   = 256 << 10 // custom_ids in memory: about 12 MiB
	uniqueParts = 256       // files; each is sorted in memory: 24 bytes for each custom_id in it
	partBuffer  = 4 << 10   // bytes
	sumBytes    = 16 + 8    // of a row in a file: hash, line
)

func newUnique(dir string, max, keep int) *unique {
	u := &unique{dir: dir, max: max, keep: keep, few: map[[16]byte]uint64{}}
	_, _ = rand.Read(u.salt[:]) // never fails: it would end the process
	return u
}

// add takes the custom_id of a line. Lines come in order.
func (u *unique) add(id string, line uint64) error {
	sum := sha256.Sum256(append(u.salt[:len(u.salt):len(u.salt)], id...))
	key := [16]byte(sum[:16])
	if u.parts == nil {
		if first, ok := u.few[key]; ok {
			u.found(line, first)
			return nil
		}
		u.few[key] = line
		if len(u.few) <= u.max {
			return nil
		}
		return u.spill()
	}
	return u.write(key, line)
}

func (u *unique) found(line, first uint64) {
	if len(u.twice) < u.keep {
		u.twice = append(u.twice, repeat{line, first})
	}
}

// spill moves what is in memory to files.
func (u *unique) spill() error {
	u.parts = make([]*part, uniqueParts)
	for i := range u.parts {
		f, err := os.CreateTemp(u.dir, "custom-ids-*")
		if err != nil {
			return fault.New(fault.Unavailable, "bulk.unique", u.dir, "%w", err).WithRemedy("make room in the data directory, and raise the limit of open files to 1024 or more")
		}
		_ = os.Remove(f.Name()) // it lives as long as it is open, and a crash leaves nothing; where that cannot be, close does it
		u.parts[i] = &part{f, bufio.NewWriterSize(f, partBuffer)}
	}
	for key, line := range u.few {
		if err := u.write(key, line); err != nil {
			return err
		}
	}
	u.few = nil
	return nil
}

func (u *unique) write(key [16]byte, line uint64) error {
	var row [sumBytes]byte
	copy(row[:], key[:])
	binary.BigEndian.PutUint64(row[16:], line)
	if _, err := u.parts[key[0]].w.Write(row[:]); err != nil {
		return fault.New(fault.Unavailable, "bulk.unique", u.dir, "%w", err).WithRemedy("make room in the data directory")
	}
	return nil
}

// repeats returns the first lines whose custom_id an earlier line has, in order.
func (u *unique) repeats() ([]repeat, error) {
	all := slices.Clone(u.twice)
	for _, p := range u.parts {
		u.twice = nil // of this file
		if err := u.look(p); err != nil {
			return nil, err
		}
		all = append(all, u.twice...)
		slices.SortFunc(all, func(a, b repeat) int { return compare(a.line, b.line) })
		all = all[:min(len(all), u.keep)]
	}
	return all, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// look sorts the rows of one file. A line is found once, however often its custom_id came before.
func (u *unique) look(p *part) error {
	err := p.w.Flush()
	var b []byte
	if err == nil {
		_, err = p.f.Seek(0, io.SeekStart)
	}
	if err == nil {
		b, err = io.ReadAll(p.f)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "bulk.unique", u.dir, "%w", err).WithRemedy("make room in the data directory")
	}
	rows := make([][sumBytes]byte, len(b)/sumBytes)
	for i := range rows {
		copy(rows[i][:], b[i*sumBytes:])
	}
	slices.SortFunc(rows, func(a, b [sumBytes]byte) int { return bytes.Compare(a[:], b[:]) })
	var some []repeat
	first := 0
	for i := 1; i < len(rows); i++ {
		if !bytes.Equal(rows[i][:16], rows[first][:16]) {
			first = i
			continue
		}
		some = append(some, repeat{line: binary.BigEndian.Uint64(rows[i][16:]), first: binary.BigEndian.Uint64(rows[first][16:])})
	}
	slices.SortFunc(some, func(a, b repeat) int { return compare(a.line, b.line) })
	for _, r := range some[:min(len(some), u.keep)] {
		u.found(r.line, r.first)
	}
	return nil
}

// close removes the files.
func (u *unique) close() {
	for _, p := range u.parts {
		if p != nil {
			_ = p.f.Close()           // it was read, or is not needed
			_ = os.Remove(p.f.Name()) // gone already, nearly everywhere
		}
	}
	u.parts, u.few = nil, nil
}
