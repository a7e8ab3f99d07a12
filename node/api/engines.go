package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Engines is what the routes of engines need of the node.
type Engines interface {
	// EngineTable shows the engines of all nodes.
	EngineTable(ctx context.Context) (wire.Engines, error)

	// ChangeEngine begins a change (load, swap, rollback, unload) on a node: "" is this one, "all" every one that has the engine. What became
	// of it is in the table.
	ChangeEngine(ctx context.Context, node, do, name string, spec wire.EngineSpec) (wire.Engines, error)
}

// WithEngines serves /v1/engines.
func WithEngines(e Engines) Option { return func(s *Server) { s.engines = e } }

// engineRoutes registers what the operator changes engines with.
func (s *Server) engineRoutes(api huma.API) {
	tags, local := []string{"engines"}, huma.Middlewares{s.localOnly}
	const begins = " The answer comes at once; what became of it is in the engine's change: running, done or failed."
	huma.Register(api, huma.Operation{OperationID: "list-engines", Method: "GET", Path: "/v1/engines", Tags: tags,
		Summary: "List the engines of all nodes", Errors: []int{503}}, func(ctx context.Context, _ *struct{}) (*enginesOutput, error) {
		return s.enginesAnswer(ctx, func() (wire.Engines, error) { return s.engines.EngineTable(ctx) })
	})
	huma.Register(api, huma.Operation{OperationID: "load-engine", Method: "POST", Path: "/v1/engines", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary: "Load an engine", Description: "It takes work once it has answered a probe, and is loaded again when the node starts again." + begins,
		Errors: []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *loadEngineInput) (*enginesOutput, error) {
		return s.changeEngine(ctx, in.Body.Node, "load", in.Body.Name, in.Body.Spec)
	})
	huma.Register(api, huma.Operation{OperationID: "swap-engine", Method: "POST", Path: "/v1/engines/{name}/swap", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary:     "Put another model in an engine's place",
		Description: "The new one is started beside the old, and takes its work once it has answered a probe; what the old one runs ends. When it does not come up, nothing changes." + begins,
		Errors:      []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *swapEngineInput) (*enginesOutput, error) {
		return s.changeEngine(ctx, in.Body.Node, "swap", in.Name, in.Body.Spec)
	})
	huma.Register(api, huma.Operation{OperationID: "rollback-engine", Method: "POST", Path: "/v1/engines/{name}/rollback", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary: "Bring an engine's former model back", Description: "At once, while its processes are kept: ten minutes. Again, it brings the other one back." + begins,
		Errors: []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *backEngineInput) (*enginesOutput, error) {
		node := ""
		if in.Body != nil {
			node = in.Body.Node
		}
		return s.changeEngine(ctx, node, "rollback", in.Name, wire.EngineSpec{})
	})
	huma.Register(api, huma.Operation{OperationID: "unload-engine", Method: "DELETE", Path: "/v1/engines/{name}", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary: "Take an engine away", Description: "What it runs ends, what waits for it goes to others; tasks that only it served wait until one serves them again. One of the configuration is back when the node starts again." + begins,
		Errors: []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *unloadEngineInput) (*enginesOutput, error) {
		return s.changeEngine(ctx, in.Node, "unload", in.Name, wire.EngineSpec{})
	})
}

type enginesOutput struct{ Body wire.Engines }

type loadEngineInput struct{ Body wire.EngineLoad }

type swapEngineInput struct {
	Name string `path:"name" maxLength:"255" doc:"The engine's, or a model's that only one engine serves."`
	Body wire.EngineSwap
}

type backEngineInput struct {
	Name string `path:"name" maxLength:"255" doc:"The engine's, or a model's that only one engine serves."`
	Body *wire.EngineBack
}

type unloadEngineInput struct {
	Name string `path:"name" maxLength:"255" doc:"The engine's, or a model's that only one engine serves."`
	Node string `query:"node" maxLength:"64" doc:"Where; all that have it, or the node that is asked when empty."`
}

// changeEngine begins a change, and keeps who asked for it.
func (s *Server) changeEngine(ctx context.Context, node, do, name string, spec wire.EngineSpec) (*enginesOutput, error) {
	return s.enginesAnswer(ctx, func() (out wire.Engines, err error) {
		detail := strings.TrimSpace(strings.Join([]string{node, spec.Preset + strings.Join(spec.Command, " "), spec.Path + spec.URL}, " "))
		err = s.audited(ctx, "engine."+do, name, tenant.Default, detail, func() error {
			out, err = s.engines.ChangeEngine(ctx, node, do, name, spec)
			return err
		})
		return out, err
	})
}

func (s *Server) enginesAnswer(ctx context.Context, do func() (wire.Engines, error)) (*enginesOutput, error) {
	out, err := do()
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	if out.Engines == nil {
		out.Engines = []wire.EngineEntry{}
	}
	return &enginesOutput{out}, nil
}
