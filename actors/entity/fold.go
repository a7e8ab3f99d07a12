package entity

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Reader is where Load finds a journal: a *cluster.Owner, or a persistence.Journal.
type Reader interface {
	Read(key persistence.Key, after uint64) (persistence.Log, error)
}

// Load folds an entity's journal without waking it. A journal that does not exist
// gives the zero state and sequence 0.
func (k *Kind[S, E]) Load(r Reader, id string) (state S, seq uint64, err error) {
	f, err := k.load(r, id)
	return f.state, f.seq, err
}

// Fold is Load of a journal that was read already, from its start.
func (k *Kind[S, E]) Fold(id string, l persistence.Log) (state S, seq uint64, err error) {
	f, err := k.foldOn(folded[S]{}, id, l)
	return f.state, f.seq, err
}

// folded is what a journal adds up to.
type folded[S any] struct {
	state S
	seq   uint64
	past  []remembered // commands, oldest first; at most Kind.Dedupe
}

func (k *Kind[S, E]) load(r Reader, id string) (f folded[S], err error) {
	l, err := r.Read(persistence.Key{Kind: k.Name, ID: id}, 0)
	if err != nil {
		return f, fmt.Errorf("entity.load: %w", err)
	}
	return k.foldOn(f, id, l)
}

// foldOn adds what was read after f.seq. On an error f stays as it was, but for what past shares.
func (k *Kind[S, E]) foldOn(f folded[S], id string, l persistence.Log) (folded[S], error) {
	key := persistence.Key{Kind: k.Name, ID: id}
	corrupt := func(what string, seq uint64, err error) (folded[S], error) {
		kind := fault.Corrupt
		if fault.KindOf(err) == fault.Unavailable { // the bytes are good: a newer program can read them
			kind = fault.Unavailable
		}
		return folded[S]{}, fault.New(kind, "entity.load", key.String(), "%s %d: %w", what, seq, err)
	}
	if l.SnapSeq > f.seq {
		f = folded[S]{}
		state, err := unmark(l.Snap, &f.past)
		if err == nil {
			err = json.Unmarshal(state, &f.state)
		}
		if err != nil {
			return corrupt("snapshot at", l.SnapSeq, err)
		}
		f.past = f.past[max(0, len(f.past)-max(0, k.Dedupe)):] // the kind may have remembered more then
	}
	for _, row := range l.Rows {
		es, r, err := k.decode(row.Data)
		if err != nil {
			return corrupt("row", row.Seq, err)
		}
		if f.state, err = k.fold(f.state, es); err != nil {
			return corrupt("row", row.Seq, err)
		}
		if r.ID != "" {
			f.past = keep(f.past, r, k.Dedupe)
		}
	}
	f.seq = l.Last
	return f, nil
}

// History decodes the events of an entity after a row, with the row of each.
func (k *Kind[S, E]) History(r Reader, id string, after uint64) (events []E, err error) {
	l, err := r.Read(persistence.Key{Kind: k.Name, ID: id}, after)
	if err != nil {
		return nil, fmt.Errorf("entity.history: %w", err)
	}
	for _, row := range l.Rows {
		es, _, err := k.decode(row.Data)
		if err != nil {
			return nil, fault.New(fault.Corrupt, "entity.history", id, "row %d: %w", row.Seq, err)
		}
		events = append(events, es...)
	}
	return events, nil
}

func (k *Kind[S, E]) fold(s S, es []E) (S, error) {
	var err error
	for _, e := range es {
		if s, err = k.Apply(s, e); err != nil {
			return s, err
		}
	}
	return s, nil
}

// write turns events into the next state and the write that makes it durable. done, when it is not nil, makes what is to
// be remembered of the command out of the next state.
func (k *Kind[S, E]) write(key persistence.Key, f folded[S], events []E, done func(after S) (*remembered, error)) (after S, w persistence.Write, err error) {
	before, seq := f.state, f.seq
	if after, err = k.fold(before, events); err != nil {
		return before, w, err
	}
	data, err := k.encode(events)
	var r *remembered
	if err == nil && done != nil {
		if r, err = done(after); err != nil {
			return before, w, err
		}
		data, err = mark(r, data)
	}
	if err != nil {
		return before, w, fault.New(fault.Invalid, "entity.commit", key.String(), "events: %w", err)
	}
	w = persistence.Write{Key: key, After: seq, Data: data}
	if k.Index != nil {
		w.Index = k.Index(key.ID, before, after)
	}
	if k.Timer != nil {
		old, next := k.Timer(before), k.Timer(after)
		if !old.Equal(next) {
			if !old.IsZero() {
				w.Index = append(w.Index, cluster.TimerRow(key, old, true))
			}
			if !next.IsZero() {
				w.Index = append(w.Index, cluster.TimerRow(key, next, false))
			}
		}
	}
	if k.Count != nil {
		w.Count = k.Count(key.ID, before, after)
	}
	if k.SnapshotEvery > 0 && (seq+1)%uint64(k.SnapshotEvery) == 0 {
		past := f.past
		if r != nil {
			past = keep(slices.Clone(past), *r, k.Dedupe)
		}
		state, err := json.Marshal(after)
		if err == nil && len(past) > 0 {
			state, err = mark(past, state)
		}
		if err != nil {
			return before, w, fault.New(fault.Invalid, "entity.commit", key.String(), "snapshot: %w", err)
		}
		w.Snap = &persistence.Snapshot{State: state, Truncate: k.Truncate}
	}
	return after, w, nil
}

// erasing is the write that ends an entity. cut is for a journal that is too much for one write to erase: it leaves the zero state
// as a snapshot, in place of all rows, and the one without cut comes next.
func (k *Kind[S, E]) erasing(key persistence.Key, f folded[S], cut bool) (w persistence.Write, err error) {
	var none S
	w = persistence.Write{Key: key, After: f.seq, Data: []byte("erased"), Erase: !cut}
	if cut {
		state, err := json.Marshal(none)
		if err != nil {
			return w, fault.New(fault.Invalid, "entity.erase", key.String(), "snapshot: %w", err)
		}
		w.Snap = &persistence.Snapshot{State: state, Truncate: true}
	}
	if k.Index != nil {
		w.Index = k.Index(key.ID, f.state, none)
	}
	if k.Timer != nil {
		if old := k.Timer(f.state); !old.IsZero() {
			w.Index = append(w.Index, cluster.TimerRow(key, old, true))
		}
	}
	if k.Count != nil {
		w.Count = k.Count(key.ID, f.state, none)
	}
	return w, nil
}

// First decides a message on an entity that does not exist yet, without an actor:
// the write for cluster.Router.Create, and the state it leads to. A behavior that
// refuses gives its error; one that commits nothing gives an empty Write.
func (k *Kind[S, E]) First(id string, msg any, now Clock) (after S, w persistence.Write, err error) {
	var zero S
	c := &Context[S, E]{kind: k, state: zero, id: id, clock: now, env: &cluster.Envelope{Msg: msg, Reply: func(_ any, e error) { err = e }}}
	k.Behave(zero)(c)
	if c.refused != nil {
		return zero, w, c.refused
	}
	if len(c.events) == 0 {
		return zero, w, err
	}
	return k.write(persistence.Key{Kind: k.Name, ID: id}, folded[S]{}, c.events, nil)
}
