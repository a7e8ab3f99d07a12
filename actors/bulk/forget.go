package bulk

import (
	"context"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	forgetPage  = 256 // lines of a shard that are read for deletion at a time
	forgetBeing = 32  // deleted side by side
)

// Forget deletes a batch whose lines and files are gone. The answer is Forgotten.
type Forget struct {
	Before time.Time `json:"before"` // it ended earlier
}

// Forgotten answers Forget.
type Forgotten struct{}

// mayForget tells why a batch may not be deleted, nil when it may: it ended before a time, all receivers have heard of it, and its files are promised
// for no longer than now.
func (s *State) mayForget(id string, before, now time.Time) error {
	no := func(format string, args ...any) error {
		return fault.New(fault.Conflict, "bulk.delete", id, format, args...)
	}
	switch {
	case !s.Phase.Final():
		return no("its status is %q", s.Phase.Status())
	case !s.EndedAt.Before(before):
		return no("it ended at %v", s.EndedAt)
	case s.Header.OutputExpires > 0 && now.Before(s.EndedAt.Add(s.Header.OutputExpires)):
		return no("its client wants its files until %v", s.EndedAt.Add(s.Header.OutputExpires))
	}
	for _, h := range s.Hooks {
		if !h.Done {
			return no("a webhook is not delivered yet")
		}
	}
	return nil
}

// EndsIn is the time up to which the lines of the batch ended that are in a shard; zero where it has none there.
func (s *State) EndsIn(shard int) (at time.Time) {
	if shard < len(s.Progress.Ends) && s.Progress.Ends[shard] != (Mark{}) {
		at = time.UnixMicro(s.Progress.Ends[shard].Micro)
	}
	return at
}

func forget(c *entity.Context[State, Fact], m Forget) {
	s := c.State()
	if err := s.mayForget(c.ID(), m.Before, c.Now()); err != nil {
		c.Refuse(err)
		return
	}
	c.Erase()
	c.Reply(Forgotten{})
}

// MayForget is nil for a batch that Forget would delete.
func (b *Batches) MayForget(s *State, id string, before time.Time) error {
	return s.mayForget(id, before, b.o.Now())
}

// Forget deletes a batch that ended before a time: first its files, so that nobody reads one that lacks lines, then its lines, then itself. After an error,
// or a crash, it goes on when it is called again. A Conflict says what the batch is still needed for.
func (b *Batches) Forget(ctx context.Context, id string, before time.Time) error {
	s, err := b.Get(ctx, id)
	if err == nil {
		err = b.MayForget(&s, id, before)
	}
	if err != nil {
		return err
	}
	for _, part := range []string{PartOutput, PartErrors} {
		if err := b.o.Files.Forget(ctx, FileID(id, part)); err != nil && fault.KindOf(err) != fault.NotFound {
			return err
		}
	}
	for shard := range b.o.Router.Shards() {
		if err := b.forgetLines(ctx, id, shard); err != nil {
			return err
		}
	}
	_, err = b.o.Router.Ask(ctx, Key(id), Forget{Before: before})
	return err
}

// forgetLines deletes the lines of a batch that are in one shard.
func (b *Batches) forgetLines(ctx context.Context, id string, shard int) error {
	for {
		page, err := b.o.Router.Scan(ctx, shard, task.IndexLine, task.LinePrefix(id), beyond(id), forgetPage)
		if err != nil || len(page.Rows) == 0 {
			return err
		}
		errs := make([]error, len(page.Rows))
		room := make(chan struct{}, forgetBeing)
		var wg sync.WaitGroup
		for i, row := range page.Rows {
			_, number, ok := task.ParseLineKey(row.Key)
			if !ok {
				return fault.New(fault.Corrupt, "bulk.delete", id, "a row of index %s does not decode", task.IndexLine)
			}
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				_, errs[i] = b.o.Router.Ask(ctx, task.Key(LineID(id, number)), &task.Forget{Batch: id})
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil && fault.KindOf(err) != fault.NotFound {
				return err
			}
		}
	}
}

// Old walks the ids of a tenant's batches in one shard that were created before a time, until f returns false.
func Old(scan task.Scan, whose string, before time.Time, f func(id string) bool) error {
	return scan(tenant.Index(IndexAll, whose), task.AllKey(before, ""), nil, func(key, _ []byte) bool {
		_, id, ok := task.ParseTimeKey(key)
		return !ok || f(id)
	})
}

// AnyEnded tells whether a shard's index of a tenant's ended tasks has a row from a key on, up to those that ended at a time.
func (b *Batches) AnyEnded(ctx context.Context, shard int, whose string, from []byte, ended time.Time) (bool, error) {
	page, err := b.o.Router.Scan(ctx, shard, tenant.Index(task.IndexEnded, whose), from, task.EndedBound(ended.Add(time.Microsecond)), 1)
	return len(page.Rows) > 0, err
}
