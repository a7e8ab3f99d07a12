package bulk

import (
	"context"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	cancelsMax  = 64              // tasks asked at once
	cancelAgain = 5 * time.Second // those that did not hear are asked again
)

// windDown ends a batch that nobody wants, or whose time is over: which lines are tasks is made sure, those end, and the rest is
// never created.
func (d *driver) windDown(ctx context.Context, s State) (err error) {
	if s.Line < s.Reach {
		if s, err = d.decide(ctx, s); err != nil {
			return err
		}
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	var asked time.Time
	for s.Ended() < s.Exist() {
		if s.Phase == Cancelling && d.Now().Sub(asked) >= cancelAgain {
			if err := d.cancelOpen(ctx, s); err != nil {
				return err
			}
			asked = d.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		next, _, err := d.look(ctx, s.Progress)
		if err != nil {
			return err
		}
		if !next.same(&s.Progress) {
			if s, err = d.progress(ctx, s, next); err != nil {
				return err
			}
		}
		tick.Reset(lookMin)
	}
	return d.finish(ctx, s)
}

// decide makes tasks of the lines that may be some: after that it is known that they are. When the input is gone nobody can make
// one of them any more, and a look tells.
func (d *driver) decide(ctx context.Context, s State) (State, error) {
	open := s
	open.Paused = false
	f := newFlow(&open)
	err := d.feed(ctx, &s, f, s.Reach)
	next := s.Progress
	next.Line, next.Offset, _, _ = f.at()
	if gone(err) {
		var there uint64
		if there, err = d.exist(ctx, next.Line, s.Reach); err == nil {
			next.Missing += s.Reach - next.Line - there
			next.Line = s.Reach
		}
	}
	if err != nil {
		return s, err
	}
	return d.progress(ctx, s, next)
}

// exist counts the lines from one to another that are tasks.
func (d *driver) exist(ctx context.Context, from, to uint64) (n uint64, err error) {
	for ; from < to; from++ {
		_, seq, err := d.Tasks.Load(cluster.Reader{Context: ctx, Router: d.Router}, LineID(d.id, from))
		if err != nil {
			return 0, err
		}
		if seq > 0 {
			n++
		}
	}
	return n, nil
}

// cancelOpen cancels all lines that have not ended.
func (d *driver) cancelOpen(ctx context.Context, s State) error {
	ended, err := d.ended(ctx, s.Reach)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, cancelsMax)
	var mu sync.Mutex
	var last error
	for n := range s.Reach {
		if ended[n/64]&(1<<(n%64)) != 0 {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			_, err := d.Router.Ask(ctx, task.Key(LineID(d.id, n)), &task.Cancel{Reason: "batch_cancelled"})
			switch fault.KindOf(err) {
			case fault.Unknown, fault.Conflict, fault.NotFound: // done; final meanwhile; never created, because the input was gone
				return
			}
			mu.Lock()
			defer mu.Unlock()
			last = err
		})
	}
	wg.Wait()
	if last != nil {
		d.Log.Info("some lines of a batch did not hear that they are cancelled; they are asked again", "batch", d.id, "err", last)
	}
	return ctx.Err()
}

// ended returns a bit for each line that has ended: 125 KB for a million.
func (d *driver) ended(ctx context.Context, lines uint64) ([]uint64, error) {
	bits := make([]uint64, (lines+63)/64)
	for shard := range d.Router.Shards() {
		for from, more := task.LinePrefix(d.id), true; more; {
			page, err := d.Router.Scan(ctx, shard, task.IndexLine, from, beyond(d.id), countPage)
			if err != nil {
				return nil, err
			}
			for _, row := range page.Rows {
				if _, n, ok := task.ParseLineKey(row.Key); ok && n < lines {
					bits[n/64] |= 1 << (n % 64)
				}
			}
			if more = !page.Ended && len(page.Rows) > 0; more {
				from = append(page.Rows[len(page.Rows)-1].Key, 0)
			}
		}
	}
	return bits, nil
}

// finish registers the batch's files as they are for ever, and makes it final.
func (d *driver) finish(ctx context.Context, s State) error {
	rest, err := d.rest(ctx, s)
	if err != nil {
		return err
	}
	s.Rest = rest
	for _, part := range []string{PartOutput, PartErrors} {
		if n := s.Bytes(part); n > 0 {
			if err := d.register(ctx, s, part, n); err != nil {
				return err
			}
		}
	}
	_, err = d.report(ctx, Fact{Event: Finished, Rest: rest, URLs: d.urls(s)}, nil)
	return err
}

// rest measures what will be rendered of the lines that were never created.
func (d *driver) rest(ctx context.Context, s State) (Rest, error) {
	rest := Rest{Lines: s.Total - s.Exist()}
	if s.Reach == s.Total {
		return rest, nil
	}
	in, err := d.Options.openRest(ctx, d.id, &s)
	if err != nil {
		if gone(err) {
			return rest, nil
		}
		return rest, err
	}
	defer in.close()
	for {
		b, err := in.line()
		if err != nil {
			return rest, err
		}
		if b == nil {
			return rest, nil
		}
		rest.Bytes += int64(len(b))
	}
}
