package node

import (
	"context"

	"github.com/open-autoglm/autoglm/actors/schedule"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// openSchedules lets schedules be driven: the node has begun to own their shards.
func (n *Node) openSchedules() {
	s := n.svc
	n.schedules.Attach(schedule.Options{Router: n.sys.Router, Submit: s.submitScheduled, Ended: s.isFinal, Check: s.checkScheduled})
}

// submitScheduled makes a schedule's task. What it asks for was judged with the schedule; an engine that is away at night is waited for.
func (s *service) submitScheduled(ctx context.Context, id string, spec *task.Spec) error {
	m := &task.Submit{Spec: spec, Model: spec.ModelOr(s.defaultModel)}
	if err := m.Validate(); err != nil {
		return err
	}
	_, w, err := s.sys.Tasks.First(id, m, s.now)
	if err != nil {
		return err
	}
	whose, fresh, bytes := tenant.Of(id), 0, spec.Bytes()
	if err := s.sys.Quota.Admit(ctx, whose, spec.PriorityOr(), 1, bytes); err != nil { // it is tried again
		return err
	}
	defer func() { s.sys.Quota.Settled(whose, 1, fresh, bytes, fresh*bytes) }()
	if err = s.sys.Router.Create(ctx, []persistence.Write{w})[0]; err == nil {
		fresh = 1
	}
	if fault.KindOf(err) == fault.Conflict { // it is there, from a try before, or it is another one
		_, err = s.sys.Router.Ask(ctx, task.Key(id), m)
	}
	return err
}

// isFinal tells whether a task is final.
func (s *service) isFinal(ctx context.Context, id string) (bool, error) {
	r, seq, err := s.sys.Tasks.Load(cluster.Reader{Context: ctx, Router: s.sys.Router}, id)
	if err == nil && seq == 0 {
		err = fault.New(fault.NotFound, "task", id, "no such task")
	}
	return r.State.Final(), err
}

// checkScheduled refuses a schedule whose tasks could only fail.
func (s *service) checkScheduled(ctx context.Context, spec *task.Spec) error {
	if spec.RetryOf != "" {
		return fault.New(fault.Invalid, "schedule.create", "task.retry_of", "is for one task").WithRemedy("leave it out")
	}
	if err := s.allRead(spec); err != nil {
		return err
	}
	if d := spec.LongestTimeout(); d > s.timeoutMax {
		return fault.New(fault.Invalid, "schedule.create", "task.timeout", "is %v, more than this node's task.timeout_max", d).WithRemedy("use at most %v", s.timeoutMax)
	}
	if spec.DataURL != "" && s.admit != nil && s.cluster == "" {
		if err := s.admit(spec.DataURL); err != nil {
			return err
		}
	}
	if err := spec.MayRead(tenant.From(ctx)); err != nil {
		return err
	}
	return s.checker(ctx).task(spec.ModelOr(s.defaultModel), spec)
}
