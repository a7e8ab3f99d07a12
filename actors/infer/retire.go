package infer

import (
	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/actors/batch"
)

// Retire makes an inference actor take no more work, and close Idle when what it had has ended:
//
//	Retire ──► Gone to the batcher, which gives back what it claimed ──► Forgotten: no batch can be on its way any more
//	       ──► what was not sent goes back to its tasks, at no cost of a try; what runs ends ──► Idle
type Retire struct{}

// leave is how far an inference actor is with that. It outlives a restart of the actor.
type leave struct {
	asked     bool
	forgotten bool            // by the batcher
	idle      chan<- struct{} // nil once it was closed, and where nobody waits
}

// goodbye has the batcher forget this engine, again after either of them was restarted.
func (w *Worker) goodbye(c actor.Context) {
	if w.leave.asked {
		w.leave.forgotten = false
		w.Status.set(func(s *EngineState) { s.Draining = true })
		c.Request(w.Batcher, &batch.Gone{Engine: c.Self()})
	}
}

// retire gives back what waits, and tells when nothing is left.
func (w *Worker) retire() {
	w.giveBack("engine " + w.Engine.Name() + " is being removed")
	if w.leave.forgotten && w.inFlight == 0 && w.unacked == 0 {
		w.leave.over()
	}
}

// over tells who waits.
func (l *leave) over() {
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}
