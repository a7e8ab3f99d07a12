package far

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A second run of an attempt on another node:
//
//	the node that holds it ── task.second, with the work ──► a node that had room ──► its batcher, or "no room"
//	                       ── again, while it runs ────────►    (whoever stops asking wants it no more)
//	                       ◄── the outcome ────────────────
//
// Which of both runs counts is decided where the attempt is held, and only there is it brought to its task.
const (
	secondHold   = 3 * time.Second  // an ask is answered "it runs" after this
	secondWithin = 6 * time.Second  // and has failed after this
	secondTries  = 3                // asks in a row that fail; then the run counts as lost
	secondPause  = time.Second      // between them, and before a node that had no room is asked for another one
	aloneMax     = 30 * time.Second // a run that nobody asked for is stopped, an outcome that nobody fetched forgotten; > secondTries * (secondPause + secondWithin)
	guestsMax    = 1024             // runs for other nodes
	fullMax      = 1024             // places that are not asked for a moment
)

type secondAsk struct {
	Boot string     `json:"boot"` // of the node that is asked
	Ref  task.Ref   `json:"ref"`
	Work *task.Work `json:"work,omitempty"` // only at first
}

type secondAnswer struct {
	NoRoom     bool          `json:"no_room,omitempty"`
	Running    bool          `json:"running,omitempty"`
	Answer     *task.Answer  `json:"answer,omitempty"`
	Err        *task.Said    `json:"err,omitempty"`         // all that is said of the task: the error of an ask is about the nodes
	RetryAfter time.Duration `json:"retry_after,omitempty"` // as its engine asked
}

// seconds is both sides of them.
type seconds struct {
	mu     sync.Mutex
	over   bool
	guests map[task.Ref]*guest // run here for others
	full   map[place]time.Time // nodes that are not asked before then; those of before are dropped beyond fullMax
}

// place is a node, for what is of one queue: it may have room for another one.
type place struct{ node, queue string }

// guest is one run for another node.
type guest struct {
	done   chan struct{} // closed when the rest is set
	answer task.Answer
	err    error
	timer  *time.Timer // it is alone for too long
}

func (s *seconds) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, g := range s.guests {
		g.timer.Stop()
	}
	clear(s.guests)
}

// pick returns a node of these that may be asked now.
func (s *seconds) pick(nodes []string, queue string, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.full) >= fullMax {
		maps.DeleteFunc(s.full, func(_ place, until time.Time) bool { return !until.After(now) })
	}
	if len(s.full) >= fullMax {
		return ""
	}
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	for _, n := range nodes {
		if p := (place{n, queue}); !s.full[p].After(now) {
			s.full[p] = now.Add(secondPause) // one at a time until it says that it has room
			return n
		}
	}
	return ""
}

// again lets a node be asked for more: it had room.
func (s *seconds) again(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.full, p)
}

// Second runs an attempt that is held here once more, on a node that has room for it, and tells whether one is asked. It does not
// block.
func (f *Far) Second(w *task.Work) bool {
	now := f.Now()
	queue := task.QueueOf(w.Record.Lane()) // which engines serve is the same for all
	boots := able(f.Router.Alive(), f.Router.Self())
	nodes := slices.DeleteFunc(f.crowd.room(queue, now), func(n string) bool { return boots[n] == "" })
	if len(nodes) == 0 { // they ask only nodes that own a shard; they refuse what they have no room for
		nodes = slices.Collect(maps.Keys(boots))
	}
	node := f.seconds.pick(nodes, queue, now)
	if node == "" {
		return false
	}
	boot := boots[node]
	s := w.Second()
	if s == nil { // it has ended meanwhile
		return false
	}
	f.Board.Began(s, node)
	if !f.spawn(func() { f.second(s, place{node, queue}, boot) }) {
		f.Board.Refused(s)
		s.GiveBack("this node is stopping")
		return false
	}
	return true
}

// able returns the nodes that may be asked for second runs, with their processes.
func able(peers []cluster.Peer, self string) map[string]string {
	boots := map[string]string{}
	for _, p := range peers {
		if p.Name != self && p.Engines > 0 && p.Seconds && p.Boot != "" {
			boots[p.Name] = p.Boot
		}
	}
	return boots
}

// bootOf is the process of a node; "" where none lives.
func (f *Far) bootOf(node string) string {
	for _, p := range f.Router.Alive() {
		if p.Name == node {
			return p.Boot
		}
	}
	return ""
}

// second asks a node until it has an outcome.
func (f *Far) second(s *task.Work, at place, boot string) {
	node := at.node
	ctx, cancel := context.WithTimeout(f.ctx, s.Remaining())
	defer cancel()
	s.OnAbort(cancel)
	ask := secondAsk{Boot: boot, Ref: s.Ref(), Work: s.Sent()}
	a, err := f.outcome(ctx, at, &ask)
	if errors.Is(err, task.ErrNotRun) {
		f.Board.Refused(s)
		s.GiveBack("node " + node + " had no slot to spare")
		return
	}
	if err != nil { // it may run still
		if body, bad := encode(heldAsk{Boot: boot, Works: []task.Ref{s.Ref()}}); bad == nil { // it is made of plain fields
			f.Router.TellNode(node, opAbort, body)
		}
	}
	f.Board.Ended(s, false) // what it took has the way to that node in it
	f.Ended(s, a, err, f.ctx.Err() != nil)
	s.Release()
}

// outcome asks until there is one.
func (f *Far) outcome(ctx context.Context, at place, ask *secondAsk) (task.Answer, error) {
	node := at.node
	for tries := 1; ; tries++ {
		var a secondAnswer
		err := f.callIn(ctx, secondWithin, node, opSecond, ask, &a)
		switch {
		case ctx.Err() != nil:
			return task.Answer{}, fault.New(fault.Timeout, "far.second", node, "nobody waits for it any more")
		case err != nil && (!fault.KindOf(err).Retryable() || tries == secondTries || !cluster.Sleep(ctx, secondPause)):
			return task.Answer{}, fault.New(fault.Unavailable, "far.second", node, "the second run is lost: %s", fault.Plain(err))
		case err != nil:
			continue
		case a.NoRoom:
			return task.Answer{}, task.ErrNotRun
		}
		f.seconds.again(at)
		switch {
		case a.Answer != nil:
			return *a.Answer, nil
		case !a.Running:
			return task.Answer{}, cmp.Or(backoff.Asked(a.Err.Err(), a.RetryAfter), error(errForgotten))
		}
		tries, ask.Work = 0, nil
	}
}

// errForgotten is of a node that answers neither.
var errForgotten = fault.New(fault.Unavailable, "far.second", "", "the node does not know of the run any more")

// serveSecond runs an attempt of another node, once however often it is asked, and waits a while for the outcome.
func (f *Far) serveSecond(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var ask secondAsk
	if err := decode(opSecond, body, &ask); err != nil {
		return nil, err
	}
	if ask.Work != nil && (ask.Work.Ref() != ask.Ref || ask.Work.Record.Spec == nil) {
		return nil, fault.New(fault.Invalid, "far.second", ask.Ref.ID, "it names another attempt")
	}
	if ask.Boot != f.bootOf(f.Router.Self()) {
		return nil, fault.New(fault.Unavailable, "far.second", ask.Ref.ID, "it is for another process: node %s has restarted", f.Router.Self())
	}
	g, fresh := f.guest(&ask)
	if g == nil {
		return encode(secondAnswer{NoRoom: ask.Work != nil})
	}
	if fresh {
		ask.Work.Visit(f.Held, func(a task.Answer, err error) {
			g.answer, g.err = a, err
			close(g.done)
		})
		f.Visit(ask.Work)
	}
	t := time.NewTimer(secondHold)
	defer t.Stop()
	select {
	case <-g.done:
	case <-t.C:
		return encode(secondAnswer{Running: true})
	case <-ctx.Done():
		return encode(secondAnswer{Running: true})
	}
	switch {
	case errors.Is(g.err, task.ErrNotRun):
		f.seconds.forget(ask.Ref, g) // it may come again
		return encode(secondAnswer{NoRoom: true})
	case g.err != nil:
		return encode(secondAnswer{Err: task.SaidOf(g.err), RetryAfter: backoff.AskedBy(g.err)})
	}
	return encode(secondAnswer{Answer: &g.answer})
}

// guest returns the run of an ask; fresh: it is to begin. nil: there is none, and there cannot be.
func (f *Far) guest(ask *secondAsk) (g *guest, fresh bool) {
	s := &f.seconds
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.guests[ask.Ref]; g != nil {
		g.timer.Reset(aloneMax)
		return g, false
	}
	if s.over || ask.Work == nil || len(s.guests) >= guestsMax {
		return nil, false
	}
	g = &guest{done: make(chan struct{})}
	g.timer = time.AfterFunc(aloneMax, func() {
		f.Held.Abort([]task.Ref{ask.Ref})
		s.forget(ask.Ref, g)
	})
	s.guests[ask.Ref] = g
	return g, true
}

func (s *seconds) forget(r task.Ref, g *guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.timer.Stop()
	if s.guests[r] == g {
		delete(s.guests, r)
	}
}
