package bank

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPhases walks every pair of phase and event, each with as many reservations as it may have.
func TestPhases(t *testing.T) {
	type has struct {
		phase   Phase
		out, in Leg
	}
	held, booked := Leg{Hold: 7}, Leg{Hold: 7, Settled: true}
	before := []has{{None, Leg{}, Leg{}}, {Reserving, Leg{}, Leg{}}, {Reserving, held, Leg{}}, {Booking, held, held}, {Booking, booked, held},
		{Cancelling, held, Leg{}}, {Done, booked, booked}, {Failed, Leg{}, Leg{}}, {Failed, booked, Leg{}}}
	events := []Step{{What: "started", Start: &Start{}}, {What: "held", Side: Out, Hold: 7}, {What: "held", Side: In, Hold: 7}, {What: "declined", Side: In},
		{What: "settled", Side: Out}, {What: "settled", Side: In}, {What: "nonsense"}}
	want := map[[2]int]has{
		{0, 0}: {Reserving, Leg{}, Leg{}},
		{1, 1}: {Reserving, held, Leg{}}, {1, 2}: {Reserving, Leg{}, held}, {1, 3}: {Failed, Leg{}, Leg{}},
		{2, 1}: {Reserving, held, Leg{}}, {2, 2}: {Booking, held, held}, {2, 3}: {Cancelling, held, Leg{}},
		{3, 4}: {Booking, booked, held}, {3, 5}: {Booking, held, booked},
		{4, 4}: {Booking, booked, held}, {4, 5}: {Done, booked, booked},
		{5, 4}: {Failed, booked, Leg{}}, {5, 5}: {Cancelling, held, Leg{Settled: true}}, // the behavior never settles what is not held
	}
	for i, b := range before {
		for j, e := range events {
			s := Transfer{Status: Status{Phase: b.phase}, Out: b.out, In: b.in}
			got, err := s.apply(e)
			w, ok := want[[2]int{i, j}]
			require.Equal(t, ok, err == nil, "%+v %s %s: %v", b, e.What, e.Side, err)
			if ok {
				require.Equal(t, w, has{got.Phase, got.Out, got.In}, "%+v %s %s", b, e.What, e.Side)
			}
			require.Equal(t, got.Phase == None || got.Phase.Final(), got.due().IsZero(), "what is under way is woken")
		}
	}
}

// TestReservations: what an account can do is never less than its reservations need, in whatever way they end.
func TestReservations(t *testing.T) {
	a := Account{Opened: true, Cents: 100}
	hold := func(n uint64, s Side, cents int64) Hold {
		return Hold{Number: n, Transfer: "t", Side: s, Cents: cents}
	}
	for _, c := range []struct {
		holds []Hold
		side  Side
		cents int64
		can   bool
	}{
		{nil, Out, 100, true}, {nil, Out, 101, false}, {nil, Out, 0, false}, {nil, Out, -1, false},
		{[]Hold{hold(1, Out, 60)}, Out, 40, true}, {[]Hold{hold(1, Out, 60)}, Out, 41, false},
		{[]Hold{hold(1, In, 60)}, Out, 101, false}, // what is not there yet cannot be spent
		{nil, In, centsMax - 100, true}, {nil, In, centsMax - 99, false},
		{[]Hold{hold(1, Out, 60)}, In, centsMax - 40, false}, // it may come back
		{[]Hold{hold(1, In, 60)}, In, centsMax - 160, true}, {[]Hold{hold(1, In, 60)}, In, centsMax - 159, false},
	} {
		a.Holds = c.holds
		require.Equal(t, c.can, a.takes(c.side, c.cents) == "", "%+v", c)
	}
	a.Holds = []Hold{hold(3, Out, 60), hold(5, In, 30)}
	for _, c := range []struct {
		ended uint64
		book  bool
		cents int64
		left  int
	}{{3, true, 40, 1}, {3, false, 100, 1}, {5, true, 130, 1}, {5, false, 100, 1}} {
		got, err := a.apply(Entry{What: "settled", Ended: c.ended, Book: c.book})
		require.NoError(t, err)
		require.Equal(t, c.cents, got.Cents)
		require.Len(t, got.Holds, c.left)
		require.Len(t, a.Holds, 2, "the older state is as it was")
	}
	_, err := a.apply(Entry{What: "settled", Ended: 4})
	require.Error(t, err)
}
