package bulk

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
)

// ends is a Router with nothing but the ends of lines, of two shards.
type ends struct {
	Router
	settled time.Time
	rows    [2][]cluster.IndexRow
}

func (e *ends) Shards() int { return len(e.rows) }

func (e *ends) Scan(_ context.Context, shard int, _ string, from, to []byte, limit int) (cluster.Page, error) {
	p := cluster.Page{Settled: e.settled, Ended: true}
	for _, r := range e.rows[shard] {
		if bytes.Compare(r.Key, from) < 0 || bytes.Compare(r.Key, to) >= 0 {
			continue
		}
		if p.Ended = len(p.Rows) < limit; !p.Ended {
			break
		}
		p.Rows = append(p.Rows, r)
	}
	return p, nil
}

func (e *ends) end(shard int, at time.Time, number uint64, failed bool) {
	e.rows[shard] = append(e.rows[shard], cluster.IndexRow{Key: task.LineEndKey("batch_a", at, number),
		Value: task.LineRow{Failed: failed, Size: 10, PromptTokens: 2, OutputTokens: 1}.Encode()})
	slices.SortFunc(e.rows[shard], func(a, b cluster.IndexRow) int { return bytes.Compare(a.Key, b.Key) })
}

// TestEndsAreCountedOnce: what is not settled waits, what was counted is not counted again, and what turns up behind what was counted
// is found when nothing else comes.
func TestEndsAreCountedOnce(t *testing.T) {
	now := start
	e := &ends{settled: start}
	d := &driver{Options: &Options{Router: e, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)}, id: "batch_a"}
	p := Progress{Line: 6, Reach: 6}
	look := func(want uint64) {
		t.Helper()
		var err error
		p, _, err = d.look(context.Background(), p)
		require.NoError(t, err)
		require.Equal(t, want, p.Ended())
	}
	look(0)
	e.end(0, start.Add(time.Second), 1, false)
	e.end(1, start.Add(2*time.Second), 2, true)
	e.rows[1] = append(e.rows[1], cluster.IndexRow{Key: task.LineEndKey("batch_b", start, 1)}) // another batch's
	look(0)
	e.settled = start.Add(time.Second).Add(start.Sub(cluster.Page{Settled: start}.Complete()))
	look(0)
	e.settled = e.settled.Add(1)
	look(1)
	e.settled = start.Add(time.Minute)
	look(2)
	look(2)
	require.Equal(t, Tally{Completed: 1, Failed: 1, OutputBytes: 10, ErrorBytes: 10, PromptTokens: 4, OutputTokens: 2}, p.Tally)

	e.end(0, start.Add(time.Second/2), 3, false) // late
	look(2)
	now = now.Add(recountMin)
	look(3)
	e.end(0, start.Add(3*time.Second), 4, false)
	look(4)
	now = now.Add(recountMin)
	look(4)
	e.end(0, start.Add(time.Second/2), 5, true)
	now = now.Add(recountMin)
	look(4) // patience has grown
	now = now.Add(recountMin)
	look(5)
	for i := range uint64(3 * countPage) {
		e.end(0, start.Add(10*time.Second), 100+i, false)
	}
	p.Line, p.Reach = 5*countPage, 5*countPage
	look(5 + countPage)
	look(5 + 2*countPage)
	e.end(1, start, 50, false)
	look(5 + 3*countPage)
	now = now.Add(recountMin)
	look(6 + 3*countPage)
}
