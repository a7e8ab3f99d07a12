package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// repeat calls f with the node to ask until it succeeds, fails for good, or has been failing for c.retry. A try gets more
// than its share of that time, extra, for what the node may wait by itself.
func (c *Client) repeat(ctx context.Context, extra time.Duration, f func(ctx context.Context, base string) error) error {
	b := c.newBackoff()
	var telling error // the newest that says more than the last one may
	for {
		d := b.share() + extra
		tctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %v", d.Round(time.Millisecond)))
		err := f(tctx, b.base)
		cut := tctx.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			return nil
		}
		if !cut && (telling == nil || !c.hides(err, telling)) {
			telling = err
		}
		if !b.wait(ctx, err) {
			if telling != nil && (cut || c.hides(err, telling)) {
				return telling
			}
			return err
		}
	}
}

// hides tells whether err, of a node that is not there, says less than what another one answered. Of a single node the newest
// counts.
func (c *Client) hides(err, earlier error) bool {
	var now, then *wire.Problem
	return len(c.servers.bases) > 1 && !errors.As(err, &now) && errors.As(earlier, &then)
}

// backoff spaces the tries of one call. It goes round all servers at once, then waits: doubling, with jitter, and as long
// as the last server asks for.
type backoff struct {
	c     *Client
	base  string // whom the next try asks
	tried int    // servers that failed in this round, < len(servers)
	next  time.Duration
	until time.Time
}

func (c *Client) newBackoff() *backoff {
	b := &backoff{c: c, base: c.servers.current()}
	b.progress()
	return b
}

// progress starts over: the node answers.
func (b *backoff) progress() { b.tried, b.next, b.until = 0, retryFirst, time.Now().Add(b.c.retry) }

// share is the time of the next try: what is left, shared out among the servers that were not asked in this round.
func (b *backoff) share() time.Duration {
	if b.c.retry <= 0 {
		return callMax
	}
	left := time.Until(b.until) / time.Duration(len(b.c.servers.bases)-b.tried)
	return min(max(left, 0), callMax)
}

// wait comes back before another try, which asks base; false when there should be none.
func (b *backoff) wait(ctx context.Context, err error) bool {
	kind := fault.KindOf(err)
	if ctx.Err() != nil || !kind.Retryable() || kind == fault.NoSpace { // a full disk needs a person
		return false
	}
	if kind == fault.Unavailable || kind == fault.Timeout || kind == fault.Overloaded {
		b.base = b.c.servers.leave(b.base)
	}
	if b.tried++; b.tried < len(b.c.servers.bases) {
		return b.c.retry <= 0 || time.Now().Before(b.until)
	}
	b.tried = 0
	if (errors.Is(err, syscall.ECONNREFUSED) || noHost(err)) && !b.c.patient && !b.c.reached.Load() {
		return false
	}
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, retryMax)
	var p *wire.Problem
	if errors.As(err, &p) {
		d = max(d, p.RetryAfter)
	}
	if time.Now().Add(d).After(b.until) {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
