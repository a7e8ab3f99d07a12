package task

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func arrived(t *testing.T) (*Held, *Work) {
	t.Helper()
	h := NewHeld(func() time.Duration { return 0 })
	w := &Work{ID: "t", Attempt: 1, Left: time.Minute}
	w.Arrive(nil, h)
	return h, w
}

// TestTwoRunsOfAnAttempt: what each says, in each order, and what comes of it.
func TestTwoRunsOfAnAttempt(t *testing.T) {
	type step func(w *Work) bool
	win := (*Work).Win
	fail := func(w *Work) bool { _, last := w.Fail(errGone); return last }
	back := func(w *Work) bool { _, last := w.returned(); return last }
	for _, tc := range []struct {
		name          string
		first, second step
		one, two      bool // what the step that is told first, and the other, say
	}{
		{"answer, answer", win, win, true, false},
		{"answer, error", win, fail, true, false},
		{"answer, given back", win, back, true, false},
		{"error, answer", fail, win, false, true},
		{"error, error", fail, fail, false, true},
		{"error, given back", fail, back, false, true},
		{"given back, answer", back, win, false, true},
		{"given back, error", back, fail, false, true},
	} {
		for _, swap := range []bool{false, true} {
			h, a := arrived(t)
			b := a.Second()
			require.Nil(t, a.Second(), "one for each attempt")
			require.True(t, b.IsSecond())
			if swap {
				a, b = b, a
			}
			require.Equal(t, tc.one, tc.first(a), "%s, %v", tc.name, swap)
			a.Release()
			require.Equal(t, 1, h.Len(), "%s: the other is held still", tc.name)
			require.Equal(t, tc.two, tc.second(b), "%s, %v", tc.name, swap)
			b.Release()
			a.Release()
			require.Zero(t, h.Len(), tc.name)
			require.Nil(t, a.Second(), "%s: nobody is at it", tc.name)
		}
	}
}

// TestWhatAnAttemptEndsWith where no run answers: the first run's own error, whoever is last, and the one there is where the other never ran.
func TestWhatAnAttemptEndsWith(t *testing.T) {
	one, two := errors.New("the first run's"), errors.New("the second run's")
	fail := func(err error) func(*Work) (error, bool) {
		return func(w *Work) (error, bool) { return w.Fail(err) }
	}
	for _, tc := range []struct {
		name          string
		first, second func(*Work) (error, bool)
		want          error
	}{
		{"both fail", fail(one), fail(two), one},
		{"the second had no room", fail(one), (*Work).returned, one},
		{"the first never ran", (*Work).returned, fail(two), two},
		{"neither ran", (*Work).returned, (*Work).returned, nil},
	} {
		for _, swap := range []bool{false, true} {
			_, a := arrived(t)
			b := a.Second()
			does := []func() (error, bool){func() (error, bool) { return tc.first(a) }, func() (error, bool) { return tc.second(b) }}
			if swap {
				slices.Reverse(does)
			}
			_, last := does[0]()
			require.False(t, last, "%s, %v", tc.name, swap)
			err, last := does[1]()
			require.True(t, last, "%s, %v", tc.name, swap)
			require.Equal(t, tc.want, err, "%s, %v", tc.name, swap)
		}
	}
}

// TestTheOtherRunIsStopped, by an answer and by an abort, whenever it can be.
func TestTheOtherRunIsStopped(t *testing.T) {
	h, a := arrived(t)
	b := a.Second()
	stopped := map[string]int{}
	a.OnAbort(func() { stopped["a"]++ })
	b.OnAbort(func() { stopped["b"]++ })
	require.True(t, b.Win())
	require.Equal(t, map[string]int{"a": 1}, stopped)
	require.True(t, a.Over())
	require.True(t, a.Lost())
	require.False(t, b.Over())
	require.False(t, b.Lost())
	b.Release()
	require.True(t, a.Over(), "also once the answer is recorded")
	a.OnAbort(func() { stopped["late"]++ })
	require.Equal(t, 1, stopped["late"])
	require.Equal(t, []Ref{}, append([]Ref{}, h.Missing([]Ref{a.Ref()})...))
	a.Release()
	require.Len(t, h.Missing([]Ref{a.Ref()}), 1)

	h, a = arrived(t)
	b = a.Second()
	a.OnAbort(func() { stopped["c"]++ })
	b.OnAbort(func() { stopped["d"]++ })
	h.Abort([]Ref{a.Ref()})
	require.Equal(t, 1, stopped["c"])
	require.Equal(t, 1, stopped["d"])
	require.False(t, a.Win())
	_, last := b.Fail(errGone)
	require.False(t, last, "nobody waits")
	require.Nil(t, a.Second())
}

// TestASecondRunThatNobodyHadRoomFor may be tried again.
func TestASecondRunThatNobodyHadRoomFor(t *testing.T) {
	h, a := arrived(t)
	require.True(t, a.MaySecond())
	b := a.Second()
	require.False(t, a.MaySecond())
	b.GiveBack("no room")
	require.True(t, a.MaySecond())
	c := a.Second()
	_, last := c.Fail(errGone)
	require.False(t, last)
	c.Release()
	require.False(t, a.MaySecond(), "that one ran")
	_, last = a.Fail(errGone)
	require.True(t, last, "and is out of it")
	a.Release()
	require.Zero(t, h.Len())
	require.Nil(t, (&Work{}).Second(), "it has not arrived")
}

// TestOneRunWins, however close.
func TestOneRunWins(t *testing.T) {
	for range 2000 {
		h, a := arrived(t)
		var won, last atomic.Int32
		var wg sync.WaitGroup
		for _, w := range []*Work{a, a.Second()} {
			wg.Go(func() {
				w.OnAbort(func() {})
				if w.Win() {
					won.Add(1)
				} else if _, end := w.Fail(errGone); end {
					last.Add(1)
				}
				w.Release()
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
		require.Zero(t, last.Load())
		require.Zero(t, h.Len())
	}
}
