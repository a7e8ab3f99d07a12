package persistence_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// dump is everything a store holds, as text.
func dump(s persistence.Store, ids int) (string, error) {
	var b strings.Builder
	for shard := range s.Shards() {
		j := s.Journal(shard)
		counters, err := j.Counters()
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&b, "shard", shard, counters)
		if err := j.Scan("i", nil, nil, func(k, v []byte) bool { fmt.Fprintf(&b, "%q=%q\n", k, v); return true }); err != nil {
			return "", err
		}
		for id := range ids {
			l, err := j.Read(persistence.Key{Kind: "task", ID: fmt.Sprint(id)}, 0)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%d %d %q", l.Last, l.SnapSeq, l.Snap)
			for _, r := range l.Rows {
				fmt.Fprintf(&b, " %d:%x", r.Seq, r.Data)
			}
			fmt.Fprintln(&b)
		}
	}
	return b.String(), nil
}

// damageIDs is how many journals each shard of the sample has.
const damageIDs = 60

// sample fills a data directory until it has tables, logs that were cut, and more than one of
// most files, and returns copies of it: after a clean end, and as kill -9 leaves it. key is for Badger's encryption.
func sample(t *testing.T, key []byte) (closed, killed string, want string) {
	dir := t.TempDir()
	o := persistence.Options{Dir: dir, Shards: 2, LogEntries: 40, LogBytes: 1 << 20, EncryptionKey: key}
	r := rand.New(rand.NewPCG(1, 1))
	last := map[[2]int]uint64{}
	for round := range 4 {
		s, err := persistence.Open(o)
		require.NoError(t, err)
		for shard := range s.Shards() {
			own := persisttest.Own(t, s.Journal(shard))
			for id := range damageIDs {
				k := [2]int{shard, id}
				data := make([]byte, 100+r.IntN(4000))
				for i := range data {
					data[i] = byte(r.Uint32())
				}
				own.OK(persistence.Write{Key: persistence.Key{Kind: "task", ID: fmt.Sprint(id)}, After: last[k], Data: data,
					Index: []persistence.Index{{Name: "i", Key: fmt.Appendf(nil, "%04d-%d", id, round), Value: data[:8]}},
					Count: []persistence.Count{{Name: "rows", Delta: 1}}})
				last[k]++
			}
		}
		if round == 3 {
			want, err = dump(s, damageIDs)
			require.NoError(t, err)
			killed = copyDir(t, dir)
		}
		require.NoError(t, s.Close())
	}
	return dir, killed, want
}

// copyDir copies a tree and keeps its sparse files sparse.
func copyDir(t *testing.T, from string) string {
	to := t.TempDir()
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(from, path)
		target := filepath.Join(to, rel)
		switch {
		case os.IsNotExist(err): // a live directory
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		f, err := os.Create(target)
		if err != nil {
			return err
		}
		defer f.Close()
		end := len(b)
		for end > 0 && b[end-1] == 0 {
			end--
		}
		if _, err := f.Write(b[:end]); err != nil {
			return err
		}
		return f.Truncate(int64(len(b)))
	}))
	return to
}

// TestDamage breaks one file at a time. It must be noticed, with a file and a remedy, or do
// no harm at all.
func TestDamage(t *testing.T) {
	closed, killed, want := sample(t, nil)
	key := bytes.Repeat([]byte{7}, 32)
	closedBox, killedBox, wantBox := sample(t, key)
	tries := 3
	if testing.Short() {
		tries = 1
	}
	if n, err := strconv.Atoi(os.Getenv("PERSISTENCE_DAMAGE_TRIES")); err == nil {
		tries = n
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for _, base := range []struct {
		name, dir, want string
		key             []byte
	}{{"closed", closed, want, nil}, {"killed", killed, want, nil}, {"closed, encrypted", closedBox, wantBox, key}, {"killed, encrypted", killedBox, wantBox, key}} {
		t.Run(base.name, func(t *testing.T) {
			require.Equal(t, "unharmed", outcome(t, copyDir(t, base.dir), base.want, base.key), "a clean end and a kill are no damage")
			kinds := map[string][]string{}
			require.NoError(t, filepath.WalkDir(base.dir, func(path string, d fs.DirEntry, err error) error {
				rel, _ := filepath.Rel(base.dir, path)
				if err != nil || d.IsDir() || d.Name() == "LOCK" || base.key != nil && !strings.HasPrefix(rel, "store") {
					return err // what else there is, is as it is without a key
				}
				kind := filepath.Ext(rel)
				if kind == "" {
					kind = strings.TrimRight(d.Name(), "0123456789")
				}
				kind = strings.SplitN(rel, string(filepath.Separator), 2)[0] + " " + kind
				kinds[kind] = append(kinds[kind], rel)
				return nil
			}))
			for kind, files := range kinds {
				for _, how := range []string{"flip", "cut", "remove"} {
					t.Run(kind+" "+how, func(t *testing.T) {
						seen := map[string]int{}
						n := tries
						if how == "remove" {
							n = len(files)
						}
						for i := range n {
							file := files[i%len(files)]
							dir := copyDir(t, base.dir)
							what := harm(t, r, filepath.Join(dir, file), how)
							got := outcome(t, dir, base.want, base.key)
							require.Contains(t, []string{"unharmed", "refused"}, got, "%s %s", file, what)
							seen[got]++
							os.RemoveAll(dir)
						}
						t.Log(kind, how, seen)
					})
				}
			}
		})
	}
}

// harm damages one file and says how.
func harm(t *testing.T, r *rand.Rand, path, how string) string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	used := len(b) // of a sparse file only what is written
	for used > 1 && b[used-1] == 0 {
		used--
	}
	if how == "remove" || len(b) == 0 {
		require.NoError(t, os.Remove(path))
		return how
	}
	at := r.IntN(used)
	if how == "cut" {
		require.NoError(t, os.Truncate(path, int64(at)))
	} else {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{b[at] ^ 1<<r.IntN(8)}, int64(at))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	return fmt.Sprint(how, " at ", at, " of ", used)
}

// outcome opens the directory and tells what a user would see.
func outcome(t *testing.T, dir, want string, key []byte) string {
	s, err := persistence.Open(persistence.Options{Dir: dir, EncryptionKey: key})
	if err == nil {
		defer func() { require.NoError(t, s.Close()) }()
		var got string
		if got, err = dump(s, damageIDs); err == nil {
			if got != want {
				return "WRONG"
			}
			for shard := range s.Shards() { // and it goes on working
				own := persisttest.Own(t, s.Journal(shard))
				own.OK(persistence.Write{Key: persistence.Key{Kind: "new", ID: "new"}, Data: []byte("x")})
			}
			return "unharmed"
		}
	}
	if fault.KindOf(err) == fault.Refused && key != nil && strings.Contains(err.Error(), "KEYREGISTRY") {
		return "refused" // it cannot be told from another key
	}
	if fault.KindOf(err) != fault.Corrupt || fault.RemedyOf(err) == "" {
		return fmt.Sprintf("UNCLEAR: %v", err)
	}
	return "refused"
}

// TestDamageWhileRunning flips a bit of a table under a running node: the next look at the
// tables finds it, and then no read gives a short answer.
func TestDamageWhileRunning(t *testing.T) {
	t.Run("clear", func(t *testing.T) { damageWhileRunning(t, nil) })
	t.Run("encrypted", func(t *testing.T) { damageWhileRunning(t, bytes.Repeat([]byte{7}, 16)) })
}

func damageWhileRunning(t *testing.T, key []byte) {
	closed, _, _ := sample(t, key)
	s := open(t, persistence.Options{Dir: closed, EncryptionKey: key, VerifyEvery: 20 * time.Millisecond})
	files, err := filepath.Glob(filepath.Join(closed, "store", "*.sst"))
	require.NoError(t, err)
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 1000)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, 1000)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, fault.Corrupt, fault.KindOf(s.Backup(context.Background(), filepath.Join(t.TempDir(), "backup"))))
	require.Eventually(t, func() bool {
		err := s.Journal(0).Scan("i", nil, nil, func(k, v []byte) bool { return true })
		return fault.KindOf(err) == fault.Corrupt && fault.RemedyOf(err) != ""
	}, 10*time.Second, 10*time.Millisecond)
	_, err = s.Journal(1).Read(persistence.Key{Kind: "task", ID: "1"}, 0)
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
}
