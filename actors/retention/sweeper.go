package retention

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	stepMax    = 512              // index rows read at a time
	askedMax   = 32               // actors asked to go at once, so that requests find room beside them
	askWithin  = 30 * time.Second // one of them
	batchFor   = time.Hour        // deleting one batch; the next pass goes on
	sweepEvery = time.Minute      // between two passes
)

// Keep says how long what has ended is kept; 0 is for ever.
type Keep struct {
	Tasks   time.Duration // after a task ended
	Batches time.Duration // after a batch ended: it, its lines, its output and error file
	Files   time.Duration // after a file was uploaded
	Audit   time.Duration // after an entry began
}

// Router is what a Sweeper needs of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
}

// Options of a Sweeper. All are needed but Deleted.
type Options struct {
	Keep    Keep
	Router  Router
	Owners  func() []*cluster.Owner                      // of the shards owned here
	Tenants func(ctx context.Context) ([]string, error)  // all that may have something, the default one too
	Marks   func(ctx context.Context) ([]Mark, error)    // of all sinks, wherever they are
	Batches *bulk.Batches                                //
	Delete  func(ctx context.Context, file string) error // a file that nothing needs; a Conflict when a batch does
	Deleted func(what string, n int)                     // for metrics; may be nil
	Log     *slog.Logger
}

// Sweeper deletes what is kept for long enough in the shards that this node owns.
type Sweeper struct {
	Options

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	said string // the newest trouble that was logged; of the goroutine of Start

	mu     sync.Mutex       // held during a pass
	floors map[place][]byte // where the next pass begins: nothing before it is to be asked again
}

// place is an index of a tenant in a shard, under one owner.
type place struct {
	owner *cluster.Owner
	whose string
}

// New returns a sweeper. Start lets it work by itself.
func New(o Options) *Sweeper {
	s := &Sweeper{Options: o, floors: map[place][]byte{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Start makes a pass now and then, until Stop. Where everything is kept for ever there is nothing to do.
func (s *Sweeper) Start() {
	if s.Keep == (Keep{}) {
		return
	}
	s.wg.Go(func() {
		t := time.NewTicker(sweepEvery)
		defer t.Stop()
		for {
			select {
			case <-s.ctx.Done():
				return
			case <-t.C:
			}
			s.say(s.Sweep(s.ctx))
		}
	})
}

// Stop ends a pass under way and returns when it has. It is safe to call twice.
func (s *Sweeper) Stop() {
	s.cancel()
	s.wg.Wait()
}

// say logs what kept a pass from its end, once for each text.
func (s *Sweeper) say(err error) {
	text := ""
	if err != nil && s.ctx.Err() == nil {
		text = err.Error()
	}
	if text != "" && text != s.said {
		s.Log.Warn("not all that is kept for long enough could be deleted; it is tried again", "every", sweepEvery, "err", err)
	}
	s.said = text
}

// Sweep makes one pass over all shards owned here. An error is of those that it could not do; the others are done.
func (s *Sweeper) Sweep(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tenants, err := s.Tenants(ctx)
	if err != nil {
		return err
	}
	marks, err := s.Marks(ctx)
	if err != nil {
		return err
	}
	floors := map[place][]byte{}
	var errs []error
	for _, o := range s.Owners() {
		if err := o.MayErase(); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, whose := range tenants {
			p := place{o, whose}
			errs = append(errs, s.tasks(ctx, p, marks, floors), s.batches(ctx, p, marks), s.files(ctx, p))
		}
		errs = append(errs, s.audit(ctx, o))
	}
	s.floors = floors
	return errors.Join(errs...)
}

// tasks deletes final tasks, oldest first.
func (s *Sweeper) tasks(ctx context.Context, p place, marks []Mark, floors map[place][]byte) error {
	if s.Keep.Tasks == 0 {
		return nil
	}
	to := until(p.owner.Now().Add(-s.Keep.Tasks), marks, p.whose, p.owner.Shard())
	from := s.floors[p] // what is before is gone, or a line
	floor := []byte(nil)
	for {
		keys, err := scan(p.owner, tenant.Index(task.IndexEnded, p.whose), from, to)
		if err != nil || len(keys) == 0 {
			if floor == nil {
				floor = from
			}
			floors[p] = floor
			return err
		}
		verdicts, err := s.ask(ctx, "task", keys, func(ctx context.Context, key []byte) error {
			id, ended, ok := candidate(key)
			if !ok {
				return errSkipped
			}
			_, err := s.Router.Ask(ctx, task.Key(id), &task.Forget{Ended: ended})
			return err
		})
		for i, v := range verdicts {
			if v != gone && floor == nil {
				floor = keys[i]
			}
		}
		if err != nil {
			floors[p] = floor
			return err
		}
		from = after(keys[len(keys)-1])
	}
}

// errSkipped is for what is nobody's to delete here; it is not counted.
var errSkipped = fault.New(fault.NotFound, "retention", "", "it goes with something else")

// ask asks for each key, some side by side, and tells what came of it; an error is one of those that ends the pass.
func (s *Sweeper) ask(ctx context.Context, what string, keys [][]byte, f func(ctx context.Context, key []byte) error) ([]verdict, error) {
	verdicts, errs := make([]verdict, len(keys)), make([]error, len(keys))
	room := make(chan struct{}, askedMax)
	var wg sync.WaitGroup
	for i, key := range keys {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(ctx, askWithin)
			defer cancel()
			errs[i] = f(ctx, key)
			verdicts[i] = judge(errs[i])
		})
	}
	wg.Wait()
	n, end := 0, error(nil)
	for i, v := range verdicts {
		switch {
		case errs[i] == nil:
			n++
		case v == later:
			end = errs[i]
		}
	}
	if s.Deleted != nil && n > 0 {
		s.Deleted(what, n)
	}
	return verdicts, end
}

// batches deletes final batches with all that is theirs. There are far fewer of them than tasks, so each is looked at in each pass.
func (s *Sweeper) batches(ctx context.Context, p place, marks []Mark) error {
	if s.Keep.Batches == 0 {
		return nil
	}
	before := p.owner.Now().Add(-s.Keep.Batches)
	var ids []string
	if err := bulk.Old(p.owner.Scan, p.whose, before, func(id string) bool { ids = append(ids, id); return true }); err != nil {
		return err
	}
	for _, id := range ids {
		err := s.batch(ctx, id, before, marks)
		if judge(err) == later {
			return err
		}
		if err == nil && s.Deleted != nil {
			s.Deleted("batch", 1)
		}
	}
	return nil
}

func (s *Sweeper) batch(ctx context.Context, id string, before time.Time, marks []Mark) error {
	ctx, cancel := context.WithTimeout(ctx, batchFor)
	defer cancel()
	st, err := s.Batches.Get(ctx, id)
	if err == nil {
		err = s.Batches.MayForget(&st, id, before)
	}
	if err != nil {
		return err
	}
	behind, err := s.behind(ctx, id, &st, marks)
	if err == nil && behind {
		err = fault.New(fault.Conflict, "retention.batch", id, "a sink has not written all of its lines")
	}
	if err != nil {
		return err
	}
	return s.Batches.Forget(ctx, id, before)
}

// behind tells whether a sink of the batch's tenant has not written all of its lines.
func (s *Sweeper) behind(ctx context.Context, id string, st *bulk.State, marks []Mark) (bool, error) {
	whose := tenant.Of(id)
	for _, m := range marks {
		if m.Tenant != whose {
			continue
		}
		for shard := range st.Progress.Ends {
			ended := st.EndsIn(shard)
			if ended.IsZero() {
				continue
			}
			from := []byte{}
			if last := m.Last[shard]; last != nil {
				from = after(last)
			}
			waits, err := s.Batches.AnyEnded(ctx, shard, whose, from, ended)
			if err != nil || waits {
				return waits, err
			}
		}
	}
	return false, nil
}

// files deletes files, oldest first. What a batch renders goes with that.
func (s *Sweeper) files(ctx context.Context, p place) error {
	if s.Keep.Files == 0 {
		return nil
	}
	var ids [][]byte
	err := file.Old(p.owner.Scan, p.whose, p.owner.Now().Add(-s.Keep.Files), func(in file.Info) bool {
		if in.Of == nil {
			ids = append(ids, []byte(in.ID))
		}
		return true
	})
	if err != nil {
		return err
	}
	_, err = s.ask(ctx, "file", ids, func(ctx context.Context, id []byte) error { return s.Delete(ctx, string(id)) })
	return err
}

// audit deletes entries of the audit log.
func (s *Sweeper) audit(ctx context.Context, o *cluster.Owner) error {
	if s.Keep.Audit == 0 {
		return nil
	}
	before := o.Now().Add(-s.Keep.Audit)
	for from := task.AllKey(before, ""); ; {
		keys, err := scan(o, audit.IndexAll, from, nil)
		if err != nil || len(keys) == 0 {
			return err
		}
		if _, err = s.ask(ctx, "audit", keys, func(ctx context.Context, key []byte) error {
			_, id, ok := task.ParseTimeKey(key)
			if !ok {
				return errSkipped
			}
			_, err := s.Router.Ask(ctx, persistence.Key{Kind: audit.KindName, ID: id}, audit.Forget{Before: before})
			return err
		}); err != nil {
			return err
		}
		from = after(keys[len(keys)-1])
	}
}

// scan reads the next keys of an index of a shard.
func scan(o *cluster.Owner, index string, from, to []byte) (keys [][]byte, err error) {
	err = o.Scan(index, from, to, func(key, _ []byte) bool {
		keys = append(keys, bytes.Clone(key))
		return len(keys) < stepMax
	})
	return keys, err
}
