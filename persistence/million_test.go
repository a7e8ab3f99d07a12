package persistence_test

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
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
		took := time.Since(since).Round(time.Millisecond)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%-20s %8v  RSS %s (anonymous %s, files %s)  Go heap %d MiB live, %d held  disk %d MiB", what, took,
			status("VmRSS"), status("RssAnon"), status("RssFile"), m.HeapAlloc>>20, (m.HeapSys-m.HeapReleased)>>20, size(t, dir)>>20)
	}
	start := time.Now()
	s := open(t, persistence.Options{Dir: dir})
	load(t, s, own(t, s), 0, n, 8, 256)
	report("loaded", start)
	if path := os.Getenv("PERSISTENCE_HEAP"); path != "" {
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, pprof.WriteHeapProfile(f))
		require.NoError(t, f.Close())
	}
	debug.FreeOSMemory()
	report("collected", time.Now())
	start = time.Now()
	require.NoError(t, s.Close())
	report("closed", start)
	start = time.Now()
	s = open(t, persistence.Options{Dir: dir})
	report("reopened", start)
	debug.FreeOSMemory()
	report("collected", time.Now())
	start = time.Now()
	rows := 0
	for shard := range s.Shards() {
		require.NoError(t, s.Journal(shard).Scan("pending", nil, nil, func(k, v []byte) bool { rows++; return true }))
	}
	require.GreaterOrEqual(t, rows, int(n))
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
