package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

const shards = 3

// world is a few shards in memory.
type world struct {
	t      testing.TB
	mem    *persisttest.Store
	router *cluster.Router
	*blob.Store
}

func newWorld(t testing.TB) *world {
	mem := persisttest.NewStore(shards)
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	s, err := cluster.NewShards(cluster.Options{Store: mem, System: sys, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { s.Stop(); require.NoError(t, mem.Close()); s.Wait(); sys.Shutdown() })
	<-s.Ready()
	return &world{t, mem, s.Router(), blob.New(s.Router())}
}

// kept returns how many bytes the chunks of a blob still have, looking at far more than it may have had.
func (w *world) kept(id string) (n int) {
	for i := range 100 {
		l, err := w.router.Read(w.t.Context(), persistence.Key{Kind: blob.Kind, ID: fmt.Sprintf("%s.%d", id, i)}, 0)
		require.NoError(w.t, err)
		for _, r := range l.Rows {
			n += max(0, len(r.Data)-1) // a mark is one byte
		}
		n += max(0, len(l.Snap)-1)
	}
	return n
}

func (w *world) all(refs []blob.Ref, offset int64) ([]byte, error) {
	r := w.Open(w.t.Context(), refs, offset)
	defer r.Close()
	return io.ReadAll(r)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestSizes: what goes in comes out, from any offset, over several blobs, whatever the reader's habits; and goes away.
func TestSizes(t *testing.T) {
	w := newWorld(t)
	for i, n := range []int{0, 1, blob.ChunkBytes - 1, blob.ChunkBytes, blob.ChunkBytes + 1, 20*blob.ChunkBytes + 7} {
		id, want := fmt.Sprint("b", i), random(n)
		sum := sha256.New()
		ref, err := w.Write(t.Context(), id, iotest.OneByteReader(bytes.NewReader(want[:min(n, 3)])), 0)
		require.NoError(t, err)
		require.EqualValues(t, min(n, 3), ref.Bytes)
		id += "x"
		ref, err = w.Write(t.Context(), id, iotest.DataErrReader(bytes.NewReader(want)), int64(n), sum)
		require.NoError(t, err)
		require.Equal(t, blob.Ref{ID: id, Bytes: int64(n)}, ref)
		require.Equal(t, sha256.Sum256(want), [32]byte(sum.Sum(nil)))
		for _, offset := range []int{0, 1, blob.ChunkBytes, n, n + 5} {
			got, err := w.all([]blob.Ref{ref, ref}, int64(offset))
			require.NoError(t, err)
			require.True(t, bytes.Equal(append(bytes.Clone(want), want...)[min(offset, 2*n):], got), "%d bytes from %d", n, offset)
		}
		require.NoError(t, w.Delete(t.Context(), ref))
		require.NoError(t, w.Delete(t.Context(), ref), "again")
		require.Zero(t, w.kept(id))
		if n > 0 {
			_, err = w.all([]blob.Ref{ref}, 0)
			require.Equal(t, fault.NotFound, fault.KindOf(err), "%v", err)
			_, err = w.Write(t.Context(), id, bytes.NewReader(want), 0)
			require.Equal(t, fault.Conflict, fault.KindOf(err), "a name is used once")
		}
	}
}

// TestBrokenOff: a reader that fails, also with the very error by which io.ReadFull says that a read was short, gives no blob,
// and after Sweep nothing is left of it.
func TestBrokenOff(t *testing.T) {
	w := newWorld(t)
	for i, cause := range []error{io.ErrUnexpectedEOF, errors.New("gone")} {
		for _, n := range []int{0, 5, 3*blob.ChunkBytes + 5, 70 * blob.ChunkBytes} {
			id := fmt.Sprint("b", i, ".", n)
			_, err := w.Write(t.Context(), id, io.MultiReader(bytes.NewReader(random(n)), iotest.ErrReader(cause)), 0)
			require.ErrorIs(t, err, cause)
			require.NoError(t, w.Sweep(t.Context(), id))
			require.NoError(t, w.Sweep(t.Context(), id), "again")
			require.Zero(t, w.kept(id))
			_, err = w.Write(t.Context(), id, bytes.NewReader(random(1)), 0)
			require.Equal(t, fault.Conflict, fault.KindOf(err), "a late writer is refused")
		}
	}
	_, err := w.Write(t.Context(), "long", bytes.NewReader(random(101)), 100)
	require.Equal(t, fault.TooLarge, fault.KindOf(err))
}

// TestEveryWriteFails: whichever append fails, or is applied and not answered, a blob is whole or there is an error; what Sweep leaves
// is nothing.
func TestEveryWriteFails(t *testing.T) {
	const chunks = 6
	want := random(chunks*blob.ChunkBytes - 9)
	for _, how := range []string{"refused", "lost", "moved"} {
		for n := int64(1); n <= chunks; n++ {
			w := newWorld(t)
			var at atomic.Int64
			for s := range shards {
				hook := func(int) error {
					if at.Add(1) != n {
						return nil
					}
					switch how {
					case "refused":
						return fault.New(fault.NoSpace, "test", "", "append %d", n)
					case "moved":
						for i := range shards {
							w.mem.Lead(persistence.Lead{Shard: i})
							w.mem.Lead(persistence.Lead{Shard: i, Leading: true})
						}
					}
					return fault.New(fault.Timeout, "test", "", "append %d", n)
				}
				if how == "refused" {
					w.mem.Memory(s).FailAppend = hook
				} else {
					w.mem.Memory(s).LoseAppend = hook
				}
			}
			ref, err := w.Write(t.Context(), "b", bytes.NewReader(want), 0)
			if how == "refused" && at.Load() >= n { // several chunks may have shared an append: then there are fewer of them
				require.Equal(t, fault.NoSpace, fault.KindOf(err), "%d: %v", n, err)
				require.NoError(t, w.Sweep(t.Context(), "b"))
				require.Zero(t, w.kept("b"))
				continue
			}
			require.NoError(t, err, "%s %d", how, n)
			got, err := w.all([]blob.Ref{ref}, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		}
	}
}

// TestDamage: a chunk that is missing, short or flipped is never handed out.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	key := func(id string) persistence.Key { return persistence.Key{Kind: blob.Kind, ID: id + ".0"} }
	_, err := w.all([]blob.Ref{{ID: "nobody", Bytes: 1}}, 0)
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
	for id, row := range map[string][]byte{"flipped": {1, 2, 3, 4, 'x'}, "short": {0, 0, 0, 0, 'x', 'y'}} {
		require.NoError(t, w.router.Create(t.Context(), []persistence.Write{{Key: key(id), Data: row}})[0])
		_, err = w.all([]blob.Ref{{ID: id, Bytes: 1}}, 0)
		require.Equal(t, fault.Corrupt, fault.KindOf(err), id)
	}
}

// TestCloseEndsReading: in the middle, and twice.
func TestCloseEndsReading(t *testing.T) {
	w := newWorld(t)
	ref, err := w.Write(t.Context(), "b", bytes.NewReader(random(30*blob.ChunkBytes)), 0)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	r := w.Open(ctx, []blob.Ref{ref}, 0)
	_, err = r.Read(make([]byte, 10))
	require.NoError(t, err)
	cancel()
	_, err = io.Copy(io.Discard, r)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
}

// TestFlatHeap: what a writer holds does not grow with the blob. The journals in memory are emptied behind it.
func TestFlatHeap(t *testing.T) {
	const bytesIn, bound = 64 << 20, 40 << 20
	w := newWorld(t)
	var peak uint64
	src := &counted{left: bytesIn, every: 16 << 20, then: func(done int64) {
		n := done/blob.ChunkBytes - 16 // what is surely durable
		for i := max(0, n-80); i < n; i++ {
			l := persistence.Write{Key: persistence.Key{Kind: blob.Kind, ID: fmt.Sprintf("b.%d", i)}, After: 1, Data: []byte{0}, Snap: &persistence.Snapshot{State: []byte{0}, Truncate: true}}
			for _, err := range w.router.Append(t.Context(), []persistence.Write{l}) {
				require.True(t, err == nil || fault.KindOf(err) == fault.Conflict, "%v", err)
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}}
	ref, err := w.Write(t.Context(), "b", src, 0, hash.Hash(sha256.New()))
	require.NoError(t, err)
	require.EqualValues(t, bytesIn, ref.Bytes)
	require.Less(t, peak, uint64(bound), "of heap while %d MiB went through", bytesIn>>20)
}

// counted is so many zeros, and a pause now and then.
type counted struct {
	left, done, next, every int64
	then                    func(done int64)
}

func (c *counted) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), c.left))
	clear(b[:n])
	c.left, c.done = c.left-int64(n), c.done+int64(n)
	if c.done >= c.next {
		c.next += c.every
		c.then(c.done)
	}
	return n, nil
}
