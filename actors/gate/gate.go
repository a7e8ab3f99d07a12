package gate

import (
	"context"
	"slices"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Outside is a cluster.Kind that may be open to the outside; those of package entity are.
type Outside interface {
	cluster.Kind
	// Outside returns the names in Types that may be sent from outside, and whether the state may be seen.
	Outside() (messages []string, seen bool)
	// Viewer returns a function that is fed a journal from its start on, and then what was appended since; it returns what
	// is shown of the state, and its version.
	Viewer(id string) func(persistence.Log) (view []byte, version uint64, err error)
}

// Gate lets messages of strangers through to the actors of open kinds, wherever they are. It is safe for many goroutines.
type Gate struct {
	router *cluster.Router
	kinds  map[string]opened
}

// opened is one kind as seen from outside.
type opened struct {
	kind     Outside // nil: closed
	messages []string
}

// State is what is shown of an actor.
type State struct {
	Version uint64 // how many commits made it; 0: there is no such actor
	View    []byte // JSON; nil for version 0, or where the kind shows nothing
}

// New makes a gate to all kinds of a node, closed ones among them. A name that a kind opens but has not registered
// in its Types is Invalid.
func New(router *cluster.Router, kinds ...cluster.Kind) (*Gate, error) {
	g := &Gate{router: router, kinds: map[string]opened{}}
	for _, k := range kinds {
		g.kinds[k.Name()] = opened{}
		o, ok := k.(Outside)
		if !ok {
			continue
		}
		messages, seen := o.Outside()
		for _, m := range messages {
			if !k.Types().Has(m) {
				return nil, fault.New(fault.Invalid, "gate.new", k.Name(), "it opens message %q, which is not in its Types", m).WithRemedy("add it to the kind's Types")
			}
		}
		if len(messages) > 0 || seen {
			g.kinds[k.Name()] = opened{kind: o, messages: messages}
		}
	}
	return g, nil
}

// Ask sends a command and returns the answer.
func (g *Gate) Ask(ctx context.Context, key persistence.Key, c cluster.Command) (cluster.Result, error) {
	if _, err := g.admit(key, &c); err != nil {
		return cluster.Result{}, err
	}
	return g.router.Command(ctx, key, c)
}

// Tell posts a command, which may be lost; its id means nothing.
func (g *Gate) Tell(key persistence.Key, c cluster.Command) error {
	k, err := g.admit(key, &c)
	if err != nil {
		return err
	}
	msg, err := k.Types().Decode(c.Type, c.Body)
	if err != nil {
		return err
	}
	g.router.Tell(key, msg)
	return nil
}

// admit checks a command, and makes one without a body an empty message.
func (g *Gate) admit(key persistence.Key, c *cluster.Command) (Outside, error) {
	o, err := g.open(key)
	if err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	if !slices.Contains(o.messages, c.Type) {
		if c.Type == "" {
			return nil, fault.New(fault.Invalid, "gate.ask", "type", "is missing")
		}
		return nil, fault.New(fault.Refused, "gate.ask", key.String(), "message %q is not open to the outside", c.Type).WithRemedy("open are: %q", o.messages)
	}
	if len(c.Body) == 0 {
		c.Body = []byte("{}")
	}
	return o.kind, o.kind.Types().Check(c.Type, c.Body)
}

func (g *Gate) open(key persistence.Key) (opened, error) {
	o, known := g.kinds[key.Kind]
	switch {
	case !known:
		return o, fault.New(fault.NotFound, "gate.ask", key.Kind, "no kind of this name is registered here")
	case o.kind == nil:
		return o, fault.New(fault.Refused, "gate.ask", key.Kind, "this kind is closed to the outside").WithRemedy("a kind is opened by entity.Kind's Open and View")
	case key.ID == "" || len(key.ID) > persistence.KeyMax:
		return o, fault.New(fault.Invalid, "gate.ask", "id", "has %d bytes: 1 to %d are allowed", len(key.ID), persistence.KeyMax)
	}
	return o, nil
}

// State returns an actor's state, with all that was committed before the call, and does not wake it.
func (g *Gate) State(ctx context.Context, key persistence.Key) (State, error) {
	o, err := g.open(key)
	if err != nil {
		return State{}, err
	}
	return g.read(ctx, key, 0, o.kind.Viewer(key.ID))
}

func (g *Gate) read(ctx context.Context, key persistence.Key, after uint64, view func(persistence.Log) ([]byte, uint64, error)) (s State, err error) {
	l, err := g.router.Read(ctx, key, after)
	if err != nil {
		return s, err
	}
	s.View, s.Version, err = view(l)
	return s, err
}

// A Follower reads one actor's state as it changes. It is for one goroutine.
type Follower struct {
	changed <-chan struct{}
	stop    func()
	next    func(context.Context) (State, error)
}

// Follow watches an actor until Stop.
func (g *Gate) Follow(key persistence.Key) (*Follower, error) {
	o, err := g.open(key)
	if err != nil {
		return nil, err
	}
	view := o.kind.Viewer(key.ID)
	var at uint64
	f := &Follower{next: func(ctx context.Context) (State, error) {
		s, err := g.read(ctx, key, at, view)
		if err == nil {
			at = s.Version
		}
		return s, err
	}}
	f.changed, f.stop = g.router.Watch(key)
	return f, nil
}

// Changed gets a value when the state may have changed, at most one until it is taken.
func (f *Follower) Changed() <-chan struct{} { return f.changed }

// Next reads the state as it is now, not as it was at each change. A Follower that failed once is spent.
func (f *Follower) Next(ctx context.Context) (State, error) { return f.next(ctx) }

// Stop ends it; it is safe to call twice.
func (f *Follower) Stop() { f.stop() }
