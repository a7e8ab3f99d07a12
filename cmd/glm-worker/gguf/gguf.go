package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
)

// Limits of a header; real files stay far below.
const (
	keysMax    = 1 << 16
	tensorsMax = 1 << 20
	nameMax    = 1 << 16 // bytes of a key or a tensor's name
	depthMax   = 4       // arrays in arrays
	dimsMax    = 4
)

// Info is what the header says about the model.
type Info struct {
	Architecture string // general.architecture
	Name         string // general.name, may be empty
	Splits       uint64 // files that the model is split into; 0 or 1 for one
	Tensors      uint64
	Size         int64 // bytes that the file must have
}

// ErrDamaged is in every error about the file's content.
var ErrDamaged = errors.New("copy or download the model file again")

// Check reads the header of the file at path and compares the end of its last tensor with its size.
func Check(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, fmt.Errorf("gguf.check: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Info{}, fmt.Errorf("gguf.check: %w", err)
	}
	if !st.Mode().IsRegular() {
		return Info{}, fmt.Errorf("gguf.check %s: not a file: name the .gguf file itself", path)
	}
	info, err := Read(f, st.Size())
	if err != nil {
		return Info{}, fmt.Errorf("gguf.check %s: %w", path, err)
	}
	return info, nil
}

// Read checks a header of a file of size bytes.
func Read(r io.Reader, size int64) (Info, error) {
	d := &decoder{r: bufio.NewReaderSize(r, 1<<16), size: size, align: 32}
	info := d.header()
	switch {
	case d.err == nil:
		return info, nil
	case errors.Is(d.err, io.EOF), errors.Is(d.err, io.ErrUnexpectedEOF):
		return Info{}, fmt.Errorf("the file ends in its header, after %d bytes: %w", size, ErrDamaged)
	}
	return Info{}, d.err
}

// decoder reads little-endian values and keeps the first error; after it every value is zero.
type decoder struct {
	r     *bufio.Reader
	at    int64 // bytes read; at <= size
	size  int64
	align uint64
	err   error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format+": %w", append(args, ErrDamaged)...)
	}
}

func (d *decoder) header() (info Info) {
	if magic := d.u32(); d.err == nil && magic != 0x46554747 {
		d.err = fmt.Errorf("not a GGUF file: it begins with %#08x; only models in GGUF format can be run", magic)
		return info
	}
	switch version := d.u32(); {
	case d.err != nil:
		return info
	case version == bits.ReverseBytes32(2) || version == bits.ReverseBytes32(3):
		d.err = errors.New("a GGUF file in big-endian order: convert the model for little-endian machines")
		return info
	case version != 2 && version != 3:
		d.err = fmt.Errorf("GGUF version %d: only 2 and 3 can be read, convert the model again", version)
		return info
	}
	info.Tensors = d.u64()
	keys := d.u64()
	if keys > keysMax || info.Tensors > tensorsMax {
		d.fail("the header names %d keys and %d tensors", keys, info.Tensors)
	}
	for i := uint64(0); i < keys && d.err == nil; i++ {
		d.pair(&info)
	}
	var end uint64 // of the tensor data, from its own start
	for i := uint64(0); i < info.Tensors && d.err == nil; i++ {
		end = max(end, d.tensor())
	}
	if d.err != nil {
		return info
	}
	start := (uint64(d.at) + d.align - 1) / d.align * d.align
	if end > math.MaxInt64-start {
		d.fail("a tensor ends at an impossible place")
		return info
	}
	info.Size = int64(start + end)
	if info.Tensors == 0 {
		info.Size = d.at
	}
	if info.Size > d.size {
		d.fail("the file is cut short: it has %d of %d bytes", d.size, info.Size)
	}
	return info
}

func (d *decoder) pair(info *Info) {
	key := d.text(nameMax)
	kind := d.u32()
	switch {
	case key == "general.architecture" && kind == kindText:
		info.Architecture = d.text(nameMax)
	case key == "general.name" && kind == kindText:
		info.Name = d.text(nameMax)
	case key == "general.alignment" && kind == kindU32:
		d.align = uint64(d.u32())
		if d.align == 0 || d.align&(d.align-1) != 0 || d.align > 1<<20 {
			d.fail("an alignment of %d bytes", d.align)
		}
	case key == "split.count" && kind == kindU16:
		info.Splits = uint64(d.u16())
	default:
		d.skip(kind, 0)
	}
}

// tensor reads one tensor's info and returns where its data ends.
func (d *decoder) tensor() (end uint64) {
	name := d.text(nameMax)
	dims := d.u32()
	if dims > dimsMax {
		d.fail("tensor %q has %d dimensions", name, dims)
		return 0
	}
	values, row := uint64(1), uint64(1)
	for i := range dims {
		n := d.u64()
		high, low := bits.Mul64(values, n)
		if high != 0 || low > math.MaxInt64 {
			d.fail("tensor %q is impossibly large", name)
			return 0
		}
		values = low
		if i == 0 {
			row = n
		}
	}
	kind, offset := d.u32(), d.u64()
	if d.err != nil {
		return 0
	}
	t, ok := Types[kind]
	if !ok {
		d.err = fmt.Errorf("tensor %q has type %d, which this build of llama.cpp does not know: quantize the model in another format", name, kind)
		return 0
	}
	if row%t.Values != 0 || offset%d.align != 0 {
		d.fail("tensor %q has rows of %d values at offset %d, which does not fit its type", name, row, offset)
		return 0
	}
	high, size := bits.Mul64(values/t.Values, t.Bytes)
	if high != 0 || size > math.MaxInt64 || offset > math.MaxInt64 {
		d.fail("tensor %q is impossibly large", name)
		return 0
	}
	return offset + size
}

// Kinds of values in the header.
const (
	kindU16  = 2
	kindU32  = 4
	kindText = 8
	kindList = 9
)

// widths are the bytes of each kind of fixed size.
var widths = map[uint32]int64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

func (d *decoder) skip(kind uint32, depth int) {
	width, fixed := widths[kind]
	switch {
	case d.err != nil:
	case fixed:
		d.discard(uint64(width))
	case kind == kindText:
		d.discard(d.u64())
	case kind == kindList && depth < depthMax:
		of, n := d.u32(), d.u64()
		if width, fixed := widths[of]; fixed {
			if n > math.MaxInt64/8 {
				d.fail("a list of %d values", n)
				return
			}
			d.discard(n * uint64(width))
			return
		}
		for i := uint64(0); i < n && d.err == nil; i++ { // each takes at least 8 bytes of the file, so it ends
			d.skip(of, depth+1)
		}
	default:
		d.fail("a value of unknown kind %d", kind)
	}
}

func (d *decoder) discard(n uint64) {
	if d.err == nil && n > uint64(d.size-d.at) {
		d.err = io.ErrUnexpectedEOF
	}
	if d.err != nil {
		return
	}
	for n > 0 && d.err == nil {
		step := min(n, 1<<30)
		_, d.err = d.r.Discard(int(step))
		n -= step
		d.at += int64(step)
	}
}

func (d *decoder) bytes(n uint64) []byte {
	if d.err == nil && n > uint64(d.size-d.at) {
		d.err = io.ErrUnexpectedEOF
	}
	if d.err != nil {
		return make([]byte, min(n, 8))
	}
	b := make([]byte, n)
	_, d.err = io.ReadFull(d.r, b)
	d.at += int64(n)
	return b
}

func (d *decoder) text(most uint64) string {
	n := d.u64()
	if n > most {
		d.fail("a name of %d bytes", n)
		return ""
	}
	b := d.bytes(n)
	if d.err != nil {
		return ""
	}
	return string(b)
}

func (d *decoder) u16() uint16 { return binary.LittleEndian.Uint16(d.bytes(2)) }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.bytes(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }
