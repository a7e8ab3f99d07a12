package mesh

import (
	"context"
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// stream wraps the stream of one of protoactor's writers, to know when it is up, when it ends and why, and to end it: when
// the greeting is not answered or a batch not taken in time, or when the node is known to be gone.
//
// A writer that cannot connect sleeps for two seconds, with all it is given meanwhile lost and nobody told. So it never
// hears of that: it is told that it is connected, and then, when the node has been left alone for a while, that the
// connection ended. That it reports at once.
type stream struct {
	grpc.ClientStream // nil: there is none
	links             *links
	node              string
	ctx               context.Context
	timer             *time.Timer // cancels the stream

	// Written before the greeting is answered, that is before the writer sends letters and reads on in another goroutine.
	greeted bool
	up      bool          // the greeting was answered
	down    error         // or why not
	pause   time.Duration // then
}

func (s *links) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	st := &stream{links: s, node: cc.Target(), ctx: ctx}
	st.timer = time.AfterFunc(connectMax, func() { cancel(errors.New("it takes nothing")) })
	s.mu.Lock()
	s.of(st.node).cancel[st] = cancel
	s.mu.Unlock()
	cs, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		st.unreachable(err)
		return st, nil
	}
	st.ClientStream = cs
	return st, nil
}

// SendMsg blocks while the peer takes nothing, but not for ever. Before the greeting is answered the timer of the whole
// connecting runs.
func (st *stream) SendMsg(m any) error {
	switch {
	case st.down != nil:
		return nil // the writer is about to end; who waits for an answer to m is told by then
	case st.up:
		st.timer.Reset(sendMax)
		defer st.timer.Stop()
		return st.ClientStream.SendMsg(m)
	}
	if err := st.ClientStream.SendMsg(m); err != nil {
		if e := st.ClientStream.RecvMsg(&remote.RemoteMessage{}); e != nil {
			err = e // SendMsg says only that the stream ended, RecvMsg why
		}
		st.unreachable(err)
	}
	return nil
}

// RecvMsg is called for the answer to the greeting first, and then by one goroutine until the stream ends.
func (st *stream) RecvMsg(m any) error {
	if st.greeted {
		return st.ended(m)
	}
	st.greeted = true
	if st.down == nil {
		err := st.ClientStream.RecvMsg(m)
		if err == nil {
			st.connected()
			return nil
		}
		st.unreachable(err)
	}
	answer, ok := m.(*remote.RemoteMessage)
	if !ok {
		return st.down
	}
	answer.MessageType = &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{}}
	return nil
}

// ended reads until the stream ends, and returns why it did. One that never was ends after its pause.
func (st *stream) ended(m any) error {
	err := st.down
	if err == nil {
		if err = st.ClientStream.RecvMsg(m); err == nil {
			return nil
		}
		err = st.why(err)
	} else {
		t := time.NewTimer(st.pause)
		select {
		case <-t.C:
		case <-st.ctx.Done():
		}
		t.Stop()
	}
	st.timer.Stop()
	l := st.links
	l.mu.Lock()
	k := l.of(st.node)
	if cancel := k.cancel[st]; cancel != nil {
		delete(k.cancel, st)
		defer cancel(err)
	}
	if st.up && k.up {
		k.up, k.why = false, err
	}
	l.mu.Unlock()
	if st.up && !errors.Is(err, errStopped) {
		// no warning: this is what every restart of a node looks like, and one that cannot be reached again is warned of
		l.log.Info("mesh: a connection ended", "node", st.node, "error", err)
		l.lost(st.node, fault.New(fault.Unavailable, "mesh.link", st.node, "the connection ended: %w", err))
	}
	return err
}

// CloseSend is called by a writer that ends.
func (st *stream) CloseSend() error {
	if st.ClientStream == nil {
		return nil
	}
	return st.ClientStream.CloseSend()
}

// connected notes that the greeting was answered.
func (st *stream) connected() {
	st.timer.Stop()
	st.up = true
	l := st.links
	l.mu.Lock()
	k := l.of(st.node)
	k.up, k.why, k.cause, k.failures = true, nil, nil, 0
	addr := k.addr
	l.mu.Unlock()
	l.log.Info("mesh: connected", "node", st.node, "addr", addr)
}

// unreachable notes that there will be no stream.
func (st *stream) unreachable(err error) {
	st.timer.Stop()
	st.down = st.why(err)
	st.pause = st.links.fail(st.node, st.down)
}

// why prefers our reason to end a stream to gRPC's "canceled".
func (st *stream) why(err error) error {
	if cause := context.Cause(st.ctx); cause != nil {
		return cause
	}
	return err
}
