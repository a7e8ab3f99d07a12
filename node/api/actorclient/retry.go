package actorclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"connectrpc.com/connect"

	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	waitMin = 50 * time.Millisecond
	waitMax = 2 * time.Second
)

// repeat calls f with one node after the other, starting with the one that answered last, until f succeeds, fails for good, or
// ctx ends. All nodes are tried before it waits.
func (c *Client) repeat(ctx context.Context, op string, f func(context.Context, node) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.patience)
		defer cancel()
	}
	at := c.at.Load()
	var p pace
	for tries := 1; ; tries++ {
		n := c.nodes[int(at)%len(c.nodes)]
		try, cancel := context.WithTimeout(ctx, c.try)
		err := faultOf(op, n.url, f(try, n))
		cancel()
		if err == nil {
			c.at.Store(at)
			return nil
		}
		if ctx.Err() == context.Canceled {
			return &fault.Error{Op: op, Key: n.url, Kind: fault.Refused, Err: context.Cause(ctx)}
		}
		if !again(err) {
			return err
		}
		p.hint(err)
		at++
		if ctx.Err() != nil || tries%len(c.nodes) == 0 && !p.wait(ctx) {
			return err
		}
	}
}

// again tells whether another try, perhaps of another node, may help.
func again(err error) bool {
	kind := fault.KindOf(err)
	return kind.Retryable() && kind != fault.NoSpace // a full disk needs a person
}

// leavesOpen tells whether what a try asked for may have been carried out although it failed, or may be later: a node that is stopped with
// a request in hand goes on with it. A node that was never reached, or says that it has too much to do, does not.
func leavesOpen(err error) bool {
	var way *net.OpError
	if err == nil || errors.As(err, &way) && way.Op == "dial" {
		return false
	}
	switch fault.KindOf(faultOf("", "", err)) {
	case fault.Unavailable, fault.Timeout, fault.Fenced, fault.Malformed:
		return true
	}
	return false
}

// pace spaces the rounds of tries: doubling, with jitter, and as long as a busy cluster asks for.
type pace struct {
	next time.Duration
	busy time.Duration
}

// hint notes how long an overloaded node wants to be left alone. One that is only away is asked again soon.
func (p *pace) hint(err error) {
	var r *retryAfter
	if fault.KindOf(err) == fault.Overloaded && errors.As(err, &r) {
		p.busy = min(max(p.busy, r.d), waitMax)
	}
}

// wait is false when ctx ends before another try.
func (p *pace) wait(ctx context.Context) bool {
	p.next = min(max(2*p.next, waitMin), waitMax)
	t := time.NewTimer(max(p.busy, p.next/2+rand.N(p.next/2+1)))
	p.busy = 0
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryAfter is the text of a refusal, with the time that the node asked for.
type retryAfter struct {
	text string
	d    time.Duration
}

func (r *retryAfter) Error() string { return r.text }

// faultOf turns what connect returns into a fault; nil stays nil.
func faultOf(op, url string, err error) error {
	if err == nil {
		return nil
	}
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return fault.New(fault.Unavailable, op, url, "%w", err)
	}
	f := &fault.Error{Op: op, Key: url, Kind: kindOf(ce), Err: errors.New(ce.Message())}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue // of a newer node
		}
		if told, ok := v.(*actorv1.Fault); ok {
			f.Kind, f.Key = wire.KindNamed(told.Kind), told.Key // its remedy is in the message
			f.Err = &retryAfter{ce.Message(), told.RetryAfter.AsDuration()}
		}
	}
	return f
}

// kindOf classes an error without a Fault: of the connection, or of a proxy.
func kindOf(e *connect.Error) fault.Kind {
	switch e.Code() {
	case connect.CodeDeadlineExceeded:
		return fault.Timeout
	case connect.CodeUnavailable, connect.CodeCanceled: // connect says so of a connection that is reset; who cancels knows it himself
		return fault.Unavailable
	}
	if !connect.IsWireError(e) { // the answer was cut off
		return fault.Unavailable
	}
	switch e.Code() {
	case connect.CodeInvalidArgument:
		return fault.Invalid
	case connect.CodeNotFound, connect.CodeUnimplemented:
		return fault.NotFound
	case connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeAlreadyExists:
		return fault.Conflict
	case connect.CodeResourceExhausted:
		return fault.TooLarge
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return fault.Refused
	}
	return fault.Unknown
}
