package persistence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLogIsCut: the Raft log does not grow for ever, neither in one run nor over many short
// ones, by entries or by bytes.
func TestLogIsCut(t *testing.T) {
	for name, o := range map[string]Options{"entries": {LogEntries: 50}, "bytes": {LogBytes: 50_000}} {
		t.Run(name, func(t *testing.T) {
			o.Dir, o.Shards = t.TempDir(), 1
			n := 0
			run := func(writes int) logged {
				s, err := Open(o)
				require.NoError(t, err)
				j := s.Journal(0)
				epoch, err := j.Acquire(context.Background())
				require.NoError(t, err)
				done := make(chan error, 1)
				for range writes {
					n++
					j.Append(epoch, []Write{{Key: Key{"k", fmt.Sprint(n)}, Data: make([]byte, 1000)}}, time.Second,
						func(_ []Outcome, err error) { done <- err })
					require.NoError(t, <-done)
				}
				d := s.(*store).dir
				require.NoError(t, s.Close())
				logs, err := verifyLog(d.logDir(d.Host), func(int) uint64 { return 1 })
				require.NoError(t, err)
				return logs[0]
			}
			x := run(300)
			require.Greater(t, x.cut, uint64(100))
			for range 12 {
				x = run(20)
			}
			require.Less(t, x.last-x.cut, uint64(200), "short runs count too")
		})
	}
}
