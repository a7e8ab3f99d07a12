package actorclient

import (
	"context"
	"iter"
	"time"

	"connectrpc.com/connect"

	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// silenceMax is how long a watched node may say nothing; one that lives says so each 15 s (http.heartbeat).
const silenceMax = 45 * time.Second

// Watch yields the actor's state as it is, and then after each change; changes that come faster than the loop
// takes them are one. Versions only grow. With after above 0, only newer states are yielded. It goes on at another node when one
// goes away. It ends with an error, once: of ctx, of a refusal, or after WithPatience without any node.
func (a *Actor) Watch(ctx context.Context, after uint64) iter.Seq2[State, error] {
	return func(yield func(State, error) bool) {
		w := watch{a: a, last: after, began: after > 0, yield: yield}
		for !w.over {
			// Each round has its patience anew: it ends when a stream that brought something breaks.
			w.heard = false
			err := w.round(ctx)
			switch {
			case w.over:
			case ctx.Err() != nil:
				kind := fault.Timeout
				if ctx.Err() == context.Canceled {
					kind = fault.Refused
				}
				yield(State{}, &fault.Error{Op: "actorclient.watch", Key: a.String(), Kind: kind, Err: context.Cause(ctx)})
				return
			case err != nil && !(w.heard && again(err)):
				yield(State{}, err)
				return
			}
		}
	}
}

// watch is one Watch, over the streams that it takes.
type watch struct {
	a     *Actor
	last  uint64
	began bool // the first state was yielded
	heard bool // the stream under way brought something
	over  bool // the caller has enough
	yield func(State, error) bool
}

// round tries nodes until a stream brought something, and follows it to its end.
func (w *watch) round(ctx context.Context) error {
	c := w.a.c
	at := c.at.Load()
	until := time.Now().Add(c.patience)
	var p pace
	for tries := 1; ; tries++ {
		n := c.nodes[int(at)%len(c.nodes)]
		err := faultOf("actorclient.watch", n.url, w.follow(ctx, n))
		if w.over || w.heard {
			c.at.Store(at + 1) // the next round begins elsewhere
			return err
		}
		if err == nil {
			err = fault.New(fault.Unavailable, "actorclient.watch", n.url, "the stream ended at once")
		}
		if !again(err) {
			return err
		}
		p.hint(err)
		at++
		if ctx.Err() != nil || time.Now().After(until) || tries%len(c.nodes) == 0 && !p.wait(ctx) {
			return err
		}
	}
}

// follow reads one stream to its end.
func (w *watch) follow(ctx context.Context, n node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fault.New(fault.Unavailable, "actorclient.watch", n.url, "nothing was heard for a while")
	alarm := time.AfterFunc(w.a.c.try, func() { cancel(silent) })
	defer alarm.Stop()
	after := w.last
	s, err := n.rpc.Watch(ctx, connect.NewRequest(&actorv1.WatchRequest{Kind: w.a.kind, Id: w.a.id, Raw: true, AfterVersion: after}))
	if err != nil {
		return told(ctx, silent, err)
	}
	defer s.Close()
	for n := 1; s.Receive(); n++ {
		m := s.Msg()
		w.heard = w.heard || !m.Unchanged || n > 1 // the first word may only say that the node is there
		alarm.Stop()                               // the caller may take its time
		if !m.Unchanged && (!w.began || m.Version > w.last) {
			w.began, w.last = true, m.Version
			if !w.yield(State{Version: m.Version, JSON: m.GetBody()}, nil) {
				w.over = true
				return nil
			}
		}
		alarm.Reset(silenceMax)
	}
	return told(ctx, silent, s.Err())
}

// told returns why a stream ended: its own error, unless it was we who gave it up.
func told(ctx context.Context, silent *fault.Error, err error) error {
	if err != nil && context.Cause(ctx) == error(silent) {
		return connect.NewError(connect.CodeUnavailable, silent)
	}
	return err
}
