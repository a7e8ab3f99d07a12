package mesh

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const askMax = 30 * time.Second // of an Ask whose context has no end

// Ask sends a request to a node and waits for the answer: one try. What it returns besides the handler's own fault:
// Unavailable when the node is not known, not reachable or lost meanwhile, Timeout when ctx ends first (after half a minute when
// it has no end), Overloaded when InFlight is reached here or there, Invalid for an op that the node does not know. After
// Unavailable and Timeout the handler may have run all the same.
func (m *Mesh) Ask(ctx context.Context, node string, r *Request) (Answer, error) {
	if err := r.check(); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askMax) // an earlier end stays
	defer cancel()
	if ctx.Err() != nil {
		return Answer{}, late(ctx, node, r)
	}
	if r.ID == "" || r.Trace == "" {
		c := *r
		if c.ID == "" {
			c.ID = uuid.NewString()
		}
		if c.Trace == "" {
			c.Trace = string(trace.From(ctx))
		}
		r = &c
	}
	if node == m.self {
		return m.askSelf(ctx, r)
	}
	if err := m.links.usable(node); err != nil {
		return Answer{}, err
	}
	if !m.asked.take(len(r.Body)) {
		return Answer{}, fault.New(fault.Overloaded, "mesh.ask", node, "InFlight %d or %d bytes are reached", m.asked.countMax, m.asked.bytesMax)
	}
	defer m.asked.give(len(r.Body))
	deadline, _ := ctx.Deadline()
	l := requestLetter(r)
	l.Kind = wire.Kind_REQUEST

	m.posting.RLock()
	if m.state != running {
		m.posting.RUnlock()
		return Answer{}, m.notRunning(node)
	}
	id, call := m.calls.begin(node)
	defer m.calls.end(id)
	l.Call = id
	takeBack := m.post(node, l, deadline, nil)
	m.posting.RUnlock()
	defer takeBack()

	select {
	case o := <-call.done:
		return o.answer, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-call.done: // both at once
		return o.answer, o.err
	default:
		return Answer{}, late(ctx, node, r)
	}
}

// Tell sends a request that wants no answer, and does not wait: it may be lost. An error says that it was not sent.
func (m *Mesh) Tell(node string, r *Request) error {
	if err := r.check(); err != nil {
		return err
	}
	l := requestLetter(r)
	l.Kind = wire.Kind_NOTICE
	deadline := time.Now().Add(noticeAge)
	if node == m.self {
		m.posting.RLock()
		defer m.posting.RUnlock()
		if m.state != running {
			return m.notRunning(node)
		}
		m.serve(m.self, l, deadline)
		return nil
	}
	if err := m.links.usable(node); err != nil {
		return err
	}
	return m.mail(node, l, deadline, m.notices)
}

// Gone tells that a node is known to be dead: what waits for it fails at once, and its connections are given up, so that
// it is dialled anew if it is asked again.
func (m *Mesh) Gone(node string) {
	err := fault.New(fault.Unavailable, "mesh.ask", node, "the node is gone")
	m.links.cut(node, err)
	m.lost(node, err)
}

// askSelf serves a request of this node for itself by the same handler, under the same limits.
func (m *Mesh) askSelf(ctx context.Context, r *Request) (Answer, error) {
	if !m.served.take(m.self, len(r.Body)) {
		return Answer{}, m.busy()
	}
	done := make(chan outcome, 1)
	m.posting.RLock()
	if m.state != running {
		m.posting.RUnlock()
		m.served.give(m.self, len(r.Body))
		return Answer{}, m.notRunning(m.self)
	}
	m.work.Go(func() {
		defer m.served.give(m.self, len(r.Body))
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(m.ctx, func() { cancel(errStopped) })()
		done <- m.run(ctx, m.self, "", r)
	})
	m.posting.RUnlock()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		return Answer{}, late(ctx, m.self, r)
	case <-m.ctx.Done():
		return Answer{}, m.notRunning(m.self)
	}
}

// post gives a letter to protoactor's writer for node, which dials if need be. Until its deadline the letter may be
// taken back. gone is called once, when the letter is sent or taken back. The caller holds posting.
func (m *Mesh) post(node string, l *wire.Letter, deadline time.Time, gone func()) (takeBack func()) {
	l.From, l.Version = m.self, m.opts.Version
	to := actor.NewPID(node, gateID)
	parts := split(l)
	if len(parts) == 1 {
		o := &outgoing{deadline: deadline, gone: gone}
		o.letter.Store(l)
		m.system.Root.Send(to, o)
		return func() { o.take() }
	}
	var left atomic.Int32
	left.Store(int32(len(parts)))
	partGone := func() {
		if left.Add(-1) == 0 && gone != nil {
			gone()
		}
	}
	out := make([]*outgoing, len(parts))
	for i, p := range parts {
		out[i] = &outgoing{deadline: deadline, gone: partGone}
		out[i].letter.Store(p)
		m.system.Root.Send(to, out[i])
	}
	return func() {
		for _, o := range out {
			o.take()
		}
	}
}

// mail posts a letter that nobody waits for: it has room in b until it is sent, or until its deadline.
func (m *Mesh) mail(node string, l *wire.Letter, deadline time.Time, b *budget) error {
	n := len(l.Body)
	if !b.take(n) {
		return fault.New(fault.Overloaded, "mesh.tell", node, "%d letters or %d bytes wait to be sent", b.countMax, b.bytesMax)
	}
	if !m.mailed(node, l, deadline, func() { b.give(n) }) {
		b.give(n)
		return m.notRunning(node)
	}
	return nil
}

// mailed posts a letter and sees to it that gone is called by its deadline at the latest; false: the mesh does not run.
func (m *Mesh) mailed(node string, l *wire.Letter, deadline time.Time, gone func()) bool {
	m.posting.RLock()
	defer m.posting.RUnlock()
	if m.state != running {
		return false
	}
	var sent atomic.Bool
	var timer atomic.Pointer[time.Timer]
	takeBack := m.post(node, l, deadline, func() {
		sent.Store(true)
		if t := timer.Load(); t != nil {
			t.Stop()
		}
		gone()
	})
	t := time.AfterFunc(time.Until(deadline), takeBack)
	timer.Store(t)
	if sent.Load() { // before there was a timer to stop
		t.Stop()
	}
	return true
}

// lost fails what waits for a node.
func (m *Mesh) lost(node string, err error) { m.calls.fail(node, err) }

// writerEnded is protoactor's word that it gave up the writer for a node, with all that was in its queue.
func (m *Mesh) writerEnded(e any) {
	node := e.(*remote.EndpointTerminatedEvent).Address
	why := m.links.ended(node)
	if why == nil {
		why = errWriterEnded
	}
	m.posting.Lock()
	defer m.posting.Unlock()
	m.lost(node, fault.New(fault.Unavailable, "mesh.link", node, "%w", why))
}

func (m *Mesh) notRunning(node string) error {
	return fault.New(fault.Unavailable, "mesh.ask", node, "%w", errStopped)
}

func late(ctx context.Context, node string, r *Request) error {
	return fault.New(fault.Timeout, "mesh.ask", node, "no answer to %s %s: %w", r.Op, r.Key, context.Cause(ctx))
}
