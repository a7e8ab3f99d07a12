package persisttest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

var (
	_ persistence.Journal = (*Memory)(nil)
	_ persistence.Store   = (*Store)(nil)
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) persistence.Journal { return NewMemory() })
}

func TestMemoryHooks(t *testing.T) {
	m := NewMemory()
	refused := fault.New(fault.NoSpace, "test", "", "full")
	lost := fault.New(fault.Timeout, "test", "", "late")
	m.FailAppend = func(n int) error {
		if n == 1 {
			return refused
		}
		return nil
	}
	m.LoseAppend = func(n int) error {
		if n == 2 {
			return lost
		}
		return nil
	}
	w := []persistence.Write{{Key: persistence.Key{Kind: "k", ID: "1"}, Data: []byte("x")}}
	for i, want := range []error{refused, lost, nil} {
		ch := make(chan error, 1)
		var got []persistence.Outcome
		m.Append(0, w, time.Second, func(o []persistence.Outcome, err error) { got = o; ch <- err })
		require.Equal(t, want, <-ch)
		if i == 2 {
			require.Equal(t, []persistence.Outcome{{Seq: 1, Dup: true}}, got)
		}
	}
}

func TestMemoryRefusesCreates(t *testing.T) {
	m := NewMemory()
	var full error
	m.FailCreate = func(persistence.Key) error { return full }
	CreatesRefused(Own(t, m), func(on bool) {
		if full = nil; on {
			full = fault.New(fault.NoSpace, "test", "", "full")
		}
	})
}
