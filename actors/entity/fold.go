package entity

import (
	"encoding/json"
	"fmt"

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
	key := persistence.Key{Kind: k.Name, ID: id}
	l, err := r.Read(key, 0)
	if err != nil {
		return state, 0, fmt.Errorf("entity.load: %w", err)
	}
	if l.SnapSeq > 0 {
		if err := json.Unmarshal(l.Snap, &state); err != nil {
			return state, 0, fault.New(fault.Corrupt, "entity.load", key.String(), "snapshot at %d: %w", l.SnapSeq, err)
		}
	}
	for _, row := range l.Rows {
		es, err := k.decode(row.Data)
		if err != nil {
			return state, 0, fault.New(fault.Corrupt, "entity.load", key.String(), "row %d: %w", row.Seq, err)
		}
		if state, err = k.fold(state, es); err != nil {
			return state, 0, fault.New(fault.Corrupt, "entity.load", key.String(), "row %d: %w", row.Seq, err)
		}
	}
	return state, l.Last, nil
}

// History decodes the events of an entity after a row, with the row of each.
func (k *Kind[S, E]) History(r Reader, id string, after uint64) (events []E, err error) {
	l, err := r.Read(persistence.Key{Kind: k.Name, ID: id}, after)
	if err != nil {
		return nil, fmt.Errorf("entity.history: %w", err)
	}
	for _, row := range l.Rows {
		es, err := k.decode(row.Data)
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

// write turns events into the next state and the write that makes it durable.
func (k *Kind[S, E]) write(key persistence.Key, before S, seq uint64, events []E) (after S, w persistence.Write, err error) {
	if after, err = k.fold(before, events); err != nil {
		return before, w, err
	}
	data, err := k.encode(events)
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
		w.Count = k.Count(before, after)
	}
	if k.SnapshotEvery > 0 && (seq+1)%uint64(k.SnapshotEvery) == 0 {
		state, err := json.Marshal(after)
		if err != nil {
			return before, w, fault.New(fault.Invalid, "entity.commit", key.String(), "snapshot: %w", err)
		}
		w.Snap = &persistence.Snapshot{State: state, Truncate: k.Truncate}
	}
	return after, w, nil
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
	return k.write(persistence.Key{Kind: k.Name, ID: id}, zero, 0, c.events)
}
