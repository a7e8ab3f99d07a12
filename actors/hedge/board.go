package hedge

import (
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/task"
)

// Board is what a node's engines run, and how long what is alike took. It is safe for many goroutines; a nil one does nothing.
type Board struct {
	rule Rule
	now  func() time.Time

	mu     sync.Mutex
	runs   map[*task.Work]began
	times  table
	budget float64 // second runs that may begin, earned by first ones; at most budgetMax
}

type began struct {
	at     time.Time
	engine string
	alike  Alike

	refused int       // times that nobody had a slot for a second run
	again   time.Time // when it is tried again; zero: now
}

// A second run that nobody had a slot for is tried again after this, twice as long each time: others that are late have their turn.
const (
	refusedMin = time.Second
	refusedMax = 30 * time.Second
)

// NewBoard returns an empty board; nil for the zero rule.
func NewBoard(r Rule, now func() time.Time) (*Board, error) {
	if r == (Rule{}) {
		return nil, nil
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return &Board{rule: r, now: now, runs: map[*task.Work]began{}, times: table{}, budget: 1}, nil
}

// Began notes that an engine is asked. A tool is none: what it does for one call it would do twice.
func (b *Board) Began(w *task.Work, engine string) {
	if b == nil || w.Record.Lane().Endpoint == task.EndpointTool {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs[w] = began{at: b.now(), engine: engine, alike: AlikeOf(w)}
	switch {
	case w.Visits(): // the node that holds it has spent it
		return
	case w.IsSecond():
		b.budget--
		return
	}
	b.budget = min(budgetMax, b.budget+b.rule.Percent/100)
}

// Ended notes that an engine answered, or not: only what was answered says how long it takes.
func (b *Board) Ended(w *task.Work, answered bool) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.runs[w]
	delete(b.runs, w)
	if !ok || !answered {
		return
	}
	b.times.add(r.alike, b.now().Sub(r.at))
}

// Refused notes that nobody had a slot for a second run that began.
func (b *Board) Refused(w *task.Work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.runs, w)
	b.budget++
	for x, r := range b.runs {
		if x.Ref() == w.Ref() && !x.IsSecond() {
			r.again = b.now().Add(backoff.Exponential{Min: refusedMin, Max: refusedMax}.Delay(r.refused+1, 0))
			r.refused++
			b.runs[x] = r
		}
	}
}

// Late is a run that should have a second one elsewhere.
type Late struct {
	Work   *task.Work
	Engine string // where it is
}

// Late returns those that are, the latest first, and how many of them may have one now.
func (b *Board) Late() (late []Late, budget int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.budget < 1 {
		return nil, 0
	}
	now := b.now()
	var works []*task.Work
	var runs []Run
	for w, r := range b.runs {
		if !r.again.After(now) && w.MaySecond() {
			works = append(works, w)
			runs = append(runs, Run{r.engine, r.at, b.times.usual(r.alike), w.Remaining()})
		}
	}
	for _, i := range b.rule.Late(now, runs) {
		late = append(late, Late{works[i], runs[i].Engine})
	}
	return late, int(b.budget)
}
