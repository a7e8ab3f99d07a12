package schedule

import (
	"context"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	passWithin = 30 * time.Second // one look at a schedule with all that follows from it; its timer brings the next one
	submitMost = 100              // tasks between two reports
)

// pass does what a schedule has to do now, until there is nothing more. A conflict means that somebody else goes on, or that what was
// seen is old: the timer comes again in both cases.
func (s *Schedules) pass(ctx context.Context, id string, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, passWithin)
	defer cancel()
	for {
		st, version, err := s.kind.Load(cluster.Reader{Context: ctx, Router: s.o.Router}, id)
		if err != nil || !st.exists() {
			return err
		}
		r := Report{Epoch: epoch, Version: version}
		var later error
		if len(st.Pending) > 0 {
			if r.Submitted, later = s.submit(ctx, id, &st); len(r.Submitted) == 0 {
				return later
			}
		} else {
			now, busy := s.o.Now(), false
			if st.asks(now) {
				if busy, err = s.busy(ctx, id, &st); err != nil {
					return err
				}
			}
			if r.Decision = st.decide(now, busy); r.Decision == nil {
				return nil
			}
		}
		if _, err := s.o.Router.Ask(ctx, Key(id), r); err != nil {
			return err
		}
		if later != nil {
			return later
		}
	}
}

// submit makes the tasks that are pending, in their order, and returns those of which it is known what became: an error of theirs is for
// good. Beside them, why it could not go on.
func (s *Schedules) submit(ctx context.Context, id string, st *State) (done []Run, later error) {
	for _, r := range st.Pending[:min(len(st.Pending), submitMost)] {
		err := s.o.Submit(ctx, tenant.Beside(id, r.Task), st.Spec(&r))
		switch kind := fault.KindOf(err); {
		case err == nil:
		case kind == fault.Conflict, kind == fault.Invalid, kind == fault.TooLarge, kind == fault.Refused:
			s.o.Log.Warn("a schedule's task was refused", "schedule", id, "task", r.Task, "err", err)
			r.Error = task.FailureOf(id, err)
		default:
			return done, err
		}
		done = append(done, r)
	}
	return done, nil
}

// busy tells whether the newest task has not ended. One that is not there, because it was refused, has.
func (s *Schedules) busy(ctx context.Context, id string, st *State) (bool, error) {
	last := st.Last()
	if last == nil || last.Error != nil {
		return false, nil
	}
	final, err := s.o.Ended(ctx, tenant.Beside(id, last.Task))
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	return !final, err
}
