package task

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Times are whole microseconds, as Fact has them: a key keeps no more.

// disk is the ready index on a model disk.
type disk map[string]bool

func (d disk) scan(_ string, from, to []byte, f func(k, v []byte) bool) error {
	keys := make([]string, 0, len(d))
	for k := range d {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if bytes.Compare([]byte(k), from) >= 0 && bytes.Compare([]byte(k), to) < 0 && !f([]byte(k), nil) {
			return nil
		}
	}
	return nil
}

// TestFeedLosesNothing drives a feed as its shard does, in any order of puts, claims,
// refusals and deletes: it hands out what is visible, in order, each row once.
func TestFeedLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d, f := disk{}, newFeed("m", 5)
		now := time.UnixMicro(1_000_000)
		held := map[string]ReadyKey{}
		n := 0
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(rt, "burst") {
					n++
					k := ReadyKey{"m", 5, now.Add(time.Duration(rapid.IntRange(-50, 20).Draw(rt, "visible")) * time.Microsecond), fmt.Sprint("t", n)}
					d[string(k.Bytes())] = true
					f.put(k)
				}
			},
			"take": func(rt *rapid.T) {
				want := rapid.IntRange(1, 60).Draw(rt, "n")
				require.NoError(rt, f.load("m", 5, want, d.scan))
				got := f.take(want, now)
				require.True(rt, slices.IsSortedFunc(got, compareReady))
				for _, k := range got {
					require.False(rt, k.Visible.After(now))
					require.NotContains(rt, held, k.ID, "handed out twice")
					require.True(rt, d[string(k.Bytes())], "handed out a row that is gone")
					held[k.ID] = k
				}
				if len(got) < want { // then nothing visible is left
					for row := range d {
						k, _ := ParseReadyKey([]byte(row))
						if _, h := held[k.ID]; !h {
							require.True(rt, k.Visible.After(now), "row %v was forgotten", k)
						}
					}
				}
			},
			"claimed": func(rt *rapid.T) {
				for id, k := range held {
					delete(d, string(k.Bytes()))
					f.delete(k)
					delete(held, id)
					return
				}
				rt.Skip()
			},
			"refused": func(rt *rapid.T) {
				for id, k := range held {
					delete(held, id)
					f.putBack(k)
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

func TestFeedStaysBounded(t *testing.T) {
	d, f := disk{}, newFeed("m", 5)
	f.more, f.next = false, nil // an empty queue, loaded to its end
	for i := range 3 * feedMax {
		k := ReadyKey{"m", 5, time.UnixMicro(int64(i)), fmt.Sprintf("t%06d", i)}
		d[string(k.Bytes())] = true
		f.put(k)
		require.LessOrEqual(t, len(f.rows), feedMax)
	}
	seen := 0
	for {
		require.NoError(t, f.load("m", 5, 500, d.scan))
		got := f.take(500, time.UnixMicro(1<<40))
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
	a := ReadyKey{"m", 1, time.UnixMicro(500), "x"}
	for _, b := range []ReadyKey{{"m", 1, time.UnixMicro(500), "y"}, {"m", 1, time.UnixMicro(501), "a"}, {"m", 2, time.UnixMicro(0), "a"}} {
		require.Negative(t, bytes.Compare(a.Bytes(), b.Bytes()), "%v before %v", a, b)
	}
	got, ok := ParseReadyKey(a.Bytes())
	require.True(t, ok)
	require.Equal(t, a.ID, got.ID)
	require.True(t, a.Visible.Equal(got.Visible))
	_, ok = ParseReadyKey([]byte("short"))
	require.False(t, ok)
}
