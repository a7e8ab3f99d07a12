package task

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestMayForget(t *testing.T) {
	at := time.UnixMicro(1_000_000)
	ended := func(s State) Record { return Record{State: s, Spec: &Spec{}, EndedAt: at} }
	with := func(change func(*Record)) Record { r := ended(Completed); change(&r); return r }
	line := with(func(r *Record) { r.Line = &Line{Batch: "batch_1"} })
	for name, c := range map[string]struct {
		r  Record
		m  Forget
		ok bool
	}{
		"completed":              {r: ended(Completed), ok: true},
		"failed":                 {r: ended(Failed), ok: true},
		"cancelled":              {r: ended(Cancelled), ok: true},
		"pending":                {r: Record{State: Pending}},
		"running":                {r: Record{State: Running}},
		"the one that ended":     {r: ended(Completed), m: Forget{Ended: at}, ok: true},
		"another one by now":     {r: ended(Completed), m: Forget{Ended: at.Add(-time.Microsecond)}},
		"callback waits":         {r: with(func(r *Record) { r.Callback = CallbackWaiting })},
		"callback between tries": {r: with(func(r *Record) { r.Callback, r.CallbackTries, r.CallbackNext = CallbackWaiting, 3, at.Add(time.Hour) })},
		"callback delivered":     {r: with(func(r *Record) { r.Callback = CallbackDelivered }), ok: true},
		"callback gave up":       {r: with(func(r *Record) { r.Callback = CallbackDropped }), ok: true},
		"a line":                 {r: line},
		"a line by another":      {r: line, m: Forget{Batch: "batch_2"}},
		"a line by its batch":    {r: line, m: Forget{Batch: "batch_1"}, ok: true},
		"no line, by a batch":    {r: ended(Completed), m: Forget{Batch: "batch_1"}, ok: true},
	} {
		err := c.r.mayForget("t", &c.m)
		require.Equal(t, c.ok, err == nil, "%s: %v", name, err)
		if err != nil {
			require.Equal(t, fault.Conflict, fault.KindOf(err), name)
			require.NotEmpty(t, fault.RemedyOf(err), name)
		}
	}
}

// TestNothingStaysOfATask: whatever a task went through, forgetting it takes back every row and counter that its life made, and counts it as deleted.
func TestNothingStaysOfATask(t *testing.T) {
	at := time.UnixMicro(1_000_000)
	answer := &Answer{Text: "a"}
	for _, id := range []string{"t", "/acme/t"} {
		for _, line := range []*Line{nil, {Batch: "batch_1", Number: 7}} {
			for _, end := range []Fact{{Event: Answered, Answer: answer}, {Event: Refused, Error: &Failure{}}, {Event: CancelAsked}, {Event: Expired, Error: &Failure{}}} {
				for _, callback := range []string{"", "http://c"} {
					life := []Fact{{Event: Submitted, Kept: 5, Spec: &Spec{Prompt: "p", CallbackURL: callback, Steps: Texts("more")}, Model: "m", Line: line}, {Event: Claimed, Attempt: 1},
						{Event: StepDone, Answer: answer, Kept: 1}, {Event: Claimed, Attempt: 2}, end}
					if callback != "" {
						life = append(life, Fact{Event: CallbackSent, Attempt: 1})
					}
					rows, counters := map[string]bool{}, map[string]int64{}
					var r Record
					step := func(next Record) {
						for _, x := range index(id, r, next) {
							if key := x.Name + "\x00" + string(x.Key); x.Delete {
								require.True(t, rows[key], "%q is deleted and not there", key)
								delete(rows, key)
							} else {
								rows[key] = true
							}
						}
						for _, c := range count(id, r, next) {
							if counters[c.Name] += c.Delta; counters[c.Name] == 0 {
								delete(counters, c.Name)
							}
						}
						r = next
					}
					for i, f := range life {
						f.At = at.Add(time.Duration(i) * time.Second)
						next, err := r.Apply(f)
						require.NoError(t, err)
						step(next)
					}
					require.True(t, r.State.Final())
					require.NotEmpty(t, rows)
					step(Record{})
					require.Empty(t, rows, fmt.Sprint(id, line, end.Event))
					require.Equal(t, map[string]int64{"tasks/deleted": 1}, counters)
					var tally Tally
					tally.Add(counters)
					require.Equal(t, Tally{ByState: map[State]int64{}, Deleted: 1, Tenants: map[string]map[State]int64{}, Waiting: map[QueueName]int64{}, Bytes: map[string]int64{}}, tally)
				}
			}
		}
	}
}
