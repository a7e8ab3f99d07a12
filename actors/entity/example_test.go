package entity_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// A door is a persistent actor with two states, each with a behavior of its own.
// This is all there is to write; the rest of the example only runs it.

type Door struct { // the state: what the events add up to
	Open  bool
	Count int
}

type Moved struct { // the event: what is journaled
	Open bool `json:"open"`
}

type (
	Push  struct{}
	Close struct{}
)

var doors = &entity.Kind[Door, Moved]{
	Name: "door",
	Apply: func(d Door, e Moved) (Door, error) { // pure: recovery folds with it too
		d.Open = e.Open
		if e.Open {
			d.Count++
		}
		return d, nil
	},
	Behave: func(d Door) entity.Behavior[Door, Moved] { // states are data, behaviors are code
		if d.Open {
			return opened
		}
		return closed
	},
	SnapshotEvery: 100,
}

func opened(c *entity.Context[Door, Moved]) {
	switch c.Message().(type) {
	case Push:
		c.Refuse(fault.New(fault.Conflict, "door", c.ID(), "it is open"))
	case Close:
		c.Commit(Moved{Open: false})
		c.Reply("closed")
	}
}

func closed(c *entity.Context[Door, Moved]) {
	if _, ok := c.Message().(Push); ok {
		c.Commit(Moved{Open: true})
		c.ReplyWith(func(d Door) any { return fmt.Sprintf("opened %d times", d.Count) })
	}
}

// A kind of one's own: state, event, Apply, and a behavior for each state. Every answer
// means that the event is durable.
func Example() {
	store := persisttest.NewStore(4) // a node has persistence.Open
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	shards, err := cluster.NewShards(cluster.Options{Store: store, System: system, Kinds: []cluster.Kind{doors.Register()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-shards.Ready()
	front := persistence.Key{Kind: "door", ID: "front"}
	for _, msg := range []any{Push{}, Push{}, Close{}, Push{}} {
		answer, err := shards.Router().Ask(context.Background(), front, msg)
		fmt.Println(answer, err)
	}
	shards.Stop()
	_ = store.Close()
	// Output:
	// opened 1 times <nil>
	// <nil> door front: it is open
	// closed <nil>
	// opened 2 times <nil>
}
