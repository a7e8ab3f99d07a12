package persistence

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	crashDirVar  = "PERSISTENCE_CRASH_DIR"
	crashRoundsV = "PERSISTENCE_CRASH_ROUNDS"
	crashWriters = 16
	crashShards  = 4
)

// TestCrash kills a child process under load with SIGKILL again and again. Every
// acknowledged write is there afterwards, and none is there twice. A kill leaves the page cache:
// this says nothing about power loss.
func TestCrash(t *testing.T) {
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv(crashRoundsV)); err == nil {
		rounds = n
	}
	dir := t.TempDir()
	total := 0
	for round := range rounds {
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), crashDirVar+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		acks := 0
		for lines := bufio.NewScanner(out); acks < 1500+571*round && lines.Scan(); { // until it works, then some
			acks++
		}
		require.NoError(t, child.Process.Kill())
		child.Wait()

		start := time.Now()
		s, err := Open(Options{Dir: dir})
		require.NoError(t, err, "a crash is no damage")
		reopened := time.Since(start)
		acked := readAcks(t, filepath.Join(dir, "acks"))
		require.Greater(t, len(acked), 0)
		for shard := range crashShards {
			j := s.Journal(shard)
			rows := map[string]int64{}
			require.NoError(t, j.Scan("rows", nil, nil, func(k, _ []byte) bool {
				rows[string(k[:len(k)-8])]++
				return true
			}))
			counters, err := j.Counters()
			require.NoError(t, err)
			sum := int64(0)
			for id, n := range rows {
				l, err := j.Read(Key{"w", id}, 0)
				require.NoError(t, err)
				require.EqualValues(t, n, l.Last, "journal %s has as many rows as it has in the index", id)
				sum += n
			}
			require.Equal(t, sum, counters["rows"])
			for _, a := range acked {
				if a.shard == shard {
					require.GreaterOrEqual(t, rows[a.id], int64(a.seq), "an acknowledged row is gone")
					total++
				}
			}
		}
		t.Logf("round %d: %d acknowledged so far, reopened in %v", round, len(acked), reopened)
		require.NoError(t, s.Close())
	}
	require.Greater(t, total, 0)
}

type ack struct {
	shard int
	seq   uint64
	id    string
}

func readAcks(t *testing.T, path string) (acks []ack) {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var a ack
		if n, _ := fmt.Sscanf(lines.Text(), "%d %d %s .", &a.shard, &a.seq, &a.id); n == 3 {
			acks = append(acks, a)
		}
	}
	return acks
}

// crashChild writes until it is killed. An ack is on file only after Append said so: a lost
// ack is no error, a lost row is.
func crashChild(dir string) {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	s, err := Open(Options{Dir: dir, Shards: crashShards, LogEntries: 300})
	check(err)
	f, err := os.OpenFile(filepath.Join(dir, "acks"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	check(err)
	var wg sync.WaitGroup
	for w := range crashWriters {
		shard := w % crashShards
		j := s.Journal(shard)
		if w < crashShards {
			_, err := j.Acquire(context.Background())
			check(err)
		}
		id := fmt.Sprintf("%d-%d", os.Getpid(), w)
		wg.Go(func() {
			for seq := uint64(0); ; {
				key := binary.BigEndian.AppendUint64([]byte(id), seq)
				done := make(chan error, 1)
				j.Append(s.(*store).machines[shard].epoch.Load(), []Write{{Key: Key{"w", id}, After: seq, Data: key,
					Index: []Index{{Name: "rows", Key: key}}, Count: []Count{{"rows", 1}}}}, 10*time.Second,
					func(out []Outcome, err error) {
						if err == nil {
							err = out[0].Err
						}
						done <- err
					})
				if <-done != nil {
					continue
				}
				seq++
				fmt.Fprintf(f, "%d %d %s .\n", shard, seq, id)
				fmt.Println("ack")
			}
		})
	}
	wg.Wait()
}
