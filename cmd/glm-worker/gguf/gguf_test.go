package gguf

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// file writes a small GGUF file piece by piece.
type file struct{ bytes.Buffer }

func (f *file) put(values ...any) *file {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			f.put(uint64(len(v)))
			f.WriteString(v)
		default:
			_ = binary.Write(f, binary.LittleEndian, v)
		}
	}
	return f
}

const magic = uint32(0x46554747)

// good is a whole file: two keys of every shape, one Q8_0 tensor of 64 values.
func good() []byte {
	f := &file{}
	f.put(magic, uint32(3), uint64(1), uint64(7))
	f.put("general.architecture", uint32(8), "glm4")
	f.put("general.name", uint32(8), "Tiny")
	f.put("general.alignment", uint32(4), uint32(64))
	f.put("a.flag", uint32(7), uint8(1))
	f.put("a.list", uint32(9), uint32(8), uint64(2), "x", "yy")
	f.put("a.table", uint32(9), uint32(9), uint64(1), uint32(5), uint64(2), int32(1), int32(2))
	f.put("split.count", uint32(2), uint16(1))
	f.put("blk.0.weight", uint32(2), uint64(32), uint64(2), uint32(8), uint64(0))
	f.Write(make([]byte, (64-f.Len()%64)%64))
	f.Write(make([]byte, 2*34))
	return f.Bytes()
}

func TestGoodFile(t *testing.T) {
	b := good()
	info, err := Read(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	require.Equal(t, Info{Architecture: "glm4", Name: "Tiny", Splits: 1, Tensors: 1, Size: int64(len(b))}, info)
}

// However a file is cut short, the answer is an error that says what to do.
func TestEveryPrefixIsRefused(t *testing.T) {
	b := good()
	for n := range len(b) {
		_, err := Read(bytes.NewReader(b[:n]), int64(n))
		require.ErrorIs(t, err, ErrDamaged, "%d bytes", n)
	}
}

func TestRefusals(t *testing.T) {
	for says, f := range map[string]*file{
		"not a GGUF file":  (&file{}).put(uint32(0x04034b50), uint32(3)),
		"version 1":        (&file{}).put(magic, uint32(1)),
		"big-endian":       (&file{}).put(magic, uint32(3<<24)),
		"keys":             (&file{}).put(magic, uint32(3), uint64(0), uint64(1)<<60),
		"tensors":          (&file{}).put(magic, uint32(3), uint64(1)<<60, uint64(0)),
		"name of":          (&file{}).put(magic, uint32(3), uint64(0), uint64(1), uint64(1)<<40),
		"unknown kind":     (&file{}).put(magic, uint32(3), uint64(0), uint64(1), "k", uint32(77)),
		"list of":          (&file{}).put(magic, uint32(3), uint64(0), uint64(1), "k", uint32(9), uint32(4), uint64(1)<<63),
		"header":           (&file{}).put(magic, uint32(3), uint64(0), uint64(1), "k", uint32(9), uint32(8), uint64(1)<<62),
		"alignment":        (&file{}).put(magic, uint32(3), uint64(0), uint64(1), "general.alignment", uint32(4), uint32(33)),
		"does not know":    (&file{}).put(magic, uint32(3), uint64(1), uint64(0), "t", uint32(1), uint64(32), uint32(99), uint64(0)),
		"dimensions":       (&file{}).put(magic, uint32(3), uint64(1), uint64(0), "t", uint32(9)),
		"impossibly large": (&file{}).put(magic, uint32(3), uint64(1), uint64(0), "t", uint32(2), uint64(1)<<40, uint64(1)<<40, uint32(0), uint64(0)),
		"fit its type":     (&file{}).put(magic, uint32(3), uint64(1), uint64(0), "t", uint32(1), uint64(33), uint32(8), uint64(0)),
		"cut short":        (&file{}).put(magic, uint32(3), uint64(1), uint64(0), "t", uint32(1), uint64(64), uint32(0), uint64(0)),
		"impossible place": (&file{}).put(magic, uint32(3), uint64(1), uint64(0), "t", uint32(1), uint64(32), uint32(0), uint64(1)<<63-32),
	} {
		_, err := Read(bytes.NewReader(f.Bytes()), int64(f.Len()))
		require.ErrorContains(t, err, says)
	}
}

func TestCheck(t *testing.T) {
	_, err := Check(filepath.Join(t.TempDir(), "none.gguf"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Check(t.TempDir())
	require.ErrorContains(t, err, "not a file")
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, append(good(), 1, 2, 3), 0o600)) // more than needed is fine
	_, err = Check(path)
	require.NoError(t, err)
}

// FuzzRead: no input may panic, hang or take memory that the file's size does not justify.
func FuzzRead(f *testing.F) {
	f.Add(good())
	f.Add((&file{}).put(magic, uint32(3), uint64(1), uint64(1)).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Read(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			require.LessOrEqual(t, info.Size, int64(len(b)))
		}
	})
}
