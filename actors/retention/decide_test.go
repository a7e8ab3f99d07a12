package retention

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func at(sec int64) time.Time { return time.Unix(sec, 0) }

// TestUntil: what may go ended before the cutoff, and every sink of its tenant has it.
func TestUntil(t *testing.T) {
	mark := func(whose string, last map[int][]byte) Mark { return Mark{Tenant: whose, Last: last} }
	to := func(sec int64, id string) map[int][]byte {
		return map[int][]byte{3: task.EndedKey(at(sec), "/acme/"+id)}
	}
	for name, c := range map[string]struct {
		marks []Mark
		gone  bool // of the task "m" that ended at 50, when all before 100 may go
	}{
		"no sink":                       {gone: true},
		"a sink far ahead":              {marks: []Mark{mark("acme", to(200, "z"))}, gone: true},
		"a sink that has just this one": {marks: []Mark{mark("acme", to(50, "m"))}, gone: true},
		"a sink that has one beside it": {marks: []Mark{mark("acme", to(50, "l"))}},
		"a sink that is behind":         {marks: []Mark{mark("acme", to(49, "z"))}},
		"a sink that has nothing":       {marks: []Mark{mark("acme", nil)}},
		"a sink that has another shard": {marks: []Mark{mark("acme", map[int][]byte{2: task.EndedKey(at(200), "z")})}},
		"one of two is behind":          {marks: []Mark{mark("acme", to(200, "z")), mark("acme", to(49, "z"))}},
		"another tenant's is behind":    {marks: []Mark{mark("default", to(49, "z"))}, gone: true},
	} {
		end := until(at(100), c.marks, "acme", 3)
		require.Equal(t, c.gone, string(task.EndedKey(at(50), "/acme/m")) < string(end), name)
		require.Equal(t, !c.gone, Awaited(c.marks, "/acme/m", 3, at(50)), name)
		require.False(t, string(task.EndedKey(at(100), "")) < string(end), "%s: not old enough", name)
	}
}

func TestCandidate(t *testing.T) {
	line := "batch_0123456789abcdef0123456789abcdef-12"
	for id, want := range map[string]bool{"t": true, "/acme/t": true, line: false, "/acme/" + line: false, line + "x": true} {
		got, ended, ok := candidate(task.EndedKey(at(5), id))
		require.Equal(t, want, ok, id)
		require.Equal(t, id, got)
		require.True(t, at(5).Equal(ended))
	}
	_, _, ok := candidate([]byte("short"))
	require.False(t, ok)
}

func TestJudge(t *testing.T) {
	for err, want := range map[error]verdict{
		nil:                                     gone,
		fault.New(fault.NotFound, "t", "", "x"): gone,
		fault.New(fault.Conflict, "t", "", "x"): held,
		fault.New(fault.Unavailable, "t", "", "x"): later,
		fault.New(fault.Timeout, "t", "", "x"):     later,
		errors.New("x"):                            later,
	} {
		require.Equal(t, want, judge(err), "%v", err)
	}
}
