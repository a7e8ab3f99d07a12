package persistence_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

func TestBackupAndRestore(t *testing.T) {
	s := open(t, persistence.Options{Shards: 3})
	own := persisttest.Own(t, s.Journal(1))
	for id := range 20 {
		own.OK(persistence.Write{Key: persistence.Key{Kind: "task", ID: fmt.Sprint(id)}, Data: bytes.Repeat([]byte{byte(id)}, 1+id*30_000),
			Index: []persistence.Index{{Name: "i", Key: []byte{byte(id)}}}, Count: []persistence.Count{{Name: "n", Delta: 1}}})
	}
	want, err := dump(s, 20)
	require.NoError(t, err)
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, s.Backup(ctx, dir))
	require.Equal(t, fault.Conflict, fault.KindOf(s.Backup(ctx, dir)), "a backup overwrites nothing")
	own.OK(persistence.Write{Key: persistence.Key{Kind: "task", ID: "later"}, Data: []byte("x"), Count: []persistence.Count{{Name: "n", Delta: 1}}})

	data := filepath.Join(t.TempDir(), "data")
	require.NoError(t, persistence.Restore(ctx, data, dir, nil))
	err = persistence.Restore(ctx, data, dir, nil)
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	require.NotEmpty(t, fault.RemedyOf(err))

	for range 2 { // the restored directory is one like any other
		restored := open(t, persistence.Options{Dir: data})
		got, err := dump(restored, 20)
		require.NoError(t, err)
		require.Equal(t, want, got)
		old := &persisttest.Owner{T: t, J: restored.Journal(1), Epoch: own.Epoch}
		_, err = old.Try(persistence.Write{Key: persistence.Key{Kind: "task", ID: "x"}, Data: []byte("x")})
		require.Equal(t, fault.Fenced, fault.KindOf(err))
		require.Greater(t, persisttest.Own(t, restored.Journal(1)).Epoch, own.Epoch+1000)
		require.NoError(t, restored.Close())
	}

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, file := range files {
		whole, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, at := range []int{0, len(whole) / 3, len(whole) - 2} {
			for name, bad := range map[string][]byte{"flip": bytes.Clone(whole), "cut": whole[:at]} {
				if name == "flip" {
					bad[at] ^= 4
				}
				require.NoError(t, os.WriteFile(file, bad, 0o644))
				into := filepath.Join(t.TempDir(), "data")
				err := persistence.Restore(ctx, into, dir, nil)
				require.Equal(t, fault.Corrupt, fault.KindOf(err), "%s %s at %d: %v", name, file, at, err)
				require.NoDirExists(t, into, "nothing is written before all is verified")
			}
		}
		require.NoError(t, os.Remove(file))
		require.Error(t, persistence.Restore(ctx, filepath.Join(t.TempDir(), "data"), dir, nil))
		require.NoError(t, os.WriteFile(file, whole, 0o644))
	}
	require.NoError(t, persistence.Restore(ctx, filepath.Join(t.TempDir(), "data"), dir, nil))
}

// TestBackupOnline takes a backup under load: it is one moment of all shards, in which two
// journals that are always written together agree.
func TestBackupOnline(t *testing.T) {
	s := open(t, persistence.Options{Shards: 2})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for shard := range 2 {
		own := persisttest.Own(t, s.Journal(shard))
		wg.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				own.OK(persistence.Write{Key: persistence.Key{Kind: "task", ID: "0"}, After: i, Data: []byte("x")},
					persistence.Write{Key: persistence.Key{Kind: "task", ID: "1"}, After: i, Data: []byte("x"), Count: []persistence.Count{{Name: "n", Delta: 1}}})
			}
		})
	}
	for i := range 5 {
		dir := filepath.Join(t.TempDir(), "backup")
		require.NoError(t, s.Backup(context.Background(), dir))
		data := filepath.Join(t.TempDir(), "data")
		require.NoError(t, persistence.Restore(context.Background(), data, dir, nil))
		restored := open(t, persistence.Options{Dir: data})
		for shard := range 2 {
			var last [2]uint64
			for id := range last {
				l, err := restored.Journal(shard).Read(persistence.Key{Kind: "task", ID: fmt.Sprint(id)}, 0)
				require.NoError(t, err)
				last[id] = l.Last
			}
			n, err := restored.Journal(shard).Counters()
			require.NoError(t, err)
			require.True(t, last[0] == last[1] && n["n"] == int64(last[0]), "round %d shard %d: %v %v", i, shard, last, n)
		}
		require.NoError(t, restored.Close())
	}
	close(stop)
	wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Error(t, s.Backup(ctx, filepath.Join(t.TempDir(), "cancelled")))
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, persistence.Options{Dir: dir, Shards: 2})
	for range 2 {
		_, err := persistence.Open(persistence.Options{Dir: dir})
		require.Equal(t, fault.Unavailable, fault.KindOf(err))
		require.Contains(t, err.Error(), fmt.Sprintf("process %d has this data directory open", os.Getpid()))
		require.NotEmpty(t, fault.RemedyOf(err))
	}
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "twice is fine")
	_, err := persistence.Open(persistence.Options{Dir: dir, Shards: 3})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	require.True(t, strings.Contains(err.Error(), "2 shards") && fault.RemedyOf(err) != "")
	_, err = persistence.Open(persistence.Options{})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	s = open(t, persistence.Options{Dir: dir})
	require.Equal(t, 2, s.Shards())
}
