package entity

import (
	"encoding/json"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Outside returns the names of the messages that may come from outside the cluster, and whether the state may be
// seen there.
func (r registered[S, E]) Outside() (messages []string, seen bool) {
	return r.k.Open, r.k.View != nil
}

// Viewer returns a function that folds what was read of a journal, from its start or after the
// version it returned last, and returns what View shows of the state as JSON (nil for version 0 or without a View). It is
// for one goroutine.
func (r registered[S, E]) Viewer(id string) func(persistence.Log) (view []byte, version uint64, err error) {
	var at folded[S]
	return func(l persistence.Log) ([]byte, uint64, error) {
		if r.k.View == nil || l.Last == 0 {
			return nil, l.Last, nil
		}
		next, err := r.k.foldOn(at, id, l)
		if err != nil {
			return nil, 0, err
		}
		at = next
		view, err := json.Marshal(r.k.View(at.state))
		if err != nil {
			return nil, 0, fault.New(fault.Corrupt, "entity.view", r.k.Name+"/"+id, "%w", err)
		}
		return view, at.seq, nil
	}
}
