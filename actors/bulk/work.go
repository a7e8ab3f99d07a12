package bulk

import (
	"context"
	"time"

	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/tenant"
)

const (
	lookMin     = 100 * time.Millisecond // between two looks at what ended
	lookMax     = time.Second            // when nothing does
	commitEvery = 250 * time.Millisecond // of progress, when nobody waits for it
)

// work feeds the batch's lines and counts their ends until all have, its time is over, or somebody wants something else.
func (d *driver) work(ctx context.Context, s State) error {
	f := newFlow(&s)
	feeding, stop := context.WithCancel(ctx)
	fed := make(chan error, 1)
	go func() { fed <- d.feed(feeding, &s, f, s.Total) }() // s.Header, s.Total and s.ExpiresAt do not change
	defer func() {
		stop()
		if fed != nil {
			<-fed
		}
	}()
	tick := time.NewTimer(0)
	defer tick.Stop()
	look, committed := lookMin, time.Time{}
	for now := s; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-fed:
			if fed = nil; err != nil {
				return d.unfed(ctx, now, f, err)
			}
		case <-d.news:
			news, err := d.get(ctx)
			if err != nil {
				return err
			}
			f.update(&news)
			now.Phase, now.Paused, now.Priority = news.Phase, news.Paused, news.Priority
			if now.Phase == InProgress && !now.Paused {
				continue
			}
		case <-tick.C:
		}
		if now.Phase == InProgress && !d.Now().Before(now.ExpiresAt) {
			news, err := d.report(ctx, Fact{Event: TimedOut}, nil)
			if err != nil {
				return err
			}
			now.Phase = news.Phase
		}
		next, more, err := d.look(ctx, now.Progress)
		if err != nil {
			return err
		}
		ending := now.Phase != InProgress
		if ending && fed != nil {
			stop()
			<-fed
			fed = nil
		}
		line, offset, tried, starved := f.at()
		next.Line, next.Offset = line, offset
		if ending || now.Paused && !starved {
			next.Reach = max(tried, line)
		} else {
			next.Reach = max(now.Reach, reach(line, next.Ended(), now.Total, d.Window))
		}
		done := next.Ended() == now.Total
		news := !next.same(&now.Progress)
		urgent := ending || done || starved && next.Reach > now.Reach
		if news && (urgent || d.Now().Sub(committed) >= commitEvery) {
			if now, err = d.progress(ctx, now, next); err != nil {
				return err
			}
			f.update(&now)
			committed = d.Now()
		}
		switch {
		case now.Phase != InProgress || !now.busy():
			return nil
		case done && now.Ended() == now.Total:
			_, err := d.report(ctx, Fact{Event: Drained}, nil)
			return err
		case more:
			look = 0
		case news:
			look = lookMin
		default:
			look = min(max(look*5/4, lookMin), lookMax)
		}
		tick.Reset(look)
	}
}

// unfed says why no more lines can be created: the input is gone, or it is worth another try.
func (d *driver) unfed(ctx context.Context, s State, f *flow, err error) error {
	if !gone(err) {
		return err
	}
	next := s.Progress
	next.Line, next.Offset, next.Reach, _ = f.at()
	if !next.same(&s.Progress) {
		if _, err := d.progress(ctx, s, next); err != nil {
			return err
		}
	}
	_, err = d.report(ctx, Fact{Event: CancelAsked, Errors: inputGone(err)}, nil)
	return err
}

// progress journals how far the lines are, and before that gives the files a name that now have their first line.
func (d *driver) progress(ctx context.Context, s State, next Progress) (State, error) {
	for part, first := range map[string]bool{PartOutput: s.OutputBytes == 0 && next.OutputBytes > 0, PartErrors: s.ErrorBytes == 0 && next.ErrorBytes > 0} {
		if first {
			if err := d.register(ctx, s, part, 0); err != nil {
				return s, err
			}
		}
	}
	return d.report(ctx, Fact{Event: Progressed, Progress: &next}, &s.Progress)
}

// register makes a part a file, or says how long it is in the end.
func (d *driver) register(ctx context.Context, s State, part string, bytes int64) error {
	in := file.Info{ID: FileID(d.id, part), Filename: tenant.Bare(d.id) + "_" + part + ".jsonl", Purpose: file.PurposeOutput, Bytes: bytes,
		CreatedAt: d.Now().UTC().Truncate(time.Microsecond), Of: &file.Output{Batch: d.id, Part: part}}
	if s.Header.OutputExpires > 0 {
		in.ExpiresAt = in.CreatedAt.Add(s.Header.OutputExpires)
	}
	return d.Files.Register(ctx, in)
}
