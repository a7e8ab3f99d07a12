package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Sinks is what the routes of sinks need of the node; *sink.Sinks is one.
type Sinks interface {
	Create(ctx context.Context, d sink.Definition) (sink.State, error)
	Get(ctx context.Context, name string) (sink.State, error)
	List(ctx context.Context, whose string) ([]sink.Owned, error)
	Say(ctx context.Context, name string, msg any) (sink.State, error)

	// Waiting returns when the oldest result ended that a sink wants and does not have; zero: it has all.
	Waiting(ctx context.Context, s *sink.State) (time.Time, error)
}

// sinkRoutes registers /v1/sinks. A sink carries every result of a tenant out of the cluster, to where nodes may write and with their
// passwords: so only the operator may change one.
func (s *Server) sinkRoutes(api huma.API) {
	admin := huma.Middlewares{s.localOnly}
	const only = " For the operator; on a node that is open, only from its own machine."
	huma.Register(api, huma.Operation{OperationID: "create-sink", Method: "POST", Path: "/v1/sinks", Tags: []string{"sinks"}, DefaultStatus: http.StatusCreated,
		Summary: "Create a sink", Description: "Results are written to its destination, each once, from then on. The same definition again is harmless." + only,
		Middlewares: admin, Errors: []int{403, 409, 422, 429, 503}}, s.createSink)
	huma.Register(api, huma.Operation{OperationID: "list-sinks", Method: "GET", Path: "/v1/sinks", Tags: []string{"sinks"},
		Summary: "List sinks", Description: "Of all tenants, or of one.", Errors: []int{422, 503}}, s.listSinks)
	huma.Register(api, huma.Operation{OperationID: "get-sink", Method: "GET", Path: "/v1/sinks/{name}", Tags: []string{"sinks"},
		Summary: "Get a sink and how far it is", Errors: []int{404, 503}}, s.getSink)
	huma.Register(api, huma.Operation{OperationID: "delete-sink", Method: "DELETE", Path: "/v1/sinks/{name}", Tags: []string{"sinks"}, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a sink", Description: "What it has written stays. Its name may be used again." + only, Middlewares: admin, Errors: []int{403, 404, 503}}, s.deleteSink)
	for verb, d := range map[string]struct {
		msg  any
		text string
	}{"pause": {sink.Pause{}, "Nothing is written until it is resumed."}, "resume": {sink.Resume{}, "It goes on where it was, or at once with what failed."}} {
		huma.Register(api, huma.Operation{OperationID: verb + "-sink", Method: "POST", Path: "/v1/sinks/{name}/" + verb, Tags: []string{"sinks"},
			Summary: map[string]string{"pause": "Pause a sink", "resume": "Let a sink go on"}[verb], Description: d.text + only, Middlewares: admin, Errors: []int{403, 404, 503}},
			func(ctx context.Context, in *sinkInput) (*sinkOutput, error) {
				return s.saySink(ctx, "sink."+verb, in, d.msg)
			})
	}
}

type sinkInput struct {
	Name   string `path:"name" maxLength:"63" doc:"The sink's name."`
	Tenant string `query:"tenant" doc:"Whose results it takes; yours when empty."`
}

type createSinkInput struct {
	Tenant string `query:"tenant" doc:"Whose results it takes; yours when empty."`
	Body   sink.Definition
}

type listSinksInput struct {
	Tenant string `query:"tenant" doc:"Only those of this tenant."`
}

// onBehalf is the context of a tenant whose sinks the operator looks after.
func onBehalf(ctx context.Context, name string) (context.Context, error) {
	if name == "" {
		return ctx, nil
	}
	return tenant.With(ctx, name), tenant.Check(name)
}

// changeSink does something to a tenant's sink, and keeps that it was done.
func (s *Server) changeSink(ctx context.Context, act, whose, name string, do func(context.Context) error) error {
	own, err := onBehalf(ctx, whose)
	if err != nil {
		return err
	}
	return s.audited(ctx, act, name, tenant.From(own), "", func() error { return do(own) })
}

// tenantThere refuses a tenant that nobody made: the name is probably misspelt, and nothing would ever come.
func (s *Server) tenantThere(ctx context.Context, name string) error {
	if name == "" || name == tenant.Default || s.access.Keys == nil {
		return nil
	}
	if err := tenant.Check(name); err != nil {
		return err
	}
	keys, _, err := s.access.Keys.List(ctx, name, "", 1)
	if err == nil && len(keys) == 0 {
		err = fault.New(fault.NotFound, "api.tenant", name, "there is no such tenant: it never had a key").WithRemedy("check its name (autoglm key list), or make it with its first key: autoglm key create NAME --tenant %s", name)
	}
	return err
}

type sinkOutput struct {
	Body wire.Sink
}

type sinksOutput struct {
	Body wire.Sinks
}

func (s *Server) createSink(ctx context.Context, in *createSinkInput) (*sinkOutput, error) {
	var st sink.State
	err := s.rolled()
	if err == nil {
		err = s.tenantThere(ctx, in.Tenant)
	}
	if err == nil {
		err = s.changeSink(ctx, "sink.create", in.Tenant, in.Body.Name, func(ctx context.Context) (err error) {
			st, err = s.sinks.Create(ctx, in.Body)
			return err
		})
	}
	return s.shown(ctx, in.Tenant, st, err)
}

func (s *Server) getSink(ctx context.Context, in *sinkInput) (*sinkOutput, error) {
	own, err := onBehalf(ctx, in.Tenant)
	var st sink.State
	if err == nil {
		st, err = s.sinks.Get(own, in.Name)
	}
	return s.shown(ctx, in.Tenant, st, err)
}

func (s *Server) saySink(ctx context.Context, act string, in *sinkInput, msg any) (*sinkOutput, error) {
	var st sink.State
	err := s.changeSink(ctx, act, in.Tenant, in.Name, func(ctx context.Context) (err error) {
		st, err = s.sinks.Say(ctx, in.Name, msg)
		return err
	})
	return s.shown(ctx, in.Tenant, st, err)
}

func (s *Server) deleteSink(ctx context.Context, in *sinkInput) (*struct{}, error) {
	err := s.changeSink(ctx, "sink.delete", in.Tenant, in.Name, func(ctx context.Context) error {
		_, err := s.sinks.Say(ctx, in.Name, sink.Delete{})
		return err
	})
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return nil, nil
}

func (s *Server) listSinks(ctx context.Context, in *listSinksInput) (*sinksOutput, error) {
	_, err := onBehalf(ctx, in.Tenant)
	var all []sink.Owned
	if err == nil {
		all, err = s.sinks.List(ctx, in.Tenant)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &sinksOutput{Body: wire.Sinks{Sinks: []wire.Sink{}}}
	for i := range all {
		v, err := s.sinkOf(tenant.With(ctx, all[i].Tenant), &all[i].State)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		out.Body.Sinks = append(out.Body.Sinks, v)
	}
	return out, nil
}

func (s *Server) shown(ctx context.Context, whose string, st sink.State, err error) (*sinkOutput, error) {
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	own, err := onBehalf(ctx, whose)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	v, err := s.sinkOf(own, &st)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &sinkOutput{Body: v}, nil
}

func (s *Server) sinkOf(ctx context.Context, st *sink.State) (wire.Sink, error) {
	waiting, err := s.sinks.Waiting(ctx, st)
	return wire.SinkOf(tenant.From(ctx), st, waiting, time.Now()), err
}
