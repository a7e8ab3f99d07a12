package task

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// rows are a journal of which the newest row is of a newer program.
func rows(t *testing.T, newest string, before ...Fact) (l persistence.Log) {
	t.Helper()
	for i, f := range before {
		b, err := EncodeFacts([]Fact{f})
		require.NoError(t, err)
		l.Rows = append(l.Rows, persistence.Row{Seq: uint64(i + 1), Data: b})
	}
	l.Last = uint64(len(l.Rows) + 1)
	l.Rows = append(l.Rows, persistence.Row{Seq: l.Last, Data: append([]byte{factsVersion}, newest...)})
	return l
}

// TestEventsOfANewerProgram: what says that it may be skipped is a version and nothing else, in every state; what does not is
// refused with the remedy, not called damaged.
func TestEventsOfANewerProgram(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lives := map[State][]Event{None: nil, Pending: {Submitted}, Running: {Submitted, Claimed}, Completed: {Submitted, Claimed, Answered},
		Failed: {Submitted, Claimed, Refused}, Cancelled: {Submitted, CancelAsked}}
	for state, events := range lives {
		var facts []Fact
		for _, e := range events {
			facts = append(facts, at(e, now))
		}
		for _, c := range []struct {
			newest string
			kind   fault.Kind
		}{
			{`[{"event":"noted","skip":true,"at":"2026-01-02T03:04:06Z","note":"x","answer":{"text":"not ours","score":1}}]`, fault.Unknown},
			{`[{"event":"noted","at":"2026-01-02T03:04:06Z"}]`, fault.Unavailable},
			{`[{"event":"","skip":true,"at":"2026-01-02T03:04:06Z"}]`, fault.Corrupt},
		} {
			skipped := 0
			kind := NewKind(Policy{}, nil, func(n entity.Note) {
				require.Equal(t, entity.Skipped, n.What)
				skipped++
			})
			got, seq, err := kind.Fold("x", rows(t, c.newest, facts...))
			if state == None && c.kind == fault.Unknown { // it can be no first event
				require.Equal(t, fault.Corrupt, fault.KindOf(err))
				continue
			}
			require.Equal(t, c.kind, fault.KindOf(err), "%v: %s: %v", state, c.newest, err)
			if err != nil {
				if c.kind == fault.Unavailable {
					require.Contains(t, fault.RemedyOf(err), "upgrade this node")
				}
				continue
			}
			require.Equal(t, 1, skipped)
			want := into(t, state, now)
			want.Version, want.UpdatedAt = want.Version+1, now.Add(time.Second)
			require.Equal(t, want, got)
			require.Equal(t, want.Version, seq)
		}
	}
}
