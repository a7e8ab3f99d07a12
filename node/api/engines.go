package api

import (
	"context"
	"fmt"
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

	// ChangeEngine begins a change (load, swap, promote, rollback, unload) on a node: "" is this one, "all" every one that has the engine. What became
	// of it is in the table. percent is of a swap or promote: the canary's part.
	ChangeEngine(ctx context.Context, node, do, name string, spec wire.EngineSpec, percent int) (wire.Engines, error)
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
		return s.changeEngine(ctx, in.Body.Node, "load", in.Body.Name, in.Body.Spec, 0)
	})
	huma.Register(api, huma.Operation{OperationID: "swap-engine", Method: "POST", Path: "/v1/engines/{name}/swap", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary:     "Put another model in an engine's place",
		Description: "The new one is started beside the old, and takes its work once it has answered a probe; what the old one runs ends. When it does not come up, nothing changes. With canary it gets no more than that percent of the work, beside the old, until it is promoted or rolled back." + begins,
		Errors:      []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *swapEngineInput) (*enginesOutput, error) {
		return s.changeEngine(ctx, in.Body.Node, "swap", in.Name, in.Body.Spec, in.Body.Canary)
	})
	huma.Register(api, huma.Operation{OperationID: "promote-engine", Method: "POST", Path: "/v1/engines/{name}/promote", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary: "Give a canary more of the work, or all of it", Description: "Without a percent it takes the old one's place, which is kept ten minutes for a rollback." + begins,
		Errors: []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *promoteEngineInput) (*enginesOutput, error) {
		b := wire.EnginePromote{}
		if in.Body != nil {
			b = *in.Body
		}
		return s.changeEngine(ctx, b.Node, "promote", in.Name, wire.EngineSpec{}, b.Percent)
	})
	huma.Register(api, huma.Operation{OperationID: "rollback-engine", Method: "POST", Path: "/v1/engines/{name}/rollback", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary: "Bring an engine's former model back", Description: "A canary is taken away. Else the former model is back at once, while its processes are kept: ten minutes. Again, it brings the other one back." + begins,
		Errors: []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *backEngineInput) (*enginesOutput, error) {
		node := ""
		if in.Body != nil {
			node = in.Body.Node
		}
		return s.changeEngine(ctx, node, "rollback", in.Name, wire.EngineSpec{}, 0)
	})
	huma.Register(api, huma.Operation{OperationID: "unload-engine", Method: "DELETE", Path: "/v1/engines/{name}", Tags: tags, Middlewares: local, DefaultStatus: http.StatusAccepted,
		Summary: "Take an engine away", Description: "What it runs ends, what waits for it goes to others; tasks that only it served wait until one serves them again. One of the configuration is back when the node starts again." + begins,
		Errors: []int{403, 404, 409, 422, 503}}, func(ctx context.Context, in *unloadEngineInput) (*enginesOutput, error) {
		return s.changeEngine(ctx, in.Node, "unload", in.Name, wire.EngineSpec{}, 0)
	})
}

type enginesOutput struct{ Body wire.Engines }

type loadEngineInput struct{ Body wire.EngineLoad }

type swapEngineInput struct {
	Name string `path:"name" maxLength:"255" doc:"The engine's, or a model's that only one engine serves."`
	Body wire.EngineSwap
}

type promoteEngineInput struct {
	Name string `path:"name" maxLength:"255" doc:"The engine's, or a model's that only one engine serves."`
	Body *wire.EnginePromote
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
func (s *Server) changeEngine(ctx context.Context, node, do, name string, spec wire.EngineSpec, percent int) (*enginesOutput, error) {
	return s.enginesAnswer(ctx, func() (out wire.Engines, err error) {
		detail := strings.TrimSpace(strings.Join([]string{node, spec.Preset + strings.Join(spec.Command, " "), spec.Path + spec.URL}, " "))
		if percent > 0 {
			detail += fmt.Sprintf(" %d %%", percent)
		}
		err = s.audited(ctx, "engine."+do, name, tenant.Default, detail, func() error {
			out, err = s.engines.ChangeEngine(ctx, node, do, name, spec, percent)
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
