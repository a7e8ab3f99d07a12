package coordinator

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Key is the journal of events, in shard 0.
var Key = persistence.Key{Kind: "coordinator", ID: "events"}

const (
	eventsKept   = 1000 // newest events in the snapshot
	rowsSnapshot = 256  // rows after which the snapshot is made again, and the rows deleted
	eventsRow    = 200  // events of one row; the rest waits for the next one
)

// Event is one thing that the coordinator saw or did.
type Event struct {
	At      time.Time         `json:"at"`
	Epoch   uint64            `json:"epoch"`             // of the coordinator that wrote it
	Kind    string            `json:"kind"`              // coordinator, member, decision, outcome, trouble
	Text    string            `json:"text"`              // for people
	Action  *placement.Action `json:"action,omitempty"`  // of a decision or an outcome
	Outcome string            `json:"outcome,omitempty"` // of an outcome: "done", or the fault
}

// Kinds of events.
const (
	EventCoordinator = "coordinator" // one began
	EventMember      = "member"      // a node joined, restarted, left, died, was wiped, drains
	EventDecision    = "decision"    // an action, before it is carried out
	EventOutcome     = "outcome"     // and what came of it
	EventTrouble     = "trouble"     // what a person should look into
)

// DecodeEvents returns the events of a journal as Read from its beginning, oldest first: at least the newest eventsKept.
func DecodeEvents(l persistence.Log) ([]Event, error) {
	var all []Event
	if len(l.Snap) > 0 {
		if err := json.Unmarshal(l.Snap, &all); err != nil {
			return nil, fault.New(fault.Corrupt, "coordinator.events", Key.String(), "snapshot %d: %w", l.SnapSeq, err)
		}
	}
	for _, r := range l.Rows {
		var some []Event
		if err := json.Unmarshal(r.Data, &some); err != nil {
			return nil, fault.New(fault.Corrupt, "coordinator.events", Key.String(), "row %d: %w", r.Seq, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// done is the Outcome of an action that went well.
const done = "done"

// chronicle writes events to the journal, each row with the sequence that it expects to be the last.
type chronicle struct {
	owner Owner
	seq   uint64  // last row
	rows  int     // since the snapshot
	kept  []Event // newest
}

func (c *chronicle) open() error {
	l, err := c.owner.Read(Key, 0)
	if err != nil {
		return err
	}
	if c.kept, err = DecodeEvents(l); err != nil {
		return err
	}
	c.seq, c.rows = l.Last, len(l.Rows)
	c.trim()
	return nil
}

func (c *chronicle) trim() {
	if n := len(c.kept) - eventsKept; n > 0 {
		c.kept = append([]Event(nil), c.kept[n:]...)
	}
}

// row makes the write for some events. The same call with the same events makes the same write.
func (c *chronicle) row(events []Event) (persistence.Write, error) {
	data, err := json.Marshal(events)
	if err != nil {
		return persistence.Write{}, fmt.Errorf("coordinator.events: %w", err)
	}
	w := persistence.Write{Key: Key, After: c.seq, Data: data}
	if c.rows+1 >= rowsSnapshot {
		all := append(append([]Event(nil), c.kept...), events...)
		state, err := json.Marshal(all[max(0, len(all)-eventsKept):])
		if err != nil {
			return persistence.Write{}, fmt.Errorf("coordinator.events: %w", err)
		}
		w.Snap = &persistence.Snapshot{State: state, Truncate: true}
	}
	return w, nil
}

// wrote notes that a row is durable.
func (c *chronicle) wrote(w persistence.Write, events []Event) {
	c.seq = w.After + 1
	c.kept = append(c.kept, events...)
	c.trim()
	if c.rows++; w.Snap != nil {
		c.rows = 0
	}
}
