package api

import (
	"context"
	"time"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

type explainInput struct {
	ID string `path:"id" maxLength:"256" doc:"The task's id."`
}

type explainOutput struct {
	Body wire.Explanation
}

func (s *Server) explain(ctx context.Context, in *explainInput) (*explainOutput, error) {
	leave, err := s.look(ctx)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	defer leave()
	x, err := s.svc.Explain(ctx, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	if x.Steps == nil {
		x.Steps = []explain.Step{}
	}
	r := x.Record
	return &explainOutput{Body: wire.Explanation{ID: in.ID, State: r.State, Model: r.Model, Priority: r.Spec.PriorityOr(),
		CreatedAt: r.CreatedAt, Now: time.Now().UTC(), Why: x.Why, Events: x.Steps}}, nil
}
