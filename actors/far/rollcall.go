package far

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
)

// Roll remembers which attempts of a shard were seen under way, and since when. It is pure and belongs to one goroutine.
type Roll struct{ seen map[task.Ref]time.Time }

// Suspects takes in the attempts that are under way now, and returns those seen for age already: their works must have
// arrived by now, or never will. Nothing else is remembered.
func (r *Roll) Suspects(rows []task.UnderWay, now time.Time, age time.Duration) (old []task.UnderWay) {
	seen := make(map[task.Ref]time.Time, len(rows))
	for _, row := range rows {
		if row.Boot == "" {
			continue // an older program's: its owner's change took it back
		}
		since, ok := r.seen[row.Ref()]
		if !ok {
			since = now
		}
		seen[row.Ref()] = since
		if ok && now.Sub(since) >= age {
			old = append(old, row)
		}
	}
	r.seen = seen
	return old
}

type heldAsk struct {
	Boot  string     `json:"boot"`
	Works []task.Ref `json:"works"`
}

type heldAnswer struct {
	Missing []task.Ref `json:"missing"`
}

// Missing asks the node of each attempt whether it has it, all nodes side by side, and calls lost with those that it has
// not, one at a time. A node that does not answer may have all. Attempts of processes that are gone are left
// out: they are found by their boot.
func (f *Far) Missing(suspects []task.UnderWay, lost func(row task.UnderWay, node string)) {
	byBoot := map[string][]task.UnderWay{}
	for _, row := range suspects {
		byBoot[row.Boot] = append(byBoot[row.Boot], row)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range f.Router.Alive() {
		if rows := byBoot[p.Boot]; len(rows) > 0 {
			wg.Go(func() { f.missingOn(p, rows, &mu, lost) })
		}
	}
	wg.Wait()
}

// missingOn calls lost, under mu, with the rows that a node does not have.
func (f *Far) missingOn(p cluster.Peer, rows []task.UnderWay, mu *sync.Mutex, lost func(task.UnderWay, string)) {
	for part := range slices.Chunk(rows, heldMax) {
		missing, err := f.missing(p.Name, p.Boot, part)
		if err != nil {
			f.Log.Debug("a node did not say what it holds", "node", p.Name, "err", err)
			return
		}
		mu.Lock()
		for _, row := range missing {
			lost(row, p.Name)
		}
		mu.Unlock()
	}
}

func (f *Far) missing(node, boot string, rows []task.UnderWay) (missing []task.UnderWay, err error) {
	ask := heldAsk{Boot: boot}
	by := map[task.Ref]task.UnderWay{}
	for _, row := range rows {
		ask.Works = append(ask.Works, row.Ref())
		by[row.Ref()] = row
	}
	var a heldAnswer
	if node == f.Router.Self() {
		a.Missing = f.Held.Missing(ask.Works)
	} else if err := f.call(node, opHeld, ask, &a); err != nil {
		return nil, err
	}
	for _, r := range a.Missing {
		if row, ok := by[r]; ok { // nothing else was asked
			missing = append(missing, row)
		}
	}
	return missing, nil
}

// serveHeld says which works this process does not have: all, when an earlier one is meant.
func (f *Far) serveHeld(_ context.Context, _ string, body []byte) ([]byte, error) {
	var ask heldAsk
	if err := decode(opHeld, body, &ask); err != nil {
		return nil, err
	}
	works := ask.Works[:min(len(ask.Works), heldMax)]
	for _, p := range f.Router.Alive() {
		if p.Name == f.Router.Self() && p.Boot == ask.Boot {
			return encode(heldAnswer{f.Held.Missing(works)})
		}
	}
	return encode(heldAnswer{works})
}

// Abort tells the node of an attempt that its task has ended, so that its engine need not go on. It may not arrive; then the answer
// comes, and is dropped.
func (f *Far) Abort(u task.UnderWay) {
	for _, p := range f.Router.Alive() {
		if p.Boot != u.Boot {
			continue
		}
		if p.Name == f.Router.Self() {
			f.spawn(func() { f.Held.Abort([]task.Ref{u.Ref()}) })
		} else if body, err := encode(heldAsk{Boot: u.Boot, Works: []task.Ref{u.Ref()}}); err == nil { // it is made of plain fields
			f.Router.TellNode(p.Name, opAbort, body)
		}
	}
}

func (f *Far) serveAbort(_ context.Context, _ string, body []byte) ([]byte, error) {
	var ask heldAsk
	if err := decode(opAbort, body, &ask); err != nil {
		return nil, err
	}
	f.Held.Abort(ask.Works[:min(len(ask.Works), heldMax)]) // those of an earlier boot are not held
	return nil, nil
}
