package task

import (
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/cluster"
)

// Ref names one attempt of one task: no two claims of a task share the number.
type Ref struct {
	ID      string `json:"id"`
	Attempt uint32 `json:"attempt"`
}

// Held is the works that a node has in its hands, from their arrival until their outcome is recorded or
// they are given back. Owners ask for it: what is journaled as running here and is not held was
// lost on the way. An entry ends with its lease at the latest. It is safe for many goroutines.
type Held struct {
	mono func() time.Duration

	mu    sync.Mutex
	works map[Ref]*grip // as many as there was credit for
}

// grip is what is held of one attempt: by one run, or by two of which the first answer counts.
type grip struct {
	until  time.Duration // end of the lease by mono
	over   bool          // nobody waits for it any more
	won    *Work         // the run whose answer counts; nil: none has one yet
	runs   []*Work       // those that have not failed, 2 at most
	hands  int           // works not released: len(runs) <= hands <= 2, but for one that won
	second bool          // there is a second run, or was: one for each attempt
	err    error         // of a run that failed, of both the first one's: where the other one is has nothing to do with the task
}

// NewHeld returns an empty set. mono is a clock that nobody sets.
func NewHeld(mono func() time.Duration) *Held {
	return &Held{mono: mono, works: map[Ref]*grip{}}
}

// Missing returns those that are not held.
func (h *Held) Missing(asked []Ref) (missing []Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.mono()
	for _, r := range asked {
		if g := h.works[r]; g == nil || g.until <= now {
			missing = append(missing, r)
		}
	}
	return missing
}

// Prune forgets those whose lease is over: their owners took them back.
func (h *Held) Prune() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.mono()
	for r, g := range h.works {
		if g.until <= now {
			delete(h.works, r)
		}
	}
}

// Abort says that nobody waits for these any more: their tasks have ended. What runs is stopped, what waits for a slot never begins.
func (h *Held) Abort(refs []Ref) {
	for _, r := range refs {
		h.mu.Lock()
		g := h.works[r]
		var stops []func()
		if g != nil {
			g.over, stops = true, g.stops(nil)
		}
		h.mu.Unlock()
		for _, stop := range stops {
			stop()
		}
	}
}

// stops returns what ends all runs but one.
func (g *grip) stops(but *Work) (all []func()) {
	for _, w := range g.runs {
		if w != but && w.stop != nil {
			all = append(all, w.stop)
		}
	}
	return all
}

// Len returns how many are held.
func (h *Held) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.works)
}

// Work is one claimed task on its way to an engine.
type Work struct {
	ID      string        `json:"id"`
	Attempt uint32        `json:"attempt"`
	Epoch   uint64        `json:"epoch"`
	Lease   time.Time     `json:"lease"` // its end by the owner's wall clock, as journaled
	Left    time.Duration `json:"left"`  // of the lease when it was claimed, when it comes from afar as it came; what counts
	Timeout time.Duration `json:"timeout"`
	Record  Record        `json:"record"` // as claimed
	Cost    int           `json:"-"`      // tokens that its tenant is charged while it runs; the batcher's

	router *cluster.Router     // to give it back through; nil: it can only run into its lease
	held   *Held               // nil until it arrived
	ends   time.Duration       // the lease, by held.mono
	grip   *grip               // shared by both runs of an attempt; it and what follows belong to held.mu
	stop   func()              // ends what an engine does for it; nil while none does
	second bool                // see Second
	free   bool                // released
	visit  func(Answer, error) // see Visit; nil: the outcome is its task's. It belongs to nobody, as it never changes
}

// Ref names the attempt.
func (w *Work) Ref() Ref { return Ref{ID: w.ID, Attempt: w.Attempt} }

// Arrive puts the work into the hands of this node: h has it until Release or GiveBack, which goes through r.
func (w *Work) Arrive(r *cluster.Router, h *Held) {
	w.router, w.held, w.ends = r, h, h.mono()+w.Left
	w.grip, w.stop, w.free = &grip{until: w.ends, runs: []*Work{w}, hands: 1}, nil, false
	h.mu.Lock()
	defer h.mu.Unlock()
	h.works[w.Ref()] = w.grip
}

// Remaining returns what is left of the lease, by a clock that nobody sets. Nothing may be.
func (w *Work) Remaining() time.Duration {
	if w.held == nil {
		return w.Left
	}
	return w.ends - w.held.mono()
}

// Release says that the outcome is recorded, or that nobody here works on it any more: its owner learns the
// latter when it asks. It is safe to call twice.
func (w *Work) Release() {
	if w.held == nil {
		return
	}
	w.release()
	w.Tell(Answer{}, errGone)
}

func (w *Work) release() {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	if w.free {
		return
	}
	w.free = true
	w.grip.leave(w)
	if w.grip.hands--; w.grip.hands == 0 && w.held.works[w.Ref()] == w.grip {
		delete(w.held.works, w.Ref())
	}
}

// Over tells that nobody waits for this run of the attempt any more.
func (w *Work) Over() bool {
	if w.held == nil {
		return false
	}
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	return w.grip.overFor(w)
}

func (g *grip) overFor(w *Work) bool { return g.over || g.won != nil && g.won != w }

// OnAbort has stop called when nobody waits for this run any more; at once where that is so already.
func (w *Work) OnAbort(stop func()) {
	if w.held == nil {
		return
	}
	w.held.mu.Lock()
	w.stop = stop
	over := w.grip.overFor(w)
	w.held.mu.Unlock()
	if over {
		stop()
	}
}

// GiveBack hands the attempt back unsent: the task waits again, at no cost of a try, unless it runs elsewhere too, or did and failed. The
// message may be lost on its way to another node; its owner then learns it when it asks what is held.
func (w *Work) GiveBack(reason string) {
	failed, last := w.returned()
	w.Tell(Answer{}, ErrNotRun)
	w.Release()
	switch {
	case !last || w.router == nil:
	case failed != nil:
		w.router.Tell(Key(w.ID), &Lost{Attempt: w.Attempt, Epoch: w.Epoch, Err: failed, RetryAfter: backoff.AskedBy(failed)})
	default:
		w.router.Tell(Key(w.ID), &Return{Attempt: w.Attempt, Epoch: w.Epoch, Reason: reason})
	}
}
