package persisttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func key(id string) persistence.Key { return persistence.Key{Kind: "task", ID: id} }

func write(id string, after uint64, data string) persistence.Write {
	return persistence.Write{Key: key(id), After: after, Data: []byte(data)}
}

func row(seq uint64, data string) persistence.Row {
	return persistence.Row{Seq: seq, Data: []byte(data)}
}

func createAndRead(o *Owner) {
	require.Equal(o.T, persistence.Log{}, o.Read("a", 0))
	o.OK(write("a", 0, "one"))
	o.OK(write("a", 1, "two"))
	o.OK(write("a", 2, "three"))
	require.Equal(o.T, persistence.Log{Last: 3, Rows: []persistence.Row{row(1, "one"), row(2, "two"), row(3, "three")}}, o.Read("a", 0))
	require.Equal(o.T, persistence.Log{Last: 3, Rows: []persistence.Row{row(3, "three")}}, o.Read("a", 2))
	require.Equal(o.T, persistence.Log{Last: 3}, o.Read("a", 3))
	require.Equal(o.T, persistence.Log{Last: 3}, o.Read("a", 7))
	require.Equal(o.T, persistence.Log{}, o.Read("b", 5))
}

func conflict(o *Owner) {
	o.OK(write("a", 0, "one"))
	o.OK(write("a", 1, "two"))
	for after, data := range map[uint64]string{0: "other", 1: "other", 3: "x", 9: "x"} {
		x := o.Append(write("a", after, data))[0]
		require.Equal(o.T, fault.Conflict, fault.KindOf(x.Err), "after %d", after)
		require.EqualValues(o.T, 2, x.Seq)
		require.False(o.T, x.Dup)
	}
	x := o.Append(write("b", 4, "x"))[0]
	require.Equal(o.T, fault.Conflict, fault.KindOf(x.Err))
	require.Zero(o.T, x.Seq)
	require.Equal(o.T, []persistence.Row{row(1, "one"), row(2, "two")}, o.Read("a", 0).Rows)
	require.Zero(o.T, o.Read("b", 0).Last)
}

func twice(o *Owner) {
	w := persistence.Write{Key: key("a"), Data: []byte("one"), Index: []persistence.Index{{Name: "i", Key: []byte("k"), Value: []byte("v")}},
		Count: []persistence.Count{{Name: "n", Delta: 1}}}
	o.OK(w)
	o.OK(write("a", 1, "two"))
	require.Equal(o.T, []persistence.Outcome{{Seq: 2, Dup: true}}, o.Append(w))
	require.Equal(o.T, []persistence.Outcome{{Seq: 2, Dup: true}}, o.Append(write("a", 1, "two")))
	other := w
	other.Count = []persistence.Count{{Name: "n", Delta: 2}}
	require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(other)[0].Err), "all of a write counts, not its data alone")
	require.EqualValues(o.T, map[string]int64{"n": 1}, o.Counters())
	require.Equal(o.T, []string{"k=v"}, o.Scan("i", "", ""))
}

func epochs(o *Owner) {
	o.OK(write("a", 0, "one"))
	next := Own(o.T, o.J)
	require.Greater(o.T, next.Epoch, o.Epoch)
	_, err := o.Try(write("a", 1, "late"))
	require.Equal(o.T, fault.Fenced, fault.KindOf(err))
	ahead := &Owner{T: o.T, J: o.J, Epoch: next.Epoch + 1}
	_, err = ahead.Try(write("a", 1, "early"))
	require.Equal(o.T, fault.Fenced, fault.KindOf(err))
	next.OK(write("a", 1, "two"))
	require.EqualValues(o.T, 2, o.Read("a", 0).Last)
}

func eachForItself(o *Owner) {
	o.OK(write("a", 0, "one"))
	bad := write("a", 0, "other")
	bad.Index = []persistence.Index{{Name: "i", Key: []byte("bad")}}
	bad.Count = []persistence.Count{{Name: "bad", Delta: 1}}
	good := write("b", 0, "one")
	good.Index = []persistence.Index{{Name: "i", Key: []byte("good")}}
	out := o.Append(bad, good, persistence.Write{Key: key("c")}, write("a", 0, "one"), write("d", 0, "x"))
	require.Equal(o.T, fault.Conflict, fault.KindOf(out[0].Err))
	require.Equal(o.T, persistence.Outcome{Seq: 1}, out[1])
	require.Equal(o.T, fault.Invalid, fault.KindOf(out[2].Err), "a write without data")
	require.Equal(o.T, persistence.Outcome{Seq: 1, Dup: true}, out[3])
	require.Equal(o.T, persistence.Outcome{Seq: 1}, out[4])
	require.Equal(o.T, []string{"good="}, o.Scan("i", "", ""))
	require.Empty(o.T, o.Counters())
}

func twiceInOne(o *Owner) {
	w := write("a", 0, "one")
	out := o.Append(w, write("a", 1, "two"), w, write("a", 1, "other"), write("a", 1, "two"), write("a", 2, "three"))
	require.Equal(o.T, persistence.Outcome{Seq: 1}, out[0])
	require.Equal(o.T, persistence.Outcome{Seq: 2}, out[1])
	require.Equal(o.T, persistence.Outcome{Seq: 2, Dup: true}, out[2])
	require.Equal(o.T, fault.Conflict, fault.KindOf(out[3].Err))
	require.EqualValues(o.T, 2, out[3].Seq)
	require.Equal(o.T, persistence.Outcome{Seq: 2, Dup: true}, out[4])
	require.Equal(o.T, persistence.Outcome{Seq: 3}, out[5])
	snap := write("b", 1, "two")
	snap.Snap = &persistence.Snapshot{State: []byte("s"), Truncate: true}
	o.OK(write("b", 0, "one"), snap, write("b", 2, "three"))
	require.Equal(o.T, persistence.Log{Last: 3, SnapSeq: 2, Snap: []byte("s"), Rows: []persistence.Row{row(3, "three")}}, o.Read("b", 0))
}

func snapshots(o *Owner) {
	o.OK(write("a", 0, "one"))
	s := write("a", 1, "two")
	s.Snap = &persistence.Snapshot{State: []byte("1+2")}
	o.OK(s)
	require.Equal(o.T, persistence.Log{SnapSeq: 2, Snap: []byte("1+2"), Last: 2}, o.Read("a", 0))
	o.OK(write("a", 2, "three"))
	require.Equal(o.T, persistence.Log{SnapSeq: 2, Snap: []byte("1+2"), Last: 3, Rows: []persistence.Row{row(3, "three")}}, o.Read("a", 1))
	require.Equal(o.T, persistence.Log{Last: 3, Rows: []persistence.Row{row(3, "three")}}, o.Read("a", 2))
	require.Equal(o.T, persistence.Outcome{Seq: 3, Dup: true}, o.Append(write("a", 0, "one"))[0], "its row is still there")
	require.Equal(o.T, persistence.Outcome{Seq: 3, Dup: true}, o.Append(s)[0])
	s = write("a", 3, "four")
	s.Snap = &persistence.Snapshot{State: []byte("1..4")}
	o.OK(s)
	require.Equal(o.T, persistence.Log{SnapSeq: 4, Snap: []byte("1..4"), Last: 4}, o.Read("a", 0))
}

func truncating(o *Owner) {
	for round := range uint64(3) {
		o.OK(write("a", round*3, "x"))
		o.OK(write("a", round*3+1, "y"))
		s := write("a", round*3+2, "z")
		s.Snap = &persistence.Snapshot{State: []byte(fmt.Sprint(round)), Truncate: true}
		o.OK(s)
		last := round*3 + 3
		require.Equal(o.T, persistence.Log{SnapSeq: last, Snap: []byte(fmt.Sprint(round)), Last: last}, o.Read("a", 0))
		require.Equal(o.T, persistence.Outcome{Seq: last, Dup: true}, o.Append(s)[0])
		require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(write("a", round*3, "x"))[0].Err), "nobody knows it any more")
		require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(write("a", last+1, "x"))[0].Err))
	}
	s := write("new", 0, "created with a snapshot")
	s.Snap = &persistence.Snapshot{State: []byte("s"), Truncate: true}
	o.OK(s)
	require.Equal(o.T, persistence.Outcome{Seq: 1, Dup: true}, o.Append(s)[0])
	require.Equal(o.T, fault.Conflict, fault.KindOf(o.Append(write("new", 0, "again"))[0].Err))
	o.OK(write("new", 1, "two"))
}

func index(o *Owner) {
	put := func(name, k, v string) persistence.Index {
		return persistence.Index{Name: name, Key: []byte(k), Value: []byte(v)}
	}
	del := func(name, k string) persistence.Index {
		return persistence.Index{Name: name, Key: []byte(k), Delete: true}
	}
	w := write("a", 0, "one")
	w.Index = []persistence.Index{put("p", "b", "2"), put("p", "a", "1"), put("p", "c", ""), put("pp", "z", "9"), put("p", "b\x00", "3"), put("p", "\xff\xff", "4")}
	o.OK(w)
	require.Equal(o.T, []string{"a=1", "b=2", "b\x00=3", "c=", "\xff\xff=4"}, o.Scan("p", "", ""))
	require.Equal(o.T, []string{"b=2", "b\x00=3"}, o.Scan("p", "b", "c"))
	require.Equal(o.T, []string{"b\x00=3", "c=", "\xff\xff=4"}, o.Scan("p", "b\x00", ""))
	require.Equal(o.T, []string{"z=9"}, o.Scan("pp", "", ""))
	require.Empty(o.T, o.Scan("none", "", ""))
	w = write("a", 1, "two")
	w.Index = []persistence.Index{del("p", "b"), put("p", "a", "new"), put("p", "d", "x"), del("p", "d"), del("p", "c"), put("p", "c", "back"), del("p", "never")}
	o.OK(w)
	require.Equal(o.T, []string{"a=new", "b\x00=3", "c=back", "\xff\xff=4"}, o.Scan("p", "", ""))
	n := 0
	require.NoError(o.T, o.J.Scan("p", nil, nil, func(k, v []byte) bool { n++; return n < 2 }))
	require.Equal(o.T, 2, n)
}

func counters(o *Owner) {
	w := write("a", 0, "one")
	w.Count = []persistence.Count{{Name: "x", Delta: 5}, {Name: "y", Delta: 1}, {Name: "x", Delta: -2}, {Name: "zero", Delta: 0}}
	o.OK(w)
	require.Equal(o.T, map[string]int64{"x": 3, "y": 1}, o.Counters())
	w = write("a", 1, "two")
	w.Count = []persistence.Count{{Name: "x", Delta: -3}, {Name: "y", Delta: -4}}
	o.OK(w)
	require.Equal(o.T, map[string]int64{"y": -3}, o.Counters())
}

// tooManyCounters fills a shard with counters: creates stay out first, what exists moves on up
// to the limit, and at the limit whatever needs no more of them.
func tooManyCounters(o *Owner) {
	add := func(w persistence.Write, names ...string) persistence.Write {
		for _, name := range names {
			w.Count = append(w.Count, persistence.Count{Name: name, Delta: 1})
		}
		return w
	}
	drop := func(w persistence.Write, names ...string) persistence.Write {
		for _, name := range names {
			w.Count = append(w.Count, persistence.Count{Name: name, Delta: -1})
		}
		return w
	}
	refused := func(w persistence.Write) {
		o.T.Helper()
		x := o.Append(w)[0]
		require.Equal(o.T, fault.Overloaded, fault.KindOf(x.Err), "%v", x.Err)
		require.Contains(o.T, x.Err.Error(), "too many different models wait in this shard")
		require.NotEmpty(o.T, fault.RemedyOf(x.Err))
		require.Equal(o.T, w.After, x.Seq)
	}
	named := func(prefix string, n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprint(prefix, i))
		}
		return names
	}
	const perWrite = 256
	var ws []persistence.Write
	for i := range persistence.CountersCreateMax / perWrite {
		ws = append(ws, add(write(fmt.Sprint(i), 0, "x"), named(fmt.Sprint(i, "."), perWrite)...))
	}
	o.OK(ws...)
	refused(add(write("over", 0, "x"), "0.0", "new"))
	require.Zero(o.T, o.Read("over", 0).Last)
	o.OK(add(write("known", 0, "x"), "0.0", "1.0"))
	o.OK(drop(add(write("swap", 0, "x"), "new"), "0.1")) // it gives back what it takes
	none := add(write("none", 0, "x"), "passing")
	o.OK(drop(none, "passing"))
	refused(add(write("over", 0, "x"), "newer"))
	require.Len(o.T, o.Counters(), persistence.CountersCreateMax)

	room := persistence.CountersMax - persistence.CountersCreateMax
	o.OK(add(write("0", 1, "back"), named("back", room)...))
	require.Len(o.T, o.Counters(), persistence.CountersMax)
	refused(add(write("0", 2, "x"), "newer"))
	refused(drop(add(write("0", 2, "x"), "newer", "newest"), "0.2"))
	refused(add(write("over", 0, "x"), "newer"))
	o.OK(drop(add(write("0", 2, "cancel"), "cancelled"), "0.2"))
	require.Len(o.T, o.Counters(), persistence.CountersMax)
	o.OK(drop(write("0", 3, "end"), named("back", room)...), drop(write("1", 1, "end"), "1.1"), add(write("over", 0, "x"), "newer"))
	require.Len(o.T, o.Counters(), persistence.CountersCreateMax)
}

func limits(o *Owner) {
	_, err := o.Try()
	require.Equal(o.T, fault.Invalid, fault.KindOf(err))
	_, err = o.Try(make([]persistence.Write, persistence.AppendCount+1)...)
	require.Equal(o.T, fault.TooLarge, fault.KindOf(err))
	half := write("a", 0, string(make([]byte, persistence.AppendMax/2)))
	_, err = o.Try(half, half)
	require.Equal(o.T, fault.TooLarge, fault.KindOf(err))
	require.Equal(o.T, fault.TooLarge, fault.KindOf(o.Append(write("a", 0, string(make([]byte, persistence.WriteMax))))[0].Err))
	for _, w := range []persistence.Write{
		{Key: persistence.Key{Kind: "k"}, Data: []byte("x")},
		{Key: persistence.Key{ID: "i"}, Data: []byte("x")},
		{Key: persistence.Key{Kind: "k", ID: string(make([]byte, persistence.KeyMax+1))}, Data: []byte("x")},
		{Key: key("a"), Data: []byte("x"), Index: []persistence.Index{{Name: "", Key: []byte("k")}}},
		{Key: key("a"), Data: []byte("x"), Index: []persistence.Index{{Name: "i"}}},
		{Key: key("a"), Data: []byte("x"), Index: []persistence.Index{{Name: "i", Key: make([]byte, persistence.IndexKeyMax+1)}}},
		{Key: key("a"), Data: []byte("x"), Count: []persistence.Count{{Name: ""}}},
	} {
		require.Equal(o.T, fault.Invalid, fault.KindOf(o.Append(w)[0].Err))
	}
	longest := persistence.Key{Kind: string(bytes.Repeat([]byte{1}, persistence.KeyMax)), ID: string(bytes.Repeat([]byte{2}, persistence.KeyMax))}
	o.OK(persistence.Write{Key: longest, Data: []byte("x"), Index: []persistence.Index{{Name: longest.Kind, Key: make([]byte, persistence.IndexKeyMax)}}})
	l, err := o.J.Read(longest, 0)
	require.NoError(o.T, err)
	require.EqualValues(o.T, 1, l.Last)
}

func large(o *Owner) {
	r := rand.New(rand.NewPCG(1, 2))
	body := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	first := persistence.Write{Key: key("a"), Data: body(3 << 20)}
	o.OK(first)
	second := persistence.Write{Key: key("a"), After: 1, Data: body(256<<10 + 1), Snap: &persistence.Snapshot{State: body(5 << 20)}}
	o.OK(second)
	l := o.Read("a", 0)
	require.True(o.T, l.SnapSeq == 2 && l.Last == 2 && bytes.Equal(l.Snap, second.Snap.State))
	require.Equal(o.T, persistence.Outcome{Seq: 2, Dup: true}, o.Append(first)[0])
	third := persistence.Write{Key: key("a"), After: 2, Data: body(256 << 10), Snap: &persistence.Snapshot{State: body(1 << 20), Truncate: true}}
	o.OK(third)
	l = o.Read("a", 0)
	require.True(o.T, l.SnapSeq == 3 && l.Last == 3 && bytes.Equal(l.Snap, third.Snap.State))
	fourth := persistence.Write{Key: key("a"), After: 3, Data: body(300 << 10)}
	o.OK(fourth)
	require.True(o.T, bytes.Equal(o.Read("a", 3).Rows[0].Data, fourth.Data))
}

func keys(o *Owner) {
	ks := []persistence.Key{{Kind: "a", ID: "bc"}, {Kind: "ab", ID: "c"}, {Kind: "a", ID: "b"}, {Kind: "a", ID: "b\x00c"},
		{Kind: "a\x00", ID: "b"}, {Kind: "a", ID: "\x00"}, {Kind: "a", ID: "\x01"}, {Kind: "\xff", ID: "\xff\xff"}}
	for i, k := range ks {
		o.OK(persistence.Write{Key: k, Data: []byte{byte(i)}})
	}
	for i, k := range ks {
		l, err := o.J.Read(k, 0)
		require.NoError(o.T, err)
		require.Equal(o.T, []persistence.Row{{Seq: 1, Data: []byte{byte(i)}}}, l.Rows)
	}
}

func full(o *Owner) {
	ws := make([]persistence.Write, persistence.AppendCount/2)
	for i := range ws {
		ws[i] = write(fmt.Sprint(i), 0, "0123456789")
		ws[i].Index = []persistence.Index{{Name: "all", Key: []byte(fmt.Sprintf("%06d", i))}}
		ws[i].Count = []persistence.Count{{Name: "n", Delta: 1}}
	}
	o.OK(ws...)
	require.Len(o.T, o.Scan("all", "", ""), len(ws))
	least := make([]persistence.Write, persistence.AppendCount)
	for i := range least {
		least[i] = write(fmt.Sprint("least", i), 0, "x")
	}
	o.OK(least...)
	require.Equal(o.T, map[string]int64{"n": int64(len(ws))}, o.Counters())
	for i, x := range o.Append(ws...) {
		require.Equal(o.T, persistence.Outcome{Seq: 1, Dup: true}, x, "write %d", i)
	}
}

func sideBySide(o *Owner) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range uint64(25) {
				x, err := o.Try(persistence.Write{Key: key(fmt.Sprint(w)), After: i, Data: []byte{byte(i)}, Count: []persistence.Count{{Name: "n", Delta: 1}}})
				if err != nil || x[0] != (persistence.Outcome{Seq: i + 1}) {
					o.T.Errorf("worker %d row %d: %v %v", w, i, x, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(o.T, map[string]int64{"n": 200}, o.Counters())
}

func pinnedScan(o *Owner) {
	for i := range 10 {
		w := write(fmt.Sprint(i), 0, "x")
		w.Index = []persistence.Index{{Name: "i", Key: []byte{byte(i)}}}
		o.OK(w)
	}
	n := 0
	require.NoError(o.T, o.J.Scan("i", nil, nil, func(k, v []byte) bool {
		w := write(fmt.Sprint(n), 1, "y") // what it writes meanwhile is not seen
		w.Index = []persistence.Index{{Name: "i", Key: []byte{byte(n + 100)}}, {Name: "i", Key: []byte{9}, Delete: true}}
		o.OK(w)
		n++
		return true
	}))
	require.Equal(o.T, 10, n)
	require.Len(o.T, o.Scan("i", "", ""), 19)
}

// everyFailure runs one history again and again, with another Append refused or its answer
// lost each time, and a writer that repeats itself. The end is always the same.
func everyFailure(t *testing.T, open func(t *testing.T) persistence.Journal) {
	history := func(o *Owner) (appends int) {
		must := func(ws ...persistence.Write) {
			for try := 0; ; try++ {
				out, err := o.Try(ws...)
				if err != nil {
					require.Less(o.T, try, 2, "%v", err)
					continue
				}
				for _, x := range out {
					require.NoError(o.T, x.Err)
				}
				return
			}
		}
		for i := range uint64(4) {
			a, b := write("a", i, fmt.Sprint(i)), write("b", i, fmt.Sprint(i))
			a.Index = []persistence.Index{{Name: "i", Key: []byte{byte(i)}}, {Name: "i", Key: []byte{byte(i - 1)}, Delete: true}}
			a.Count = []persistence.Count{{Name: "n", Delta: int64(i)}}
			if i == 2 {
				b.Snap = &persistence.Snapshot{State: []byte("s"), Truncate: true}
			}
			must(a)
			must(b)
		}
		require.EqualValues(o.T, 4, o.Read("a", 0).Last)
		require.Len(o.T, o.Read("a", 0).Rows, 4)
		require.Equal(o.T, persistence.Log{SnapSeq: 3, Snap: []byte("s"), Last: 4, Rows: []persistence.Row{row(4, "3")}}, o.Read("b", 0))
		require.Equal(o.T, []string{"\x03="}, o.Scan("i", "", ""))
		require.Equal(o.T, map[string]int64{"n": 6}, o.Counters())
		return 8
	}
	n := history(Own(t, open(t)))
	for _, kind := range []fault.Kind{fault.NoSpace, fault.Timeout} {
		for bad := 1; bad <= n; bad++ {
			t.Run(fmt.Sprint(kind, " at ", bad), func(t *testing.T) {
				at := func(i int) error {
					if i == bad {
						return fault.New(kind, "test", "", "append %d fails", i)
					}
					return nil
				}
				f := &Fail{Journal: open(t)}
				if kind == fault.NoSpace {
					f.Before = at
				} else {
					f.After = at
				}
				history(Own(t, f))
				require.Equal(t, n+1, f.Appends())
			})
		}
	}
}

// CreatesRefused checks the Append of a journal whose creates are refused for want of space,
// which refuse arranges and ends: what exists goes on, whatever shares its Append.
func CreatesRefused(o *Owner, refuse func(on bool)) {
	o.OK(write("a", 0, "one"))
	refuse(true)
	noSpace := func(x persistence.Outcome) {
		o.T.Helper()
		require.Equal(o.T, fault.NoSpace, fault.KindOf(x.Err), "%v", x.Err)
		require.False(o.T, x.Dup)
	}
	out := o.Append(write("b", 0, "new"), write("a", 1, "two"), persistence.Write{Key: key("c")}, write("d", 0, "new"), write("a", 2, "three"))
	noSpace(out[0])
	require.Equal(o.T, persistence.Outcome{Seq: 2}, out[1])
	require.Equal(o.T, fault.Invalid, fault.KindOf(out[2].Err), "a write that breaks a limit keeps its own error")
	noSpace(out[3])
	require.Equal(o.T, persistence.Outcome{Seq: 3}, out[4])
	for _, x := range o.Append(write("b", 0, "new"), write("d", 0, "new")) {
		noSpace(x)
	}
	require.Zero(o.T, o.Read("b", 0).Last, "a refusal leaves nothing behind")
	refuse(false)
	o.OK(write("b", 0, "new"), write("a", 3, "four"))
}
