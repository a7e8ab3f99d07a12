package persistence_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// TestFullDisk fills a small disk from outside and from inside. New journals are refused
// first, then everything, reading never; with room again, all goes on by itself.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk takes root")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=192m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	const reserve = 64 << 20
	s, err := persistence.Open(persistence.Options{Dir: filepath.Join(dir, "data"), Shards: 2, DiskReserve: reserve})
	require.NoError(t, err)
	defer func() { s.Close() }()
	require.False(t, s.Space().Refusing)
	own := persisttest.Own(t, s.Journal(0))
	id := uint64(0)
	create := func() error {
		id++
		w := task(id)
		w.Data = make([]byte, 200<<10)
		copy(w.Data, payload)
		for {
			out, err := own.Try(w)
			if err == nil {
				err = out[0].Err
			}
			if fault.KindOf(err) != fault.Overloaded { // the log is behind with its files
				return err
			}
		}
	}
	first := task(1)
	require.NoError(t, create())

	ballast := filepath.Join(dir, "ballast")
	fill := func(free uint64) { // leaves free bytes, from outside
		space := s.Space()
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		require.NoError(t, err)
		defer f.Close()
		for n := int64(space.Free) - int64(free); n > 0; n -= 1 << 20 {
			_, err := f.Write(make([]byte, min(n, 1<<20)))
			require.NoError(t, err)
		}
	}
	grow := func(seq uint64) error {
		out, err := own.Try(persistence.Write{Key: first.Key, After: seq, Data: []byte("more")})
		if err == nil {
			err = out[0].Err
		}
		return err
	}
	fill(reserve * 3 / 4)
	require.True(t, s.Space().Refusing)
	err = create()
	require.Equal(t, fault.NoSpace, fault.KindOf(err))
	require.Contains(t, err.Error(), dir)
	require.Contains(t, fault.RemedyOf(err), "free ")
	require.NoError(t, grow(1), "a task that exists may end")
	fill(reserve / 4)
	s.Space()
	require.Equal(t, fault.NoSpace, fault.KindOf(grow(2)))
	require.EqualValues(t, 2, func() uint64 { l, err := s.Journal(0).Read(first.Key, 0); require.NoError(t, err); return l.Last }())

	require.NoError(t, os.Remove(ballast))
	require.Eventually(t, func() bool { return grow(2) == nil }, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, create())
	fill(reserve + 16<<20)
	for { // from inside: the reserve stops it, not SIGBUS
		if err := create(); err != nil {
			require.Equal(t, fault.NoSpace, fault.KindOf(err), "%v", err)
			break
		}
		require.Less(t, id, uint64(5000))
	}
	require.Greater(t, s.Space().Free, uint64(reserve/2), "the reserve is still there")
	require.NoError(t, s.Close())
	s, err = persistence.Open(persistence.Options{Dir: filepath.Join(dir, "data"), DiskReserve: reserve})
	require.NoError(t, err, "and the directory opens")
	l, err := s.Journal(0).Read(first.Key, 0)
	require.NoError(t, err)
	require.EqualValues(t, 3, l.Last)
}
