package file_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

const shards = 3

// desk is a library on a few shards in memory, whose clock is ahead by as much as a test says.
type desk struct {
	t      *testing.T
	mem    *persisttest.Store
	router *cluster.Router
	ahead  atomic.Int64
	n      atomic.Int64 // appends so far, of all shards
	older  atomic.Bool  // a node lives that does not count what files keep
	*file.Library
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, mem: persisttest.NewStore(shards)}
	quiet := slog.New(slog.DiscardHandler)
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }))
	j := file.NewJanitor(0, quiet)
	j.Counts(func() bool { return !d.older.Load() })
	s, err := cluster.NewShards(cluster.Options{Store: d.mem, System: sys, Kinds: j.Kinds(), Log: quiet, Tick: 5 * time.Millisecond, Now: d.now})
	require.NoError(t, err)
	t.Cleanup(func() { j.Stop(); s.Stop(); require.NoError(t, d.mem.Close()); s.Wait(); sys.Shutdown() })
	<-s.Ready()
	d.router = s.Router()
	d.Library = file.NewLibrary(d.router, blob.New(d.router), d.now)
	return d
}

func (d *desk) now() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }

func (d *desk) pass(t time.Duration) { d.ahead.Add(int64(t)) }

// every makes f the hook of all shards; lose: after the append was applied.
func (d *desk) every(lose bool, f func(n int64) error) {
	for i := range shards {
		hook := func(int) error { return f(d.n.Add(1)) }
		if m := d.mem.Memory(i); lose {
			m.LoseAppend = hook
		} else {
			m.FailAppend = hook
		}
	}
}

func (d *desk) moved() {
	for i := range shards {
		d.mem.Lead(persistence.Lead{Shard: i})
		d.mem.Lead(persistence.Lead{Shard: i, Leading: true})
	}
}

// until waits for a state of an actor.
func until[S any](d *desk, key persistence.Key, load func(string, persistence.Log) (S, error), ok func(S) bool) S {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	changed, stop := d.router.Watch(key)
	defer stop()
	for {
		l, err := d.router.Read(ctx, key, 0)
		require.NoError(d.t, err)
		s, err := load(key.ID, l)
		require.NoError(d.t, err)
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(d.t, "it does not come to rest", "%v: %+v", key, s)
		}
	}
}

func (d *desk) swept(id string) {
	d.t.Helper()
	until(d, file.Key(id), file.Fold, func(r file.Record) bool { return r.Swept })
	d.empty(id)
}

// empty looks at more chunks than any blob here has.
func (d *desk) empty(ids ...string) {
	d.t.Helper()
	for _, id := range ids {
		for i := range 80 {
			l, err := d.router.Read(context.Background(), persistence.Key{Kind: blob.Kind, ID: fmt.Sprintf("%s.%d", id, i)}, 0)
			require.NoError(d.t, err)
			require.LessOrEqual(d.t, len(l.Snap), 1)
			for _, r := range l.Rows {
				require.LessOrEqual(d.t, len(r.Data), 1, "chunk %d of %s", i, id)
			}
		}
	}
}

func (d *desk) content(id string) string {
	d.t.Helper()
	r, _, err := d.Open(d.t.Context(), id, 0)
	require.NoError(d.t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(d.t, err)
	return string(b)
}

var batch = file.PutOptions{Filename: "../a.jsonl", Purpose: "batch"}

func TestPutGetDelete(t *testing.T) {
	d := newDesk(t)
	text := strings.Repeat("hello, world\n", 60_000)
	in, err := d.Put(t.Context(), batch, strings.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, "a.jsonl", in.Filename)
	require.EqualValues(t, len(text), in.Bytes)
	sum := md5.Sum([]byte(text))
	require.Equal(t, hex.EncodeToString(sum[:]), in.MD5)
	require.Equal(t, text, d.content(in.ID))
	d.moved()
	got, err := d.Get(t.Context(), in.ID)
	require.NoError(t, err)
	require.Equal(t, in.SHA256, got.SHA256)
	require.NoError(t, d.Delete(t.Context(), in.ID))
	require.Equal(t, fault.NotFound, fault.KindOf(d.Delete(t.Context(), in.ID)))
	_, err = d.Get(t.Context(), in.ID)
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	d.swept(in.ID)
	for _, id := range []string{"", "nobody", strings.Repeat("x", 1000)} {
		_, err = d.Get(t.Context(), id)
		require.Equal(t, fault.NotFound, fault.KindOf(err))
		require.Equal(t, fault.NotFound, fault.KindOf(d.Delete(t.Context(), id)))
	}
}

// TestTimers: what nobody writes any more and what has expired goes by itself.
func TestTimers(t *testing.T) {
	d := newDesk(t)
	o := batch
	o.ExpiresAfter = file.ExpiresMin
	expires, err := d.Put(t.Context(), o, strings.NewReader("x"))
	require.NoError(t, err)
	stays, err := d.Put(t.Context(), batch, strings.NewReader("y"))
	require.NoError(t, err)
	in, err := d.Receive(t.Context(), "never whole")
	require.NoError(t, err)
	require.NoError(t, in.Fill(t.Context(), strings.NewReader("z")))
	d.pass(2 * time.Hour)
	d.swept(expires.ID)
	d.swept(in.ID())
	_, err = in.Keep(t.Context(), batch)
	require.Equal(t, fault.Conflict, fault.KindOf(err), "too late: %v", err)
	require.Equal(t, "y", d.content(stays.ID))
	in.Drop()
}

// TestALivingUploadSaysSo: however slow it is, it is not taken away.
func TestALivingUploadSaysSo(t *testing.T) {
	d := newDesk(t)
	left := 5
	info, err := d.Put(t.Context(), batch, readerFunc(func(b []byte) (int, error) {
		if left--; left == 0 {
			return 0, io.EOF
		}
		d.pass(40 * time.Minute)
		b[0] = 'x'
		return 1, nil
	}))
	require.NoError(t, err)
	require.Equal(t, "xxxx", d.content(info.ID))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestBrokenOffLeavesNothing(t *testing.T) {
	d := newDesk(t)
	in, err := d.Receive(t.Context(), "a")
	require.NoError(t, err)
	gone := errors.New("gone")
	require.ErrorIs(t, in.Fill(t.Context(), io.MultiReader(strings.NewReader(strings.Repeat("x", 3*blob.ChunkBytes+1)), iotest.ErrReader(gone))), gone)
	in.Drop()
	in.Drop()
	d.swept(in.ID())
	page, more, err := d.List(t.Context(), file.Query{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, page)
	require.False(t, more)
}

// TestCrashAtEveryWrite puts a file and deletes it while the n-th append fails, for every n: it is whole or it is not there, and
// in the end nothing of it is.
func TestCrashAtEveryWrite(t *testing.T) {
	text := strings.Repeat("x", 3*blob.ChunkBytes)
	story := func(t *testing.T, d *desk) {
		in, err := d.Receive(t.Context(), "a")
		if err != nil {
			return // its timer takes it away, should it be there; nothing of it was written
		}
		defer in.Drop()
		err = in.Fill(t.Context(), strings.NewReader(text))
		if err == nil {
			_, err = in.Keep(t.Context(), batch)
		}
		if err == nil {
			require.Equal(t, text, d.content(in.ID()))
			for range 5 { // a client tries again
				if err = d.Delete(t.Context(), in.ID()); err == nil || fault.KindOf(err) == fault.NotFound {
					break
				}
			}
		} else {
			in.Drop()
			d.pass(2 * time.Hour) // where that failed, too
		}
		d.pass(time.Minute)
		d.swept(in.ID())
		page, _, err := d.List(t.Context(), file.Query{Limit: 10})
		require.NoError(t, err)
		require.Empty(t, page)
	}
	d := newDesk(t)
	d.every(false, func(int64) error { return nil })
	story(t, d)
	total := d.n.Load()
	require.Greater(t, total, int64(5))
	for _, how := range []string{"refused", "lost", "moved"} {
		for n := int64(1); n <= total; n++ {
			t.Run(fmt.Sprint(how, n), func(t *testing.T) {
				d := newDesk(t)
				d.every(how != "refused", func(i int64) error {
					switch {
					case i != n:
						return nil
					case how == "refused":
						return fault.New(fault.NoSpace, "test", "", "append %d", i)
					case how == "moved":
						d.moved()
					}
					return fault.New(fault.Timeout, "test", "", "append %d", i)
				})
				story(t, d)
			})
		}
	}
}

func TestList(t *testing.T) {
	d := newDesk(t)
	var ids []string
	for i := range 25 {
		o := batch
		if i%5 == 0 {
			o.Purpose = "vision"
		}
		in, err := d.Put(t.Context(), o, strings.NewReader("x"))
		require.NoError(t, err)
		ids = append(ids, in.ID)
		d.pass(time.Millisecond)
	}
	walk := func(q file.Query) (got []string) {
		for {
			page, more, err := d.List(t.Context(), q)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), q.Limit)
			for _, in := range page {
				got = append(got, in.ID)
				require.Empty(t, in.Content)
			}
			if !more {
				return got
			}
			q.After = got[len(got)-1]
		}
	}
	newest := slices.Clone(ids)
	slices.Reverse(newest)
	require.Equal(t, ids, walk(file.Query{Limit: 4, Order: file.Oldest}))
	require.Equal(t, newest, walk(file.Query{Limit: 25}))
	require.Equal(t, newest, walk(file.Query{Limit: 7}))
	require.Equal(t, []string{ids[20], ids[15], ids[10], ids[5], ids[0]}, walk(file.Query{Limit: 2, Purpose: "vision"}))
	require.NoError(t, d.Delete(t.Context(), ids[12]))
	page, more, err := d.List(t.Context(), file.Query{Limit: 2, After: ids[12]})
	require.NoError(t, err)
	require.True(t, more)
	require.Equal(t, ids[11], page[0].ID, "a file that was deleted meanwhile keeps its place")
	for _, q := range []file.Query{{}, {Limit: file.PageMax + 1}, {Limit: 1, Order: "up"}, {Limit: 1, After: "nobody"}} {
		_, _, err := d.List(t.Context(), q)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%+v", q)
	}
}

// outputs is a batch that says how far it is.
type outputs struct{ text string }

func (o *outputs) OpenOutput(_ context.Context, batch, part string, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader((batch + part + o.text)[offset:])), nil
}

func (o *outputs) OutputBytes(_ context.Context, batch, part string) (int64, error) {
	return int64(len(batch + part + o.text)), nil
}

func TestOutputs(t *testing.T) {
	d := newDesk(t)
	o := &outputs{"1"}
	d.Outputs(o)
	in := file.Info{ID: "file-out", Filename: "b_output.jsonl", Of: &file.Output{Batch: "b", Part: file.PartOutput}}
	for range 2 {
		require.NoError(t, d.Register(t.Context(), in))
	}
	require.Equal(t, "boutput1", d.content(in.ID))
	got, err := d.Get(t.Context(), in.ID)
	require.NoError(t, err)
	require.EqualValues(t, 8, got.Bytes)
	require.True(t, got.Growing)
	require.Equal(t, file.PurposeOutput, got.Purpose)
	o.text = "12"
	in.Bytes = 9
	require.NoError(t, d.Register(t.Context(), in))
	page, _, err := d.List(t.Context(), file.Query{Limit: 1})
	require.NoError(t, err)
	require.EqualValues(t, 9, page[0].Bytes)
	require.False(t, page[0].Growing)
	other := in
	other.Of = &file.Output{Batch: "c", Part: file.PartOutput}
	require.Equal(t, fault.Conflict, fault.KindOf(d.Register(t.Context(), other)))
	require.NoError(t, d.Delete(t.Context(), in.ID))
	require.NoError(t, d.Register(t.Context(), in), "a batch that goes on does not make it again")
	_, err = d.Get(t.Context(), in.ID)
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	require.Equal(t, fault.Invalid, fault.KindOf(d.Register(t.Context(), file.Info{ID: "x"})))
}

// TestBytesAreCountedWhereAllNodesDo, and taken off again.
func TestBytesAreCountedWhereAllNodesDo(t *testing.T) {
	d := newDesk(t)
	counted := func() (n int64) {
		for shard := range shards {
			c, err := d.router.Counters(t.Context(), shard)
			require.NoError(t, err)
			n += c["bytes/default"]
		}
		return n
	}
	d.older.Store(true)
	old, err := d.Put(t.Context(), batch, strings.NewReader("1234"))
	require.NoError(t, err)
	require.Zero(t, counted())
	d.older.Store(false)
	in, err := d.Put(t.Context(), batch, strings.NewReader("123"))
	require.NoError(t, err)
	require.EqualValues(t, 3, counted())
	require.NoError(t, d.Delete(t.Context(), old.ID))
	require.NoError(t, d.Delete(t.Context(), in.ID))
	require.Zero(t, counted())
}
