package sink

import (
	"context"
	"errors"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	pollMin      = 200 * time.Millisecond // between two looks for results
	pollMax      = time.Second            // when there are none
	writeWithin  = time.Minute            // one try to write a batch, connecting included
	reportWithin = 10 * time.Second       // what was written is journaled within, or it is written again
)

// tries is how a destination that fails is tried again, for ever.
var tries = backoff.Exponential{Min: 500 * time.Millisecond, Max: time.Minute, Jitter: 0.5}

// driver works for one sink under one epoch.
type driver struct {
	*Options
	name  string
	epoch uint64
	news  chan struct{}

	dest  Destination // nil: not open
	life  string      // of the sink that dest, hand and ahead are of
	hand  *batch      // read, and maybe planned: it need not be read again
	grown time.Time   // since when the batch that is not planned yet has a result; zero: it has none
	ahead
}

// ahead is how far results were looked at that the sink does not want; it is not journaled each time.
type ahead struct {
	cursor string
	of     string // State.Cursor that it is ahead of
	count  int    // results in between
	since  time.Time
}

// destError is trouble of the destination, rather than of this cluster.
type destError struct{ error }

func (e destError) Unwrap() error { return e.error }

// run delivers until the sink does not run any more. Whatever fails is tried again.
func (d *driver) run(ctx context.Context) error {
	defer d.shut()
	failed := 0
	for {
		s, err := d.get(ctx)
		if err == nil {
			if s.Phase != Running {
				return nil
			}
			s, err = d.deliver(ctx, s)
		}
		if err == nil {
			failed = 0
			continue
		}
		var trouble destError
		elsewhere := errors.As(err, &trouble)
		switch kind := fault.KindOf(err); {
		case ctx.Err() != nil || !elsewhere && kind == fault.Conflict:
			return err // somebody else goes on
		case !elsewhere && kind == fault.NotFound:
			return nil // it was deleted
		}
		failed++
		wait := tries.Delay(failed, d.Jitter())
		if elsewhere {
			if d.Failed != nil {
				d.Failed()
			}
			d.shut()
			wait = tries.Delay(s.Tries+1, d.Jitter())
			_, err := d.report(ctx, &s, Fact{Event: FailedTry, Error: task.FailureOf(d.name, trouble.error), Tries: s.Tries + 1})
			if fault.KindOf(err) == fault.Conflict {
				return err
			}
		}
		d.Log.Info("a sink waits", "sink", d.name, "for", wait, "err", err)
		if !d.pause(ctx, wait) {
			return context.Cause(ctx)
		}
	}
}

// deliver writes batch after batch until the sink does not run any more, or something fails; then the state is the newest that is known.
func (d *driver) deliver(ctx context.Context, s State) (State, error) {
	if d.life != s.Life {
		d.shut()
		d.life, d.hand, d.ahead, d.grown = s.Life, nil, ahead{}, time.Time{}
	}
	for poll := pollMin; s.Phase == Running; {
		var said []Fact
		if s.Next != nil {
			if err := d.write(ctx, &s); err != nil {
				return s, err
			}
			said = append(said, Fact{Event: Delivered, Seq: s.Next.Seq, At: d.Now()})
		}
		then, err := s.after(said)
		if err != nil {
			return s, err
		}
		next, wait, gathered := d.plan(ctx, &then)
		if said = append(said, next...); len(said) > 0 {
			if s, err = d.report(ctx, &s, said...); err != nil {
				return s, err
			}
			poll = pollMin
		}
		if gathered != nil {
			return s, gathered
		}
		if wait == 0 {
			if len(said) > 0 {
				continue
			}
			wait = poll
			poll = min(poll*3/2, pollMax)
		}
		changed, ok := d.idle(ctx, wait)
		if !ok {
			return s, context.Cause(ctx)
		}
		if changed {
			return s, nil // run looks at what
		}
	}
	return s, nil
}

// plan looks for the next batch and returns what is to be journaled of it: nothing when there is none yet. wait is how long it grows.
func (d *driver) plan(ctx context.Context, s *State) (facts []Fact, wait time.Duration, err error) {
	from, skipped := s.Cursor, 0
	if d.ahead.of == s.Cursor && d.ahead.cursor != "" {
		from, skipped = d.ahead.cursor, d.ahead.count
	}
	b, err := d.gather(ctx, s.Def, from)
	if err != nil {
		return nil, 0, err
	}
	skipped += b.looked - len(b.items)
	switch {
	case len(b.items) == 0:
		now, since := d.Now(), d.ahead.since
		if d.ahead.of != s.Cursor || since.IsZero() {
			since = now
		}
		if b.upTo != s.Cursor {
			d.ahead = ahead{cursor: b.upTo, of: s.Cursor, count: skipped, since: since}
			if skipped >= skipMax || now.Sub(since) >= skipAfter {
				facts = []Fact{{Event: SkippedOver, Cursor: b.upTo, At: now}}
			}
		}
		return facts, 0, nil
	case !b.full:
		now := d.Now()
		if d.grown.IsZero() {
			d.grown = now
		}
		// Old is what ended long ago, or was seen long ago: the clock that it ended by may be ahead.
		if left := time.Duration(s.Def.Every) - max(now.Sub(b.oldest), now.Sub(d.grown)); left > 0 {
			return nil, left, nil
		}
	}
	d.grown = time.Time{}
	p := &Plan{Seq: s.Seq + 1, UpTo: b.upTo, Rows: len(b.items), Newest: b.newest}
	d.hand, b.seq = b, p.Seq
	return []Fact{{Event: Planned, Plan: p, At: d.Now()}}, 0, nil
}

// write brings the batch that is planned to the destination.
func (d *driver) write(ctx context.Context, s *State) (err error) {
	b := d.hand
	if d.hand = nil; b == nil || b.seq != s.Next.Seq || b.upTo != s.Next.UpTo {
		if b, err = d.gatherAgain(ctx, s); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, writeWithin, fault.New(fault.Timeout, "sink.write", d.name, "the destination did not take a batch in %v", writeWithin))
	defer cancel()
	if d.dest == nil {
		if d.dest, err = d.Open(ctx, s.Def, s.Life); err != nil {
			return destError{err}
		}
	}
	if err := d.dest.Write(ctx, s.Object(b.seq), b.items); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return destError{err}
	}
	return nil
}

// shut closes the destination, if it is open.
func (d *driver) shut() {
	if d.dest != nil {
		if err := d.dest.Close(); err != nil {
			d.Log.Debug("a sink's destination did not close well", "sink", d.name, "err", err)
		}
		d.dest = nil
	}
}

func (d *driver) get(ctx context.Context) (State, error) {
	return state(d.Router.Ask(ctx, Key(d.name), Get{}))
}

// report journals what was done, and returns what is true now. What was written is worth a while: it is reported although ctx ends.
func (d *driver) report(ctx context.Context, s *State, facts ...Fact) (State, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportWithin)
	defer cancel()
	now, err := state(d.Router.Ask(ctx, Key(d.name), Report{Epoch: d.epoch, Life: s.Life, Facts: facts}))
	if err != nil {
		return *s, err
	}
	return now, nil
}

// pause waits; a change of the sink ends it. ok is false when ctx has ended.
func (d *driver) pause(ctx context.Context, wait time.Duration) (ok bool) {
	_, ok = d.idle(ctx, wait)
	return ok
}

func (d *driver) idle(ctx context.Context, wait time.Duration) (changed, ok bool) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false, false
	case <-d.news:
		return true, true
	case <-t.C:
		return false, true
	}
}
