package persistence_test

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
)

// TestMillion measures what a node with many waiting tasks takes. It runs when
// PERSISTENCE_MILLION says how many.
func TestMillion(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("PERSISTENCE_MILLION"), 10, 64)
	if err != nil {
		t.Skip("PERSISTENCE_MILLION is not set")
	}
	dir := t.TempDir()
	report := func(what string, since time.Time) {
		t.Logf("%-28s %8v  RSS %s (anonymous %s, files %s)  disk %d MiB", what, time.Since(since).Round(time.Millisecond),
			status("VmRSS"), status("RssAnon"), status("RssFile"), size(t, dir)>>20)
	}
	start := time.Now()
	s := open(t, persistence.Options{Dir: dir})
	load(t, s, own(t, s), 0, n, 8, 256)
	report("loaded", start)
	runtime.GC()
	report("after a collection", time.Now())
	start = time.Now()
	require.NoError(t, s.Close())
	report("closed", start)
	start = time.Now()
	s = open(t, persistence.Options{Dir: dir})
	report("reopened", start)
	start = time.Now()
	rows := 0
	for shard := range s.Shards() {
		require.NoError(t, s.Journal(shard).Scan("pending", nil, nil, func(k, v []byte) bool { rows++; return true }))
	}
	require.EqualValues(t, n, rows)
	report("scanned", start)
}

func status(name string) string {
	b, _ := os.ReadFile("/proc/self/status")
	if m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(b); m != nil {
		kb, _ := strconv.Atoi(string(m[1]))
		return strconv.Itoa(kb>>10) + " MiB"
	}
	return "?"
}

func size(t *testing.T, dir string) (n int64) {
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			n += info.Size()
		}
		return nil
	}))
	return n
}
