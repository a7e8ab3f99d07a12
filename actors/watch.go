package actors

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/far"
	"github.com/open-autoglm/autoglm/actors/task"
)

const (
	reconcileEvery = 10 * time.Second // default of Options.Reconcile
	rollAge        = 2 * time.Second  // an attempt that is journaled for so long has arrived at its node, or never will
)

// watch is the looks at what the observers cannot tell: counters that disagree, attempts that were lost on
// their way, attempts of nodes that died.
type watch struct {
	fresh chan struct{} // a shard opened; holds one
	peers chan struct{} // somebody came or went; holds one
	quit  chan struct{}
	once  *sync.Once
	wg    *sync.WaitGroup
}

func newWatch() watch {
	return watch{fresh: make(chan struct{}, 1), peers: make(chan struct{}, 1), quit: make(chan struct{}), once: &sync.Once{}, wg: &sync.WaitGroup{}}
}

func (w *watch) opened() { kick(w.fresh) }

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// stop lets no new look begin; wg waits for those under way. It is safe to call twice.
func (w *watch) stop() { w.once.Do(func() { close(w.quit) }) }

// PeersChanged says that nodes came or went: attempts on those that went are taken back at once, at no cost of a
// try. It does not block, and calls that follow closely are merged.
func (s *System) PeersChanged() { kick(s.watch.peers) }

// look is the net below the observers; see task.Queue.Reconcile and far.Roll.
func (s *System) look() {
	every := s.opt.Reconcile
	if every == 0 {
		every = reconcileEvery
	}
	age := min(rollAge, every)
	t := time.NewTicker(every)
	defer t.Stop()
	soon := time.NewTimer(age)
	defer soon.Stop()
	rolls := map[*task.Queue]*far.Roll{}
	for {
		select {
		case <-s.watch.quit:
			return
		case <-s.watch.fresh: // now for what is under way, and once more when that must have arrived
			s.rollCall(rolls, age)
			soon.Reset(age)
		case <-soon.C:
			s.rollCall(rolls, age)
		case <-t.C:
			s.reconcile()
			s.rollCall(rolls, age)
		}
	}
}

// lookAtPeers takes back what dead nodes had. It waits for nobody, unlike a roll call.
func (s *System) lookAtPeers() {
	for {
		select {
		case <-s.watch.quit:
			return
		case <-s.watch.peers:
			s.takeBack()
		}
	}
}

func (s *System) reconcile() {
	for _, q := range s.openQueues() {
		if err := q.Reconcile(); err != nil {
			s.opt.Log.Warn("a queue could not be compared with its counters", "shard", q.Shard(), "err", err)
		}
	}
}

// takeBack wakes the tasks whose attempts run nowhere any more; they decide.
func (s *System) takeBack() {
	alive := map[string]bool{}
	for _, p := range s.Router.Alive() {
		alive[p.Boot] = true
	}
	for _, q := range s.openQueues() {
		err := q.UnderWay(func(r task.UnderWay) {
			if r.Boot != "" && !alive[r.Boot] {
				q.Wake(r.ID)
			}
		})
		if err != nil {
			s.opt.Log.Warn("attempts of nodes that are gone could not be looked for", "shard", q.Shard(), "err", err)
		}
	}
}

// rollCall asks the nodes whether they have what is journaled as under way there. What they have not was lost
// with the answer to a claim, or with the owner that granted it, or with the engine that ran it.
func (s *System) rollCall(rolls map[*task.Queue]*far.Roll, age time.Duration) {
	s.held.Prune()
	of := map[string]*task.Queue{} // by id of a suspect
	var suspects []task.UnderWay
	open := s.openQueues()
	for _, q := range open {
		if rolls[q] == nil {
			rolls[q] = &far.Roll{}
		}
		var rows []task.UnderWay
		if err := q.UnderWay(func(r task.UnderWay) { rows = append(rows, r) }); err != nil {
			s.opt.Log.Warn("the roll cannot be called", "shard", q.Shard(), "err", err)
			continue
		}
		for _, r := range rolls[q].Suspects(rows, s.opt.Now(), age) {
			of[r.ID] = q
			suspects = append(suspects, r)
		}
	}
	maps.DeleteFunc(rolls, func(q *task.Queue, _ *far.Roll) bool { return !slices.Contains(open, q) })
	s.far.Missing(suspects, func(row task.UnderWay, node string) {
		s.opt.Log.Info("an attempt is not on its node: its task waits again", "task", row.ID, "attempt", row.Attempt, "node", node)
		of[row.ID].Return(row, "node "+node+" does not have it")
	})
}
