package mesh

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

var errWriterEnded = errors.New("the connection was given up")

// receive is the gate: every letter of a peer comes here, after the guard. It never blocks.
func (m *Mesh) receive(c actor.Context) {
	l, ok := c.Message().(*wire.Letter)
	if !ok {
		return // Started and the like; the guard lets nothing else in
	}
	m.partialMu.Lock()
	whole, err := m.partial.add(l, time.Now())
	m.partialMu.Unlock()
	if err != nil {
		m.guard.tell(l.From, err) // its sender notices by itself
		return
	}
	if whole == nil {
		return
	}
	if len(whole.ProtoReflect().GetUnknown()) > 0 { // fields that may be ignored, or they would have come as another op
		m.opts.Newer("letter")
	}
	switch whole.Kind {
	case wire.Kind_ANSWER:
		m.calls.answer(whole.Call, whole.From, outcomeOf(whole)) // a late one is for nobody
	case wire.Kind_REQUEST, wire.Kind_NOTICE:
		m.posting.RLock()
		defer m.posting.RUnlock()
		if m.state == running {
			m.serve(whole.From, whole, time.Now().Add(leftOf(whole)))
		}
	default: // of a newer version
		m.opts.Newer("letter")
		m.log.Debug("mesh: a letter of an unknown kind", "peer", whole.From, "kind", int32(whole.Kind), "version", whole.Version)
	}
}

// serve runs the handler of a request on a goroutine of its own and sends its answer. The room that the request takes
// is free again when the answer is on its way: a peer that takes no answers gets no more handlers. The caller holds posting.
func (m *Mesh) serve(from string, l *wire.Letter, deadline time.Time) {
	n := len(l.Body)
	if !m.served.take(from, n) {
		m.refuse(from, l, m.busy())
		return
	}
	give := func() { m.served.give(from, n) }
	m.work.Go(func() {
		ctx, cancel := context.WithDeadline(m.ctx, deadline)
		defer cancel()
		o := m.run(ctx, from, l.Version, requestOf(l))
		if l.Kind == wire.Kind_REQUEST {
			m.links.wait(ctx, from) // a peer that just came back may not have been dialled since
		}
		if l.Kind != wire.Kind_REQUEST || !m.mailed(from, answerLetter(l.Call, o), deadline, give) {
			give()
		}
	})
}

// refuse answers a request that is not served. Not more than noticesMax of these wait: who still asks then has to wait.
func (m *Mesh) refuse(from string, l *wire.Letter, err error) {
	if l.Kind != wire.Kind_REQUEST {
		return
	}
	m.work.Go(func() { // not here: the caller holds posting
		if err := m.mail(from, answerLetter(l.Call, outcome{err: err}), time.Now().Add(leftOf(l)), m.notices); err != nil {
			m.log.Debug("mesh: a refusal was not sent", "peer", from, "error", err)
		}
	})
}

// run calls the handler of a request; a panic is a fault of this request alone.
func (m *Mesh) run(ctx context.Context, from, version string, r *Request) (o outcome) {
	h, _ := m.handler(r.Op)
	if h == nil {
		return outcome{err: m.missing(r.Op, from, version)}
	}
	if r.Trace != "" {
		ctx = trace.With(ctx, trace.Parse(r.Trace))
	}
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("mesh: a handler panicked", "op", r.Op, "key", r.Key, "peer", from, "trace_id", trace.From(ctx).ID(), "panic", p, "stack", string(debug.Stack()))
			o = outcome{err: fault.New(fault.Unknown, "mesh.serve", r.Op, "the handler panicked: %s", clip(fmt.Sprint(p)))}
		}
	}()
	a, err := h(ctx, from, r)
	return outcome{a, err}
}

func (m *Mesh) busy() error {
	return fault.New(fault.Overloaded, "mesh.serve", m.self, "InFlight %d or %d bytes are reached", m.served.countMax, m.served.bytesMax)
}

// leftOf is the time that the sender of a letter gave; no asker waits longer than askMax.
func leftOf(l *wire.Letter) time.Duration {
	if l.LeftMs == 0 || l.LeftMs > uint64(askMax/time.Millisecond) {
		return askMax
	}
	return time.Duration(l.LeftMs) * time.Millisecond
}

// peerBudgets is a budget for each peer, so that a stalled one takes no room from the others. Peers are certified, so
// they are few.
type peerBudgets struct {
	countMax, bytesMax int // of each
	by                 sync.Map
}

func (p *peerBudgets) of(peer string) *budget {
	if b, ok := p.by.Load(peer); ok {
		return b.(*budget)
	}
	b, _ := p.by.LoadOrStore(peer, &budget{countMax: p.countMax, bytesMax: p.bytesMax})
	return b.(*budget)
}

func (p *peerBudgets) take(peer string, n int) bool { return p.of(peer).take(n) }
func (p *peerBudgets) give(peer string, n int)      { p.of(peer).give(n) }
