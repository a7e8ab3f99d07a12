package persistence

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func drawWrites(t *rapid.T) []Write {
	name := rapid.StringMatching(`.{1,9}`)
	data := rapid.SliceOfN(rapid.Byte(), 1, 40)
	blob := rapid.SliceOfN(rapid.Byte(), 0, 40)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Write {
		w := Write{Key: Key{name.Draw(t, "kind"), name.Draw(t, "id")}, After: rapid.Uint64().Draw(t, "after"), Data: data.Draw(t, "data")}
		for range rapid.IntRange(0, 3).Draw(t, "rows") {
			w.Index = append(w.Index, Index{Name: name.Draw(t, "index"), Key: data.Draw(t, "key"), Value: blob.Draw(t, "value"), Delete: rapid.Bool().Draw(t, "delete")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "counts") {
			w.Count = append(w.Count, Count{name.Draw(t, "name"), rapid.Int64().Draw(t, "delta")})
		}
		if w.Erase = rapid.IntRange(0, 3).Draw(t, "erase") == 0; !w.Erase && rapid.Bool().Draw(t, "snap") {
			w.Snap = &Snapshot{State: blob.Draw(t, "state"), Truncate: rapid.Bool().Draw(t, "truncate")}
		}
		return w
	}), 1, 6).Draw(t, "writes")
}

// unwire turns what was decoded back into Writes.
func (c *command) unwire() []Write {
	var out []Write
	for _, w := range c.writes {
		x := Write{Key: Key{string(w.kind), string(w.id)}, After: w.after, Data: w.data, Erase: w.erase}
		for _, i := range w.index {
			x.Index = append(x.Index, Index{Name: string(i.name), Key: i.key, Value: i.value, Delete: i.del})
		}
		for _, n := range w.count {
			x.Count = append(x.Count, Count{string(n.name), n.delta})
		}
		if w.hasSnap {
			x.Snap = &Snapshot{State: w.snap, Truncate: w.truncate}
		}
		out = append(out, x)
	}
	return out
}

func TestCommandRoundTrip(t *testing.T) {
	var c command // reused, as the state machine does
	rapid.Check(t, func(t *rapid.T) {
		writes, epoch := drawWrites(t), rapid.Uint64().Draw(t, "epoch")
		b := appendAppend(nil, epoch, writes, nil)
		require.NoError(t, c.decode(b))
		require.Equal(t, epoch, c.epoch)
		require.Equal(t, writes, c.unwire())

		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		b[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		require.Equal(t, fault.Corrupt, fault.KindOf(c.decode(b)))
		b = appendAppend(nil, epoch, writes, nil)
		require.Equal(t, fault.Corrupt, fault.KindOf(c.decode(b[:at])))
	})
}

func TestCommandSkipsRefusedWrites(t *testing.T) {
	w := Write{Key: Key{"k", "1"}, Data: []byte("x")}
	b := appendAppend(nil, 7, []Write{w, {}, w}, []bool{false, true, false})
	var c command
	require.NoError(t, c.decode(b))
	require.Len(t, c.writes, 2)
}

// FuzzCommand: whatever decodes encodes to the same bytes, and nothing panics.
func FuzzCommand(f *testing.F) {
	f.Add(appendAcquire(nil, 3))
	f.Add(appendAppend(nil, 1, []Write{{Key: Key{"task", "1"}, Data: []byte("data"),
		Index: []Index{{Name: "pending", Key: []byte("k"), Value: []byte("v")}, {Name: "pending", Key: []byte("l"), Delete: true}},
		Count: []Count{{"tasks", 1}}, Snap: &Snapshot{State: []byte("s"), Truncate: true}}}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= commandHeader { // let the fuzzer get past the checksum
			seal(b, 0)
		}
		var c command
		if c.decode(b) != nil {
			return
		}
		again := appendAcquire(nil, c.epoch)
		if c.kind == kindAppend {
			again = appendAppend(nil, c.epoch, c.unwire(), nil)
		}
		var d command
		require.NoError(t, d.decode(again))
		require.Equal(t, c.unwire(), d.unwire())
		if len(again) == len(b) {
			require.True(t, bytes.Equal(again, b))
		}
	})
}

func BenchmarkCommand(b *testing.B) {
	w := make([]Write, 256)
	for i := range w {
		w[i] = Write{Key: Key{"task", "0123456789abcdef"}, Data: make([]byte, 300),
			Index: []Index{{Name: "pending", Key: make([]byte, 16)}, {Name: "done", Key: make([]byte, 16)}}, Count: []Count{{"tasks", 1}}}
	}
	buf := appendAppend(nil, 1, w, nil)
	var c command
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = appendAppend(buf[:0], 1, w, nil)
		if err := c.decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
