package task

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Times are whole microseconds, as Fact has them: a key keeps no more.

// disk is the ready index on a model disk: rows, key to value.
type disk map[string][]byte

func (d disk) put(k ReadyKey) { d[string(k.Bytes())] = k.value() }

func (d disk) scan(_ string, from, to []byte, f func(k, v []byte) bool) error {
	for _, k := range slices.Sorted(maps.Keys(d)) {
		if bytes.Compare([]byte(k), from) >= 0 && bytes.Compare([]byte(k), to) < 0 && !f([]byte(k), d[k]) {
			return nil
		}
	}
	return nil
}

// TestFeedLosesNothing drives a feed as its shard does, in any order of puts, claims,
// refusals and deletes: it hands out what is due, in order, each row once. Small feeds meet their bounds.
func TestFeedLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d, f := disk{}, newFeed("m", 5)
		f.max = rapid.SampledFrom([]int{4, 16, feedMax}).Draw(rt, "max")
		now := time.UnixMicro(1_000_000)
		held := map[string]ReadyKey{}
		n := 0
		kin := func() (k Kin) {
			k.Size = rapid.Uint8Range(0, 3).Draw(rt, "size")
			for i := range rapid.IntRange(0, 2).Draw(rt, "marks") {
				k.Marks[i] = rapid.Uint32Range(1, 3).Draw(rt, "mark")
			}
			return k
		}
		taste := Taste{Alike: rapid.Bool().Draw(rt, "alike"), Length: rapid.Bool().Draw(rt, "length"), Warm: Warm{2, 3}[:rapid.IntRange(0, 2).Draw(rt, "warm")]}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(rt, "burst") {
					n++
					k := ReadyKey{"m", 5, now.Add(time.Duration(rapid.IntRange(-50, 20).Draw(rt, "visible")) * time.Microsecond), fmt.Sprint("t", n), rapid.Bool().Draw(rt, "at once"), kin()}
					d.put(k)
					if rapid.IntRange(0, 9).Draw(rt, "observed") > 0 { // else it was read from disk before
						f.put(k, now)
					} else {
						require.NoError(rt, f.load("m", 5, f.max, now, d.scan))
						f.put(k, now)
					}
				}
			},
			"take": func(rt *rapid.T) {
				want := rapid.IntRange(1, 60).Draw(rt, "n")
				_, waits := f.first(now)
				var got []ReadyKey
				for more := true; more; { // as a batcher: until the feed says that nothing is due
					require.NoError(rt, f.load("m", 5, want-len(got), now, d.scan))
					took := f.take(want-len(got), now, taste)
					due := slices.IndexFunc(took, func(k ReadyKey) bool { return k.Visible.After(now) })
					if due < 0 {
						due = len(took)
					}
					require.True(rt, slices.IsSortedFunc(took[:due], compareReady))
					require.True(rt, slices.IsSortedFunc(took[due:], compareReady))
					for _, k := range took {
						require.False(rt, k.Visible.After(now) && !k.AtOnce)
						require.NotContains(rt, held, k.ID, "handed out twice")
						require.Contains(rt, d, string(k.Bytes()), "handed out a row that is gone")
						held[k.ID] = k
					}
					got = append(got, took...)
					at, ok := f.first(now)
					more = len(got) < want && ok && !at.After(now)
				}
				require.True(rt, waits || len(got) == 0, "it said that nothing waits")
				require.LessOrEqual(rt, len(f.rows), f.max)
				require.LessOrEqual(rt, len(f.early.rows), f.max)
				if len(got) < want { // then nothing that is due is left
					for row, value := range d {
						k, _ := parseReady([]byte(row), value)
						if _, h := held[k.ID]; !h {
							require.True(rt, k.Visible.After(now) && !k.AtOnce, "row %v was forgotten", k)
						}
					}
				}
			},
			"claimed": func(rt *rapid.T) {
				for id, k := range held {
					delete(d, string(k.Bytes()))
					k.AtOnce = false // a row that is deleted has no value
					f.delete(k)
					delete(held, id)
					return
				}
				rt.Skip()
			},
			"refused": func(rt *rapid.T) {
				for id, k := range held {
					delete(held, id)
					f.putBack(k, now)
					return
				}
				rt.Skip()
			},
			"cancelled": func(rt *rapid.T) {
				for row := range d {
					k, _ := ParseReadyKey([]byte(row))
					if _, h := held[k.ID]; !h {
						delete(d, row)
						f.delete(k)
						return
					}
				}
				rt.Skip()
			},
			"time": func(*rapid.T) { now = now.Add(10 * time.Microsecond) },
		})
	})
}

// TestFeedFindsWhatIsDueBehindWhatWaits, however many rows wait: with a row that comes, and with one that was there before the shard's
// owner.
func TestFeedFindsWhatIsDueBehindWhatWaits(t *testing.T) {
	now := time.UnixMicro(1 << 40)
	soon := ReadyKey{"m", 5, now.Add(10 * time.Minute), "soon", true, Kin{}}
	old := ReadyKey{"m", 5, now.Add(10 * time.Minute), "old", false, Kin{}} // of a program that marked none
	for _, waiting := range []int{0, 10, 3 * feedMax, 3 * lookMax * feedMax} {
		for _, there := range []bool{false, true} {
			t.Run(fmt.Sprintf("waiting=%d,there=%v", waiting, there), func(t *testing.T) {
				rows := []ReadyKey{}
				for i := range waiting {
					rows = append(rows, ReadyKey{"m", 5, now.Add(5 * time.Minute), fmt.Sprintf("w%06d", i), false, Kin{}})
				}
				sorted := append(append(rows, old), soon)
				scan := func(_ string, from, _ []byte, f func(k, v []byte) bool) error {
					i, _ := slices.BinarySearchFunc(sorted, from, func(k ReadyKey, from []byte) int { return bytes.Compare(k.Bytes(), from) })
					for _, k := range sorted[i:] {
						if !f(k.Bytes(), k.value()) {
							break
						}
					}
					return nil
				}
				f, got, rounds := newFeed("m", 5), []ReadyKey{}, 0
				drain := func() {
					for at, ok := f.first(now); ok && !at.After(now); at, ok = f.first(now) {
						require.NoError(t, f.load("m", 5, 8, now, scan))
						got = append(got, f.take(8, now, Taste{})...)
						rounds++
						require.Less(t, rounds, 9, "it asks for ever")
					}
				}
				if !there {
					sorted = sorted[:len(sorted)-1]
					drain()
					require.Empty(t, got)
					sorted = append(sorted, soon)
					f.put(soon, now)
				}
				drain()
				require.Equal(t, []ReadyKey{soon}, got)
				f.putBack(soon, now)
				drain()
				require.Equal(t, []ReadyKey{soon, soon}, got)
				f.delete(ReadyKey{"m", 5, soon.Visible, soon.ID, false, Kin{}})
				require.Empty(t, f.taken)
				at, ok := f.first(now)
				require.True(t, ok)
				require.True(t, at.After(now), "%v", at)
			})
		}
	}
}

func TestFeedStaysBounded(t *testing.T) {
	d, f := disk{}, newFeed("m", 5)
	f.more, f.next, f.early = false, nil, early{} // an empty queue, loaded to its end
	for i := range 3 * feedMax {
		k := ReadyKey{"m", 5, time.UnixMicro(int64(i)), fmt.Sprintf("t%06d", i), true, Kin{}}
		d.put(k)
		f.put(k, time.UnixMicro(1<<40))
		require.LessOrEqual(t, len(f.rows), feedMax)
	}
	seen := 0
	for {
		require.NoError(t, f.load("m", 5, 500, time.UnixMicro(1<<40), d.scan))
		got := f.take(500, time.UnixMicro(1<<40), Taste{})
		if len(got) == 0 {
			break
		}
		for _, k := range got {
			require.Equal(t, fmt.Sprintf("t%06d", seen), k.ID)
			seen++
		}
	}
	require.Equal(t, 3*feedMax, seen)
}

func TestReadyKeyOrder(t *testing.T) {
	a := ReadyKey{"m", 1, time.UnixMicro(500), "x", true, Kin{Marks: [4]uint32{1, 2, 3}, Size: 9}}
	for _, b := range []ReadyKey{{"m", 1, time.UnixMicro(500), "y", false, Kin{}}, {"m", 1, time.UnixMicro(501), "a", false, Kin{}}, {"m", 2, time.UnixMicro(0), "a", false, Kin{}}} {
		require.Negative(t, bytes.Compare(a.Bytes(), b.Bytes()), "%v before %v", a, b)
	}
	got, ok := parseReady(a.Bytes(), a.value())
	require.True(t, ok)
	require.True(t, got.AtOnce)
	require.Equal(t, a.ID, got.ID)
	require.Equal(t, a.Kin, got.Kin)
	require.True(t, a.Visible.Equal(got.Visible))
	got, ok = parseReady(a.Bytes(), nil)
	require.True(t, ok)
	require.False(t, got.AtOnce, "of an older program")
	got, ok = parseReady(a.Bytes(), []byte{readyAtOnce})
	require.True(t, ok)
	require.True(t, got.AtOnce)
	require.Zero(t, got.Kin, "of a program that wrote none")
	_, ok = ParseReadyKey([]byte("short"))
	require.False(t, ok)
}
