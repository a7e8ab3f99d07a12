package hedge

import (
	"sync"
	"time"

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
}

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
	b.runs[w] = began{b.now(), engine, AlikeOf(w)}
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
}

// Late is a run that should have a second one elsewhere.
type Late struct {
	Work   *task.Work
	Engine string // where it is
}

// Late returns those that are, the latest first.
func (b *Board) Late() (late []Late) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var works []*task.Work
	var runs []Run
	for w, r := range b.runs {
		if w.MaySecond() {
			works = append(works, w)
			runs = append(runs, Run{r.engine, r.at, b.times.usual(r.alike), w.Remaining()})
		}
	}
	for _, i := range b.rule.Late(b.now(), runs, b.budget) {
		late = append(late, Late{works[i], runs[i].Engine})
	}
	return late
}
