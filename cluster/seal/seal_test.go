package seal_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const marker = "ZEBRA-IN-CLEAR"

var key = persistence.Key{Kind: "task", ID: "a"}

// sample is a write with a marker wherever there can be one.
func sample() persistence.Write {
	return persistence.Write{Key: key, After: 6, Data: []byte(`[{"prompt":"` + marker + `"}]`),
		Index: []persistence.Index{{Name: "file", Key: []byte("k"), Value: []byte(marker)}, {Name: "all", Key: []byte("k")}, {Name: "old", Key: []byte("k"), Delete: true}},
		Snap:  &persistence.Snapshot{State: []byte(`{"answer":"` + marker + `"}`)}}
}

func logOf(w persistence.Write) persistence.Log {
	l := persistence.Log{Rows: []persistence.Row{{Seq: w.After + 1, Data: bytes.Clone(w.Data)}}, Last: w.After + 1}
	if w.Snap != nil {
		l.SnapSeq, l.Snap = w.After+1, bytes.Clone(w.Snap.State)
	}
	return l
}

func keysOf(t testing.TB, path string, standby bool) *seal.Keys {
	t.Helper()
	b, err := seal.ReadFile(path)
	require.NoError(t, err)
	k, err := seal.Parse(b, standby)
	require.NoError(t, err)
	return k
}

func newFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.key")
	require.NoError(t, seal.Create(path))
	return path
}

func write(t testing.TB, k *seal.Keys, w persistence.Write) persistence.Write {
	t.Helper()
	w, _, err := k.Write(w)
	require.NoError(t, err)
	return w
}

// TestNothingIsLeftInClear: and it comes back, and the same write twice is the same bytes.
func TestNothingIsLeftInClear(t *testing.T) {
	k := keysOf(t, newFile(t), false)
	in := sample()
	out, changed, err := k.Write(in)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, sample(), in, "what the actor gave stays as it is")
	require.Equal(t, out, write(t, k, in))
	for _, b := range [][]byte{out.Data, out.Snap.State, out.Index[0].Value} {
		require.NotContains(t, string(b), marker)
	}
	require.Empty(t, out.Index[1].Value)
	require.True(t, out.Index[2].Delete)
	l := logOf(out)
	require.NoError(t, k.Log(key, &l))
	require.Equal(t, logOf(in), l)
	v, err := k.Value("file", []byte("k"), out.Index[0].Value)
	require.NoError(t, err)
	require.Equal(t, marker, string(v))
}

// TestAPlaceIsPartOfIt: a sealed value that is moved, or any bit of what is encrypted that flips, is found.
func TestAPlaceIsPartOfIt(t *testing.T) {
	k := keysOf(t, newFile(t), false)
	out := write(t, k, sample())
	corrupt := func(err error) {
		t.Helper()
		require.Equal(t, fault.Corrupt, fault.KindOf(err), "%v", err)
		require.NotEmpty(t, fault.RemedyOf(err))
	}
	l := logOf(out)
	corrupt(k.Log(persistence.Key{Kind: "task", ID: "b"}, &l))
	l = logOf(out)
	corrupt(k.Log(persistence.Key{Kind: "tas", ID: "ka"}, &l))
	l = logOf(out)
	l.Rows[0].Seq++
	corrupt(k.Log(key, &l))
	l = logOf(out)
	l.Rows[0].Data, l.Snap = l.Snap, l.Rows[0].Data
	corrupt(k.Log(key, &l))
	_, err := k.Value("file", []byte("l"), out.Index[0].Value)
	corrupt(err)
	_, err = k.Value("fil", []byte("ek"), out.Index[0].Value)
	corrupt(err)
	const head = 8 + 5 // behind the mark, the method and the key's id
	for at := head; at < len(out.Data); at++ {
		l = logOf(out)
		l.Rows[0].Data[at] ^= 1 << (at % 8)
		corrupt(k.Log(key, &l))
	}
	for n := 7; n < len(out.Data); n++ {
		l = logOf(out)
		l.Rows[0].Data = l.Rows[0].Data[:n]
		corrupt(k.Log(key, &l))
	}
}

// TestWithoutTheKey: clear rows are read by everybody, sealed ones by nobody else; the error tells which key is missing.
func TestWithoutTheKey(t *testing.T) {
	k, other := keysOf(t, newFile(t), false), keysOf(t, newFile(t), false)
	var none *seal.Keys
	plain, changed, err := none.Write(sample())
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, sample(), plain)
	for _, reader := range []*seal.Keys{none, k, other} {
		l := logOf(plain)
		require.NoError(t, reader.Log(key, &l))
		require.Equal(t, logOf(sample()), l)
	}
	out := write(t, k, sample())
	for _, reader := range []*seal.Keys{none, other} {
		l := logOf(out)
		err := reader.Log(key, &l)
		require.Equal(t, fault.Unavailable, fault.KindOf(err), "the bytes are good: %v", err)
		require.Contains(t, fault.RemedyOf(err), "encryption.key_file")
		_, err = reader.Value("file", []byte("k"), out.Index[0].Value)
		require.Equal(t, fault.Unavailable, fault.KindOf(err))
		err = reader.Check([]seal.Print{k.Seals()})
		require.Equal(t, fault.Refused, fault.KindOf(err))
		require.Contains(t, err.Error(), string(k.Seals()))
		require.NoError(t, reader.Check(nil))
	}
	require.NoError(t, k.Check([]seal.Print{k.Seals()}))
}

// TestAClearValueThatLooksSealed: whoever writes bytes that begin as a sealed value does gets those bytes back, with a key and without one.
func TestAClearValueThatLooksSealed(t *testing.T) {
	k := keysOf(t, newFile(t), false)
	var none *seal.Keys
	like := write(t, k, sample())
	for _, k := range []*seal.Keys{none, k} {
		w := write(t, k, like)
		l := logOf(w)
		require.NoError(t, k.Log(key, &l))
		require.Equal(t, logOf(like), l)
		v, err := k.Value("file", []byte("k"), w.Index[0].Value)
		require.NoError(t, err)
		require.Equal(t, like.Index[0].Value, v)
	}
	newer := persistence.Log{Rows: []persistence.Row{{Seq: 1, Data: []byte("\x00sealed\x07...")}}}
	require.Equal(t, fault.Unavailable, fault.KindOf(k.Log(key, &newer)), "a newer program's is not damage")
}

// TestStandby: it opens and does not seal.
func TestStandby(t *testing.T) {
	path := newFile(t)
	k, standby := keysOf(t, path, false), keysOf(t, path, true)
	require.Empty(t, standby.Seals())
	require.Equal(t, k.Opens(), standby.Opens())
	out, changed, err := standby.Write(sample())
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, sample(), out)
	l := logOf(write(t, k, sample()))
	require.NoError(t, standby.Log(key, &l))
}

// TestRotate: two steps, each of which can read what the one before and the one after write.
func TestRotate(t *testing.T) {
	path := newFile(t)
	first := keysOf(t, path, false)
	step, err := seal.Rotate(path, false, false)
	require.NoError(t, err)
	require.Equal(t, seal.Announced, step)
	second := keysOf(t, path, false)
	require.Equal(t, first.Seals(), second.Seals())
	require.Len(t, second.Opens(), 2)
	info, err := seal.Info(path)
	require.NoError(t, err)
	require.Equal(t, []seal.Key{{Print: first.Seals(), Seals: true, Opens: true}, {Print: second.Opens()[1], Opens: true, Fresh: true}}, info)

	_, err = seal.Rotate(path, false, false)
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	require.Contains(t, fault.RemedyOf(err), "--deployed")
	step, err = seal.Rotate(path, true, false)
	require.NoError(t, err)
	require.Equal(t, seal.Switched, step)
	third := keysOf(t, path, false)
	require.Equal(t, second.Opens()[1], third.Seals())
	require.NotEmpty(t, step.Next())

	for _, writer := range []*seal.Keys{first, second, third} {
		out := write(t, writer, sample())
		for _, reader := range []*seal.Keys{second, third} {
			l := logOf(out)
			require.NoError(t, reader.Log(key, &l))
			require.Equal(t, logOf(sample()), l)
		}
	}
	l := logOf(write(t, third, sample()))
	require.Equal(t, fault.Unavailable, fault.KindOf(first.Log(key, &l)), "who skipped the first step")

	step, err = seal.Rotate(path, false, true)
	require.NoError(t, err)
	require.Equal(t, seal.Switched, step)
	fourth := keysOf(t, path, false)
	require.Len(t, fourth.Opens(), 3)
	require.Equal(t, fourth.Opens()[2], fourth.Seals())
}

func TestFiles(t *testing.T) {
	path := newFile(t)
	require.Equal(t, fault.Conflict, fault.KindOf(seal.Create(path)), "nothing is overwritten")
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, st.Mode().Perm())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = seal.Parse([]byte(base64.StdEncoding.EncodeToString(b)), false)
	require.NoError(t, err, "for a variable")
	for _, text := range []string{"", "{", "[]", "zebra?", string(b[:len(b)/2]), `{"primaryKeyId":1,"key":[]}`} {
		_, err := seal.Parse([]byte(text), false)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%q: %v", text, err)
		require.NotEmpty(t, fault.RemedyOf(err))
	}
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = seal.ReadFile(path)
	require.Equal(t, fault.Refused, fault.KindOf(err))
	require.Contains(t, fault.RemedyOf(err), "chmod")
	_, err = seal.ReadFile(path + "x")
	require.Equal(t, fault.NotFound, fault.KindOf(err))
}

// FuzzOpen: whatever lies on the disk, opening it ends in bytes or in a fault, and only what was sealed for the place opens as sealed.
func FuzzOpen(f *testing.F) {
	k := keysOf(f, newFile(f), false)
	out := write(f, k, sample())
	f.Add(out.Data)
	f.Add(out.Data[:10])
	f.Add([]byte("\x00sealed"))
	f.Add([]byte("\x00sealed\x00[]"))
	f.Add([]byte("\x00sealed\x01\x01"))
	f.Add([]byte(`[{"e":1}]`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := persistence.Log{Rows: []persistence.Row{{Seq: 7, Data: bytes.Clone(b)}}}
		err := k.Log(key, &l)
		var none *seal.Keys
		clear := persistence.Log{Rows: []persistence.Row{{Seq: 7, Data: bytes.Clone(b)}}}
		noneErr := none.Log(key, &clear)
		switch {
		case bytes.Equal(b, out.Data):
			require.NoError(t, err)
			require.Equal(t, sample().Data, l.Rows[0].Data)
		case err == nil: // then it was no sealed value: who has no key reads the same
			require.NoError(t, noneErr)
			require.Equal(t, clear, l)
		default:
			require.Contains(t, []fault.Kind{fault.Corrupt, fault.Unavailable}, fault.KindOf(err))
		}
	})
}

// BenchmarkSeal: what a row of a small task costs, and one of a chunk.
func BenchmarkSeal(b *testing.B) {
	k := keysOf(b, newFile(b), false)
	for name, n := range map[string]int{"400B": 400, "255KiB": 255<<10 + 4} {
		w := persistence.Write{Key: key, Data: bytes.Repeat([]byte("x"), n)}
		sealed := write(b, k, w)
		b.Run("seal/"+name, func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := k.Write(w); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("without keys/"+name, func(b *testing.B) {
			b.ReportAllocs()
			var none *seal.Keys
			for b.Loop() {
				if _, _, err := none.Write(w); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("open/"+name, func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				l := persistence.Log{Rows: []persistence.Row{{Seq: 1, Data: sealed.Data}}}
				if err := k.Log(key, &l); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
