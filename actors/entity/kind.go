package entity

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Kind describes one kind of persistent actor with state S and events E. Name and
// Apply and Behave are needed. All functions but Enter are pure: no clock, no
// socket, no lock. S is passed by value: Apply must not change what an older S
// still refers to.
type Kind[S, E any] struct {
	Name   string                 // stable for ever: it is part of every journal's key
	Apply  func(S, E) (S, error)  // folds one event; an error refuses the whole commit
	Behave func(S) Behavior[S, E] // the behavior of a state; states are data, behaviors are code
	Enter  func(c *Context[S, E]) // after recovery and after each commit: sends and alarms; no Commit here

	Index    func(id string, before, after S) []persistence.Index // rows to put or delete with a commit
	Count    func(id string, before, after S) []persistence.Count // counters to move with a commit
	Timer    func(S) time.Time                                    // wake me with Wake then, also after a crash; zero: never
	Resident func(S) bool                                         // stay awake in this state, also when idle
	Nap      bool                                                 // sleep at once when nothing is left to do; else the shard says when it was idle for long

	SnapshotEvery int  // rows between two snapshots; 0: none
	Truncate      bool // a snapshot also deletes the rows before it: less disk, no history

	EncodeEvents func([]E) ([]byte, error) // default: JSON array
	DecodeEvents func([]byte) ([]E, error)

	// Dedupe is how many commands with an id (cluster.Command) an entity remembers with their answers, in its journal. One that
	// comes again is not carried out again: it gets the answer that the first got. 0: none, messages must be idempotent. Only
	// what commits is remembered; a message that was refused is decided anew.
	Dedupe int

	Open []string    // names in Types of the messages that may come from outside the cluster; none: closed
	View func(S) any // what may be seen of the state outside, as JSON; nil: nothing but the version

	Types *cluster.Types // messages and answers that travel between nodes; nil: the kind is asked on its owner's node only

	Decorate []actor.PropsOption // for protoactor middleware; the slice is read only
	Observer func(Note)          // for metrics and logs; must not block; may be nil
}

// Behavior handles one message in one state.
type Behavior[S, E any] func(c *Context[S, E])

// Wake is the message of a Timer or an Alarm that is due.
type Wake = cluster.Wake

// Note tells what an entity did, for metrics.
type Note struct {
	What  What
	Took  time.Duration // Committed: from the message to durable
	State any           // Committed: the S that it led to
	Err   error         // Refused, Crashed
}

// What an entity did.
type What string

const (
	Activated What = "activated" // an incarnation woke up
	Stopped   What = "stopped"   // it went to sleep or was stopped; one for each Activated
	Committed What = "committed"
	Rejected  What = "rejected" // a message was refused, or a commit failed
	Crashed   What = "crashed"
	Erased    What = "erased"
	Skipped   What = "skipped" // a kind's own DecodeEvents met an event of a newer program that says it may be skipped
)

func (k *Kind[S, E]) encode(es []E) (b []byte, err error) {
	if k.EncodeEvents == nil {
		return json.Marshal(es)
	}
	if b, err = k.EncodeEvents(es); err == nil && bytes.HasPrefix(b, []byte(rememberedMark)) {
		err = fault.New(fault.Invalid, "entity.encode", k.Name, "events must not begin with %q", rememberedMark)
	}
	return b, err
}

// decode returns the events of a row, and the command that they came of, if it is remembered.
func (k *Kind[S, E]) decode(row []byte) (es []E, r remembered, err error) {
	b, err := unmark(row, &r)
	switch {
	case err != nil:
	case k.DecodeEvents != nil:
		es, err = k.DecodeEvents(b)
	default:
		err = json.Unmarshal(b, &es)
	}
	return es, r, err
}

func (k *Kind[S, E]) note(n Note) {
	if k.Observer != nil {
		k.Observer(n)
	}
}

// Register makes the kind known to cluster.Shards.
func (k *Kind[S, E]) Register() cluster.Kind { return registered[S, E]{k} }

type registered[S, E any] struct{ k *Kind[S, E] }

func (r registered[S, E]) Name() string { return r.k.Name }

func (r registered[S, E]) Types() *cluster.Types { return r.k.Types }

func (r registered[S, E]) Props(o *cluster.Owner, id string) *actor.Props {
	opts := append([]actor.PropsOption{actor.WithDispatcher(cluster.Dispatcher)}, r.k.Decorate...)
	seen := new(uint64) // props belong to one actor; its incarnations share the count
	return actor.PropsFromProducer(func() actor.Actor {
		return &incarnation[S, E]{kind: r.k, o: o, key: persistence.Key{Kind: r.k.Name, ID: id}, seen: seen}
	}, opts...)
}
