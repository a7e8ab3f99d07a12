package mesh

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/remote"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
)

var errTooLate = errors.New("nobody waits for it any more")

// outgoing is a letter in the queue of protoactor's writer for its node. That queue has no bound and cannot be looked
// into, so the letter can be taken back: what is left then in the queue of a slow or dead peer are a few words, not a body.
type outgoing struct {
	letter   atomic.Pointer[wire.Letter] // nil: sent or taken back
	deadline time.Time
	gone     func() // called once, when letter becomes nil; may be nil
}

// take returns the letter to its one taker.
func (o *outgoing) take() *wire.Letter {
	l := o.letter.Swap(nil)
	if l != nil && o.gone != nil {
		o.gone()
	}
	return l
}

// Serialize is called by protoactor's writer when the letter's turn has come; an error skips the letter.
func (o *outgoing) Serialize() (remote.RootSerialized, error) {
	now := time.Now()
	l := o.take()
	if l == nil || !now.Before(o.deadline) {
		return nil, errTooLate
	}
	if l.Kind != wire.Kind_ANSWER && l.Part == 0 {
		l.LeftMs = left(o.deadline, now) // the time in the queue counts
	}
	return sealed{l}, nil
}

// IgnoreDeadLetterLogging keeps a lost letter out of protoactor's log: mesh tells of the lost link instead.
func (o *outgoing) IgnoreDeadLetterLogging() {}

// sealed is a letter as protoactor wants it, whose RootSerialized has a way back that only a receiver would need.
type sealed struct{ *wire.Letter }

// Deserialize is never called: what arrives is a *wire.Letter.
func (sealed) Deserialize() (remote.RootSerializable, error) { return nil, errTooLate }
