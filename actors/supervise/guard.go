package supervise

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// Guard wraps a producer so that a restart which reaches a stopped actor does not bring it back.
// protoactor's restart sets the actor's state whatever it was, so two things can happen, both seen
// in its source (actor_context.go, handleRestart):
//
//	stopping, waits for its children ─restart─► becomes alive when they end, and whoever waits for
//	                                            its end waits for ever
//	stopped ─restart─► a new incarnation that no PID leads to, but that starts to work
//
// Undone means: the new incarnation goes on as the old one, and is stopped once more. The cost is
// one small allocation an actor. The wrapper hides other interfaces of the inner actor: give a
// strategy by Props, not as a method of the actor.
func Guard(producer actor.Producer) actor.Producer {
	late := &sync.Map{} // *PID → *guarded that was restarted after its stop; until its successor takes over
	return func() actor.Actor { return &guarded{inner: producer(), late: late} }
}

type guarded struct {
	inner actor.Actor
	late  *sync.Map
	state life
}

type life uint8

const (
	alive life = iota
	stopping
	stopped // hears nothing any more
)

// Receive hands on everything but what follows a stop.
func (g *guarded) Receive(c actor.Context) {
	switch c.Message().(type) {
	case *actor.Started:
		if old, ok := g.late.LoadAndDelete(c.Self()); ok {
			g.inner, g.state = old.(*guarded).inner, old.(*guarded).state
			return
		}
	case *actor.Stopping:
		if g.state != alive {
			return // the second stop, which undoes a restart
		}
		g.state = stopping
	case *actor.Stopped:
		if g.state == stopped {
			return
		}
		g.state = stopped
		g.late.Delete(c.Self())
	case *actor.Restarting:
		if g.state != alive {
			g.late.Store(c.Self(), g)
			c.Stop(c.Self()) // when it has stopped this reaches nobody, and Started follows at once
			return
		}
	default:
		if g.state == stopped {
			return
		}
	}
	g.inner.Receive(c)
}
