package persistence_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// TestModel does the same random things to the model and to the real store, across
// restarts, and compares every answer and in the end everything there is.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := persistence.Options{Dir: t.TempDir(), Shards: 1, Heads: 1}
		s, err := persistence.Open(o)
		require.NoError(rt, err)
		defer func() { s.Close() }()
		memory := persisttest.NewMemory()
		model := persisttest.Own(rt, memory)
		real := persisttest.Own(rt, s.Journal(0))
		real.T, model.T = rt, rt
		names := []string{"a", "ab", "b"}
		last := map[string]uint64{}
		var sent []persistence.Write
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"append", "append", "append", "append", "acquire", "restart"}).Draw(rt, "step") {
			case "append":
				var ws []persistence.Write
				for range rapid.IntRange(1, 5).Draw(rt, "writes") {
					if len(sent) > 0 && rapid.IntRange(0, 4).Draw(rt, "again") == 0 {
						ws = append(ws, rapid.SampledFrom(sent).Draw(rt, "sent"))
						continue
					}
					id := rapid.SampledFrom(names).Draw(rt, "id")
					w := drawWrite(rt, id, last[id])
					ends := slices.ContainsFunc(ws, func(o persistence.Write) bool { return o.Key == w.Key && o.Snap != nil })
					if w.After > 0 && !ends && rapid.IntRange(0, 5).Draw(rt, "erase") == 0 {
						w.Erase, w.Snap = true, nil
					}
					if w.After == last[id] {
						if last[id]++; w.Erase && len(w.Data) < 250<<10 {
							last[id] = 0
						}
					}
					ws = append(ws, w)
				}
				sent = append(sent, ws...)
				want, werr := model.Try(ws...)
				got, gerr := real.Try(ws...)
				require.Equal(rt, fault.KindOf(werr), fault.KindOf(gerr))
				require.Len(rt, got, len(want))
				for i := range want {
					require.Equal(rt, fault.KindOf(want[i].Err), fault.KindOf(got[i].Err), "write %d: %v, %v", i, want[i], got[i])
					require.Equal(rt, want[i].Seq, got[i].Seq)
					require.Equal(rt, want[i].Dup, got[i].Dup)
				}
			case "acquire":
				model, real = persisttest.Own(rt, memory), persisttest.Own(rt, s.Journal(0))
			case "restart":
				require.NoError(rt, s.Close())
				s, err = persistence.Open(o)
				require.NoError(rt, err)
				real.J = s.Journal(0) // the epoch is as durable as the rest
			}
		}
		for _, id := range names {
			for after := range last[id] + 2 {
				require.Equal(rt, model.Read(id, after), real.Read(id, after), "%s after %d", id, after)
			}
		}
		for _, name := range []string{"i", "j"} {
			require.Equal(rt, model.Scan(name, "", ""), real.Scan(name, "", ""))
			require.Equal(rt, model.Scan(name, "b", "c"), real.Scan(name, "b", "c"))
		}
		require.Equal(rt, model.Counters(), real.Counters())
	})
}

func drawWrite(rt *rapid.T, id string, last uint64) persistence.Write {
	after := last
	if rapid.IntRange(0, 5).Draw(rt, "stale") == 0 {
		after = rapid.Uint64Range(0, last+2).Draw(rt, "after")
	}
	w := persistence.Write{Key: persistence.Key{Kind: "task", ID: id}, After: after,
		Data: []byte(fmt.Sprint(rapid.IntRange(0, 3).Draw(rt, "data")))}
	if rapid.IntRange(0, 20).Draw(rt, "large") == 0 {
		from := rapid.SampledFrom([]int{persistence.EraseBody - 1, persistence.EraseBody + 1, 250 << 10}).Draw(rt, "from")
		w.Data = make([]byte, rapid.IntRange(from, max(from+1, from*12/5)).Draw(rt, "size"))
	}
	for range rapid.IntRange(0, 2).Draw(rt, "rows") {
		w.Index = append(w.Index, persistence.Index{Name: rapid.SampledFrom([]string{"i", "j"}).Draw(rt, "name"),
			Key:    []byte(rapid.SampledFrom([]string{"a", "b", "bb", "c"}).Draw(rt, "key")),
			Value:  []byte(rapid.SampledFrom([]string{"", "v", "w"}).Draw(rt, "value")),
			Delete: rapid.Bool().Draw(rt, "delete")})
	}
	for range rapid.IntRange(0, 2).Draw(rt, "counts") {
		w.Count = append(w.Count, persistence.Count{Name: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "counter"),
			Delta: int64(rapid.IntRange(-2, 2).Draw(rt, "delta"))})
	}
	if rapid.IntRange(0, 4).Draw(rt, "snap") == 0 {
		w.Snap = &persistence.Snapshot{State: []byte(fmt.Sprint("state", after)), Truncate: rapid.Bool().Draw(rt, "truncate")}
	}
	return w
}
