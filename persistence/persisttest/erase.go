package persisttest

import (
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func erasing(id string, after uint64) persistence.Write {
	w := write(id, after, "the end")
	w.Erase = true
	return w
}

// erase: the journal is as if it had never been, its neighbors are as they were, and its key may be used again, at once or later.
func erase(o *Owner) {
	first := write("a", 0, "one")
	first.Index = []persistence.Index{{Name: "i", Key: []byte("k"), Value: []byte("v")}}
	first.Count = []persistence.Count{{Name: "n", Delta: 1}}
	o.OK(first, write("a", 1, "two"), write("ab", 0, "other"), write("b", 0, "one"))
	require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(erasing("a", 1))[0].Err), "it has moved on")
	require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(erasing("a", 3))[0].Err))
	require.Equal(o.T, fault.Invalid, fault.KindOf(o.Append(erasing("a", 0))[0].Err))
	end := erasing("a", 2)
	end.Index = []persistence.Index{{Name: "i", Key: []byte("k"), Delete: true}, {Name: "j", Key: []byte("gone"), Value: []byte("a")}}
	end.Count = []persistence.Count{{Name: "n", Delta: -1}, {Name: "gone", Delta: 1}}
	require.Equal(o.T, persistence.Outcome{}, o.Append(end)[0])
	require.Equal(o.T, persistence.Log{}, o.Read("a", 0))
	require.Equal(o.T, persistence.Outcome{Dup: true}, o.Append(end)[0], "again")
	require.Equal(o.T, map[string]int64{"gone": 1}, o.Counters())
	require.Empty(o.T, o.Scan("i", "", ""))
	require.Equal(o.T, []string{"gone=a"}, o.Scan("j", "", ""))
	require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(write("a", 2, "late"))[0].Err))
	require.EqualValues(o.T, 1, o.Read("ab", 0).Last)

	o.OK(write("a", 0, "anew"))
	require.Equal(o.T, persistence.Log{Last: 1, Rows: []persistence.Row{row(1, "anew")}}, o.Read("a", 0))
	snap := write("b", 1, "two") // and all in one append, also over a snapshot
	snap.Snap = &persistence.Snapshot{State: []byte("s")}
	o.OK(snap)
	out := o.Append(erasing("a", 1), write("a", 0, "third"), write("a", 1, "more"), write("a", 2, "late"), erasing("b", 2), erasing("b", 2), write("b", 0, "new"))
	require.Equal(o.T, []persistence.Outcome{{}, {Seq: 1}, {Seq: 2}, {Seq: 3}, {}, {Dup: true}, {Seq: 1}}, out)
	require.Equal(o.T, persistence.Log{Last: 3, Rows: []persistence.Row{row(1, "third"), row(2, "more"), row(3, "late")}}, o.Read("a", 0))
	require.Equal(o.T, persistence.Log{Last: 1, Rows: []persistence.Row{row(1, "new")}}, o.Read("b", 0))
}

// eraseLarge: what is too much for one write is refused as it is, and goes after a truncation.
func eraseLarge(o *Owner) {
	long := strings.Repeat("n", 2*persistence.KeyMax/3)
	for id, body := range map[string]string{"many": "x", "large": strings.Repeat("x", 600<<10), "over": strings.Repeat("x", persistence.EraseBody+1), long: strings.Repeat("x", persistence.EraseBody+1)} {
		last := uint64(0)
		for range persistence.EraseRows + 1 {
			if o.OK(write(id, last, body)); last > 2 && len(body) > 1 {
				break
			}
			last++
		}
		last = o.Read(id, 0).Last
		require.Equal(o.T, fault.TooLarge, fault.KindOf(o.Append(erasing(id, last))[0].Err), id)
		require.Equal(o.T, last, o.Read(id, 0).Last)
		cut := write(id, last, "cut")
		cut.Snap = &persistence.Snapshot{State: []byte("nothing"), Truncate: true}
		out := o.Append(cut, erasing(id, last+1))
		require.Equal(o.T, persistence.Outcome{Seq: last + 1}, out[0])
		require.Equal(o.T, fault.TooLarge, fault.KindOf(out[1].Err), "not by the append that truncates it")
		require.Equal(o.T, persistence.Outcome{}, o.Append(erasing(id, last+1))[0])
		require.Equal(o.T, persistence.Log{}, o.Read(id, 0))
		o.OK(write(id, 0, "anew"), write(id, 1, "two"))
		require.EqualValues(o.T, 2, o.Read(id, 0).Last)
	}
}

// eraseBodies: rows and snapshots of EraseBody bytes can be erased, and with one byte more they can not.
func eraseBodies(o *Owner) {
	for _, more := range []int{0, 1} {
		body := strings.Repeat("x", persistence.EraseBody+more)
		snap := write("snap", 0, "x")
		snap.Snap = &persistence.Snapshot{State: []byte(body)}
		o.OK(write("row", 0, "first"), write("row", 1, body), snap)
		for id, last := range map[string]uint64{"row": 2, "snap": 1} {
			if out := o.Append(erasing(id, last))[0]; more == 0 {
				require.Equal(o.T, persistence.Outcome{}, out, id)
			} else {
				require.Equal(o.T, fault.TooLarge, fault.KindOf(out.Err), id)
			}
		}
	}
	small := write("snap", 1, "x") // what it replaces must not wait for after the erasure
	small.Snap = &persistence.Snapshot{State: []byte("small")}
	out := o.Append(small, erasing("snap", 2))
	require.Equal(o.T, persistence.Outcome{Seq: 2}, out[0])
	require.Equal(o.T, fault.TooLarge, fault.KindOf(out[1].Err), "not by the append that makes a snapshot")
	require.Equal(o.T, persistence.Outcome{}, o.Append(erasing("snap", 2))[0])
}
