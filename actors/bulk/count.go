package bulk

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	countPage   = 2048            // ends read from a shard at a time
	countShards = 8               // asked side by side
	countWithin = 2 * time.Second // a shard that does not answer is left for the next look
)

const (
	recountMin = 5 * time.Second // without an end, while there are lines that have not ended: then all is counted again
	recountMax = 5 * time.Minute // of what that grows to while it finds nothing: engines may be slow
)

// look is count, and now and then a recount. An end may have been put into its index behind what was counted: by a node of the
// version before, that was stopped between reading its clock and adding the append, for longer than Page.Complete allows for.
func (d *driver) look(ctx context.Context, p Progress) (next Progress, more bool, err error) {
	if next, more, err = d.count(ctx, p); err != nil {
		return p, false, err
	}
	now := d.Now()
	if next.Ended() > p.Ended() || d.quiet.IsZero() || next.Ended() == next.Exist() {
		d.quiet, d.patience = now, recountMin
		return next, more, nil
	}
	if now.Sub(d.quiet) < d.patience {
		return next, more, nil
	}
	if err = d.recount(ctx, &next); err != nil {
		return p, false, err
	}
	if next.Ended() > p.Ended() {
		d.Log.Info("ends of a batch's lines turned up late, and are counted now", "batch", d.id, "lines", next.Ended()-p.Ended())
		d.quiet, d.patience = now, recountMin
	} else {
		d.quiet, d.patience = now, min(2*d.patience, recountMax)
	}
	return next, more, nil
}

// recount adds up all rows up to the marks, from their start.
func (d *driver) recount(ctx context.Context, p *Progress) error {
	var t Tally
	for shard, mark := range p.Ends {
		if mark == (Mark{}) {
			continue
		}
		for from, more := task.LinePrefix(d.id), true; more; {
			page, err := d.Router.Scan(ctx, shard, task.IndexLineEnd, from, mark.after(d.id), countPage)
			if err != nil {
				return err
			}
			for _, row := range page.Rows {
				r, ok := task.ParseLineRow(row.Value)
				if !ok {
					return fault.New(fault.Corrupt, "bulk.count", "", "a row of index %s does not decode", task.IndexLineEnd)
				}
				t.one(r)
				from = append(row.Key, 0)
			}
			more = !page.Ended && len(page.Rows) > 0
		}
	}
	p.Tally = t
	return nil
}

// count adds to p the lines that ended since, as far as nothing can turn up before them any more. more tells that there were more
// than one look could take.
func (d *driver) count(ctx context.Context, p Progress) (next Progress, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, countWithin)
	defer cancel()
	p.Ends = slices.Grow(slices.Clone(p.Ends), d.Router.Shards()-len(p.Ends))[:d.Router.Shards()]
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		slots = make(chan struct{}, countShards)
		fails int
	)
	for shard := range p.Ends {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			from := p.Ends[shard].after(d.id)
			page, e := d.Router.Scan(ctx, shard, task.IndexLineEnd, from, beyond(d.id), countPage)
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				err = e
				fails++
				return
			}
			mark, tally, all, e := tallyOf(page, p.Ends[shard])
			if e != nil {
				err = e
				fails = len(p.Ends)
				return
			}
			p.Ends[shard] = mark
			p.add(tally)
			more = more || all && !page.Ended
		})
	}
	wg.Wait()
	if fails < len(p.Ends) { // the others are counted; this one will be
		err = nil
	}
	return p, more, err
}

// tallyOf adds up the rows of a page that are settled, and returns the last one of them. all tells that all of them are.
func tallyOf(page cluster.Page, mark Mark) (_ Mark, t Tally, all bool, err error) {
	complete := page.Complete()
	for _, row := range page.Rows {
		_, ended, number, ok := task.ParseLineEndKey(row.Key)
		r, ok2 := task.ParseLineRow(row.Value)
		if !ok || !ok2 {
			return mark, t, false, fault.New(fault.Corrupt, "bulk.count", "", "a row of index %s does not decode", task.IndexLineEnd)
		}
		if !ended.Before(complete) {
			return mark, t, false, nil
		}
		mark = Mark{Micro: ended.UnixMicro(), Number: number}
		t.one(r)
	}
	return mark, t, true, nil
}

// after is the first key of a batch's ends behind a mark.
func (m Mark) after(batch string) []byte {
	if m == (Mark{}) {
		return task.LinePrefix(batch)
	}
	return append(task.LineEndKey(batch, time.UnixMicro(m.Micro), m.Number), 0)
}

// beyond is the first key behind all of a batch's lines: ids have no byte below 1.
func beyond(batch string) []byte { return append([]byte(batch), 1) }

func (t *Tally) one(r task.LineRow) {
	if r.Failed {
		t.Failed++
		t.ErrorBytes += int64(r.Size)
	} else {
		t.Completed++
		t.OutputBytes += int64(r.Size)
	}
	t.PromptTokens += int64(r.PromptTokens)
	t.OutputTokens += int64(r.OutputTokens)
}

func (t *Tally) add(o Tally) {
	t.Completed += o.Completed
	t.Failed += o.Failed
	t.OutputBytes += o.OutputBytes
	t.ErrorBytes += o.ErrorBytes
	t.PromptTokens += o.PromptTokens
	t.OutputTokens += o.OutputTokens
}
