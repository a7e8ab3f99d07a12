package node

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	completeFirst = task.Priority(0)       // priority of a task that somebody waits for
	cancelWithin  = 10 * time.Second       // for the task of a client that went away
	lookAgain     = 250 * time.Millisecond // after a look at a task whose shard had no owner for a moment
)

// Complete submits a request as a task and waits for its end. When ctx ends first, a task without an id of the
// caller's is cancelled: nobody can ask for it again. One with an id goes on, for the caller comes back with it.
func (s *service) Complete(ctx context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error) {
	first := completeFirst
	spec := &task.Spec{ID: id, Endpoint: endpoint, Request: body, Priority: &first}
	res := s.Submit(ctx, []*task.Spec{spec})[0]
	var r *task.Record
	err := res.Err
	if err == nil {
		r, err = s.ended(ctx, res.ID)
	}
	if err != nil && id == "" && ctx.Err() != nil { // also of a submit: it may have come through
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelWithin)
		defer cancel()
		if _, cerr := s.Cancel(late, res.ID, "its client went away"); cerr != nil && fault.KindOf(cerr).Retryable() {
			return nil, cerr // it may go on; the other kinds say that it is not there, or has ended
		}
	}
	return r, err
}

// ended returns the task once it is final. That it cannot be read for a moment, as while its shard's owner changes, does
// not end the wait: the task goes on, and a caller that gave up would ask for a second one.
func (s *service) ended(ctx context.Context, id string) (*task.Record, error) {
	changed, stop, err := s.Watch(ctx, id)
	if err != nil {
		return nil, err
	}
	defer stop()
	for {
		r, err := s.Get(ctx, id)
		var again <-chan time.Time
		switch {
		case err == nil && r.State.Final():
			return r, nil
		case err != nil && ctx.Err() == nil && !fault.KindOf(err).Retryable():
			return nil, err
		case err != nil:
			again = time.After(lookAgain)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "node.complete", id, "the wait was given up: %w", context.Cause(ctx))
		}
	}
}

// ServedModels returns the names that engines of the cluster serve. What stands for any of them is no model, but where there is no other name.
func (s *service) ServedModels(ctx context.Context) []string {
	names := append(s.servedHere(), s.elsewhere.of(ctx, s)...).models(s.defaultModel)
	if len(names) > 1 {
		names = slices.DeleteFunc(names, func(name string) bool { return name == task.AnyModel })
	}
	return names
}
