package hedge

import (
	"math/bits"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

const (
	timesKept = 128 // newest answers of what is alike
	timesMin  = 20  // with fewer nothing is late: nobody knows yet
	alikeMax  = 512 // kinds that are remembered; of more nothing is late
	sizeMax   = 32  // of Alike.Size: no task has as many tokens
	growMax   = 10  // of those, what is usual is at most so many times doubled
)

// Alike is what runs have in common that should take about as long.
type Alike struct {
	Model, Endpoint string
	Size            int // of the tokens that are expected, prompt and answer: each is twice the one before
}

// AlikeOf is of a work that was claimed.
func AlikeOf(w *task.Work) Alike {
	lane := w.Record.Lane()
	return Alike{lane.Model, lane.Endpoint, min(sizeMax, bits.Len(uint(max(0, w.Cost))))}
}

// times are the newest of what is alike; usual is what three of four of them took at most.
type times struct {
	newest []time.Duration // a ring
	next   int
	usual  time.Duration // 0: not known
}

func (t *times) add(d time.Duration) {
	if len(t.newest) < timesKept {
		t.newest = append(t.newest, d)
	} else {
		t.newest[t.next] = d
		t.next = (t.next + 1) % timesKept
	}
	if n := len(t.newest); n >= timesMin {
		sorted := slices.Clone(t.newest)
		slices.Sort(sorted)
		t.usual = sorted[(n*3+3)/4-1]
	}
}

// table is the times of all that is alike.
type table map[Alike]*times

func (t table) add(a Alike, d time.Duration) {
	x := t[a]
	if x == nil {
		if len(t) >= alikeMax {
			return
		}
		x = &times{}
		t[a] = x
	}
	x.add(d)
}

// usual is what those like it take. Where too few of its size have been answered it is that of the next larger size that is known, or else of the next
// smaller one as if time grew with tokens: rather too long, but known after a few answers of a model, though what is expected of it still changes.
func (t table) usual(a Alike) time.Duration {
	at := func(size int) time.Duration {
		if x := t[Alike{a.Model, a.Endpoint, size}]; x != nil {
			return x.usual
		}
		return 0
	}
	for size := a.Size; size <= sizeMax; size++ {
		if d := at(size); d > 0 {
			return d
		}
	}
	for size := a.Size - 1; size >= 0; size-- {
		if d := at(size); d > 0 {
			return d << min(a.Size-size, growMax)
		}
	}
	return 0
}
