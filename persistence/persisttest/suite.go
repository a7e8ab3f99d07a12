package persisttest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
)

// Run checks that journals do what persistence.Journal promises. open returns an empty
// one each time.
func Run(t *testing.T, open func(t *testing.T) persistence.Journal) {
	for _, c := range []struct {
		name string
		f    func(*Owner)
	}{
		{"create and read", createAndRead}, {"conflict", conflict}, {"same write twice", twice},
		{"epochs", epochs}, {"each write for itself", eachForItself}, {"one journal twice in an append", twiceInOne},
		{"snapshots", snapshots}, {"truncating snapshots", truncating}, {"index", index}, {"counters", counters},
		{"too many counters", tooManyCounters}, {"limits", limits}, {"large bodies", large}, {"erase", erase}, {"erase what is large", eraseLarge},
		{"erase up to a size", eraseBodies}, {"keys do not mix", keys},
		{"full append", full}, {"side by side", sideBySide}, {"pinned scan", pinnedScan},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Own(t, open(t))
			c.f(o)
		})
	}
	t.Run("append n fails", func(t *testing.T) { everyFailure(t, open) })
}

// Owner is the owner of a journal in a test: it knows the epoch, and any surprise ends
// the test.
type Owner struct {
	T     T
	J     persistence.Journal
	Epoch uint64
}

// T is what an Owner needs of *testing.T or *rapid.T.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	FailNow()
}

const wait = 10 * time.Second

// Own acquires the journal.
func Own(t T, j persistence.Journal) *Owner {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	e, err := j.Acquire(ctx)
	require.NoError(t, err)
	return &Owner{T: t, J: j, Epoch: e}
}

// Try appends and waits for the answer.
func (o *Owner) Try(writes ...persistence.Write) ([]persistence.Outcome, error) {
	type answer struct {
		out []persistence.Outcome
		err error
	}
	ch := make(chan answer, 2)
	o.J.Append(o.Epoch, writes, wait, func(out []persistence.Outcome, err error) { ch <- answer{out, err} })
	a := <-ch
	return a.out, a.err
}

// Append is Try that must go well as a whole.
func (o *Owner) Append(writes ...persistence.Write) []persistence.Outcome {
	o.T.Helper()
	out, err := o.Try(writes...)
	require.NoError(o.T, err)
	require.Len(o.T, out, len(writes))
	return out
}

// OK is Append whose writes are all applied now.
func (o *Owner) OK(writes ...persistence.Write) {
	o.T.Helper()
	for i, x := range o.Append(writes...) {
		require.Equal(o.T, persistence.Outcome{Seq: writes[i].After + 1}, x, "write %d", i)
	}
}

// Read returns what the journal holds.
func (o *Owner) Read(id string, after uint64) persistence.Log {
	o.T.Helper()
	l, err := o.J.Read(key(id), after)
	require.NoError(o.T, err)
	return l
}

// Scan returns the rows as "key=value".
func (o *Owner) Scan(index, from, to string) []string {
	o.T.Helper()
	rows := []string{}
	end := []byte(to)
	if to == "" {
		end = nil
	}
	require.NoError(o.T, o.J.Scan(index, []byte(from), end, func(k, v []byte) bool {
		rows = append(rows, string(k)+"="+string(v))
		return true
	}))
	return rows
}

// Counters returns the counters.
func (o *Owner) Counters() map[string]int64 {
	o.T.Helper()
	m, err := o.J.Counters()
	require.NoError(o.T, err)
	return m
}
