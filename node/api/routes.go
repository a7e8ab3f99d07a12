package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/openai"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const about = `Open-AutoGLM runs LLM tasks offline: it keeps a task safe, batches it with others into a GLM
model, stores the answer, and calls back. A task is submitted once it is on disk; its id makes
a repeated submit harmless. Every refusal is an application/problem+json whose kind says what to do.`

// routes fills mux. What huma can describe from types goes through huma; streams are plain
// net/http and described beside it.
func (s *Server) routes(mux *http.ServeMux) error {
	cfg := huma.DefaultConfig("Open-AutoGLM", s.version)
	cfg.Info.Description = about
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "", "", "" // served below, without a CDN
	cfg.CreateHooks = nil                                       // no $schema in bodies
	cfg.Tags = []*huma.Tag{{Name: "tasks"}, {Name: "dead"}, {Name: "schedules"}, {Name: "results"}, {Name: "sinks"}, {Name: "openai"}, {Name: "node"}, {Name: "engines"}, {Name: "cluster"}, {Name: "access"}}
	api := humago.New(mux, cfg)
	api.OpenAPI().Servers = nil

	huma.Register(api, huma.Operation{OperationID: "get-task", Method: "GET", Path: "/v1/tasks/{id}", Tags: []string{"tasks"},
		Summary: "Get a task", Description: "With ?wait=30s, answers once the task is final or the time is over.",
		Responses: map[string]*huma.Response{"304": {Description: "The task still has the version in If-None-Match."}},
		Errors:    []int{404, 422, 503}}, s.get)
	huma.Register(api, huma.Operation{OperationID: "list-tasks", Method: "GET", Path: "/v1/tasks", Tags: []string{"tasks"},
		Summary: "List tasks", Description: "Newest first; with a state, in that state's own order. metadata.KEY=VALUE filters by metadata, any number of times.",
		Errors: []int{422, 503}}, s.list)
	huma.Register(api, huma.Operation{OperationID: "explain-task", Method: "GET", Path: "/v1/tasks/{id}/explain", Tags: []string{"tasks"},
		Summary: "What happened to a task, and why it is not further",
		Description: "Its journal with the time that each part took, and in why what it waits for now: its time, an engine (none serves its model; those that do are down, paused or busy; " +
			"how many are before it), the end of an attempt, or its callback.",
		Errors: []int{404, 422, 429, 503}}, s.explain)
	huma.Register(api, huma.Operation{OperationID: "cancel-task", Method: "POST", Path: "/v1/tasks/{id}/cancel", Tags: []string{"tasks"},
		Summary: "Cancel a task", Description: "Harmless when it is cancelled already; 409 when it ended otherwise.",
		Errors: []int{404, 409, 422, 503}}, s.cancel)
	huma.Register(api, huma.Operation{OperationID: "delete-task", Method: "DELETE", Path: "/v1/tasks/{id}", Tags: []string{"tasks"}, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a task", Description: "With its answer and history, once it is final; its id may be used for another one. 409 while its callback is tried or a sink has not written it, " +
			"and for the lines of batches, which go with their batch (retention.batches). Settings delete tasks by their age: retention.tasks.",
		Errors: []int{404, 409, 422, 503}}, s.delete)
	huma.Register(api, huma.Operation{OperationID: "cluster", Method: "GET", Path: "/v1/cluster", Tags: []string{"cluster"},
		Summary: "Who is there and who holds which shard"}, s.cluster)
	huma.Register(api, huma.Operation{OperationID: "cluster-events", Method: "GET", Path: "/v1/cluster/events", Tags: []string{"cluster"},
		Summary: "What the coordinator decided and saw"}, s.clusterEvents)
	huma.Register(api, huma.Operation{OperationID: "drain", Method: "POST", Path: "/v1/cluster/drain", Tags: []string{"cluster"},
		Summary: "Empty a node before it is taken away", Description: "It goes on serving while its replicas and leads move; " +
			"stop it when GET /v1/cluster shows it with none. A restart undoes it.",
		Middlewares: huma.Middlewares{s.localOnly}, Errors: []int{403, 404, 422, 503}}, s.drain)
	huma.Register(api, huma.Operation{OperationID: "status", Method: "GET", Path: "/v1/status", Tags: []string{"node"},
		Summary: "How the node is"}, s.status)
	huma.Register(api, huma.Operation{OperationID: "backup", Method: "POST", Path: "/v1/admin/backup", Tags: []string{"node"},
		Summary: "Write a consistent copy of the data", Description: "Into a folder of the node's own machine. The node goes on working.",
		Middlewares: huma.Middlewares{s.localOnly}, Errors: []int{403, 409, 422, 507}}, s.backup)

	s.deadRoutes(api)
	s.keyRoutes(api)
	if s.sinks != nil {
		s.sinkRoutes(api)
	}
	if s.engines != nil {
		s.engineRoutes(api)
	}
	if s.schedules != nil {
		s.scheduleRoutes(mux, api)
	}
	if s.quotas != nil {
		s.quotaRoutes(api)
	}

	mux.HandleFunc("POST /v1/tasks", s.submit)
	mux.HandleFunc("GET /v1/tasks/{id}/events", s.events)
	mux.HandleFunc("GET /v1/results", s.results)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	if s.metrics != nil {
		mux.Handle("GET /metrics", s.metrics)
	}
	if s.actors != nil {
		s.actorRoutes(mux)
	}
	openai.Routes(mux, s.openaiDeps())
	describeStreams(api.OpenAPI(), s.metrics != nil)
	if s.openai.Completions != nil {
		describeCompletions(api.OpenAPI())
	}
	openai.Describe(api.OpenAPI(), s.openai)
	describeAccess(api.OpenAPI())
	openAnswers(api.OpenAPI())
	wordsToo(api.OpenAPI())

	var err error
	if s.openapi, err = api.OpenAPI().MarshalJSON(); err != nil {
		return fmt.Errorf("describe the API: %w", err)
	}
	if s.docs, err = docsPage(api.OpenAPI()); err != nil {
		return fmt.Errorf("write the docs page: %w", err)
	}
	mux.HandleFunc("GET /openapi.json", serve("application/json", s.openapi))
	mux.HandleFunc("GET /docs", serve("text/html; charset=utf-8", s.docs))
	mux.HandleFunc("/", s.elsewhere(mux))
	return nil
}

// openaiDeps gives the parts of OpenAI's API this server's log and limits.
func (s *Server) openaiDeps() openai.Deps {
	d := s.openai
	d.Log, d.BodyMax, d.ReadTimeout, d.WriteTimeout, d.Closing = s.log, s.lim.BodyMax, s.lim.ReadTimeout, s.lim.WriteTimeout, s.closing
	d.StreamIdle = s.lim.StreamIdle
	d.Hold = func(ctx context.Context) (func(), error) {
		release, p := s.takeStream(ctx)
		if p != nil {
			return nil, p
		}
		return release, nil
	}
	return d
}

func serve(contentType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(body)
	}
}

// elsewhere answers what no route takes: 405 when another method would do, else 404.
func (s *Server) elsewhere(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			other := &http.Request{Method: m, URL: r.URL, Host: r.Host}
			if _, pattern := mux.Handler(other); pattern != "" && pattern != "/" {
				allowed = append(allowed, m)
			}
		}
		if len(allowed) == 0 {
			p := wire.NewProblem(http.StatusNotFound, fault.NotFound, r.URL.Path, "there is nothing at "+r.URL.Path)
			s.refuse(w, r, p.With("", "see /docs for what there is"))
			return
		}
		if slices.Contains(allowed, http.MethodGet) {
			allowed = append(allowed, http.MethodHead)
		}
		list := strings.Join(allowed, ", ")
		w.Header().Set("Allow", list)
		p := wire.NewProblem(http.StatusMethodNotAllowed, fault.Invalid, r.Method, fmt.Sprintf("%s does not take %s", r.URL.Path, r.Method))
		s.refuse(w, r, p.With("", "use "+list))
	}
}

// asked are the schemas of what clients send, in which an unknown field is refused.
var asked = []string{"Spec", "TaskStep", "HTTPTool", "WasmTool", "Map", "Reduce", "Split", "Message", "Retry", "Cancel", "Backup", "BatchRequest", "PriorityRequest", "KeyWish", "KeyRotation", "Definition", "DeadRetry", "Plan"}

// openAnswers lets the schemas of answers grow: a client made from the document must not
// break on a field that a later version adds.
func openAnswers(doc *huma.OpenAPI) {
	for name, schema := range doc.Components.Schemas.Map() {
		if !slices.Contains(asked, name) {
			schema.AdditionalProperties = nil
		}
	}
}

// wordsToo lets a priority be a word wherever clients send one; answers have numbers.
func wordsToo(doc *huma.OpenAPI) {
	for _, name := range asked {
		s := doc.Components.Schemas.Map()[name]
		if s == nil || s.Properties["priority"] == nil {
			continue
		}
		number, words := s.Properties["priority"], make([]any, len(task.PriorityWords))
		for i, w := range task.PriorityWords {
			words[i] = w
		}
		lowest, highest := 0.0, float64(task.PriorityMax)
		s.Properties["priority"] = &huma.Schema{Description: number.Description,
			OneOf: []*huma.Schema{{Type: "integer", Minimum: &lowest, Maximum: &highest}, {Type: "string", Enum: words}}}
	}
}

// describeStreams adds the routes that huma does not serve to the document.
func describeStreams(doc *huma.OpenAPI, metrics bool) {
	reg := doc.Components.Schemas
	schema := func(v any) *huma.Schema { return reg.Schema(typeOf(v), true, "") }
	of := func(media string, s *huma.Schema) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{media: {Schema: s}}
	}
	problem := &huma.Response{Description: "Refused", Content: of(wire.ProblemType, schema(wire.Problem{}))}
	query := func(name, text string, s *huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: text, Schema: s}
	}
	id := &huma.Param{Name: "id", In: "path", Required: true, Description: "The task's id.", Schema: &huma.Schema{Type: "string"}}
	str := &huma.Schema{Type: "string"}

	one, many := schema(task.Spec{}), schema(wire.Many{})
	bothForms(reg)
	doc.AddOperation(&huma.Operation{OperationID: "submit-tasks", Method: "POST", Path: "/v1/tasks", Tags: []string{"tasks"},
		Summary: "Submit tasks",
		Description: "One object, an array (at most 10,000), or a stream of any length with one task a line. " +
			"The answer to a stream is a stream too: a line for each line as it becomes durable, then a summary. Bad lines spare good ones.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json":     {Schema: &huma.Schema{OneOf: []*huma.Schema{one, {Type: "array", Items: one}}}},
			"application/x-ndjson": {Schema: one},
		}},
		Responses: map[string]*huma.Response{
			"201": {Description: "One task, now durable", Content: of("application/json", schema(wire.Submitted{}))},
			"200": {Description: "One task that existed, an array's or a stream's answers", Content: map[string]*huma.MediaType{
				"application/json":     {Schema: &huma.Schema{OneOf: []*huma.Schema{schema(wire.Submitted{}), many}}},
				"application/x-ndjson": {Schema: schema(wire.SubmitLine{})},
			}},
			"default": problem,
		}})
	doc.AddOperation(&huma.Operation{OperationID: "task-events", Method: "GET", Path: "/v1/tasks/{id}/events", Tags: []string{"tasks"},
		Summary:     "A task's history",
		Description: "JSON, or with Accept: text/event-stream server-sent events that follow the task to its end. Last-Event-ID goes on after a version.",
		Parameters:  []*huma.Param{id, query("after", "Only events after this version.", &huma.Schema{Type: "integer"})},
		Responses: map[string]*huma.Response{
			"200": {Description: "The events", Content: map[string]*huma.MediaType{
				"application/json": {Schema: schema(wire.History{})}, "text/event-stream": {Schema: schema(wire.Event{})}}},
			"204":     {Description: "Followed: the task has ended and there is nothing newer."},
			"default": problem,
		}})
	doc.AddOperation(&huma.Operation{OperationID: "results", Method: "GET", Path: "/v1/results", Tags: []string{"results"},
		Summary: "Stream the results",
		Description: "Final tasks in the order in which they ended, one a line. Some lines carry a cursor to go on from; " +
			"the trailer Autoglm-Cursor has the last. metadata.KEY=VALUE filters by metadata.",
		Parameters: []*huma.Param{
			query("state", "Only tasks that ended so.", &huma.Schema{Type: "string", Enum: []any{"completed", "failed", "cancelled"}}),
			query("model", "Only tasks submitted for this model.", str), query("batch", "Only the lines of this batch; its cursors are not those of all results.", str),
			query("cursor", "Go on after it.", str), query("prompt", "Give what was asked with each result.", &huma.Schema{Type: "boolean"}),
			query("follow", "Keep the stream open for tasks that end later.", &huma.Schema{Type: "boolean"})},
		Responses: map[string]*huma.Response{
			"200": {Description: "The results", Content: of("application/x-ndjson", schema(wire.Result{}))}, "default": problem}})
	health := of("application/json", schema(wire.Health{}))
	doc.AddOperation(&huma.Operation{OperationID: "healthz", Method: "GET", Path: "/healthz", Tags: []string{"node"}, Summary: "Is the process alive",
		Responses: map[string]*huma.Response{"200": {Description: "Yes", Content: health}}})
	doc.AddOperation(&huma.Operation{OperationID: "readyz", Method: "GET", Path: "/readyz", Tags: []string{"node"}, Summary: "Can it take work",
		Responses: map[string]*huma.Response{"200": {Description: "Yes", Content: health}, "503": {Description: "Not now", Content: health}}})
	if metrics {
		doc.AddOperation(&huma.Operation{OperationID: "metrics", Method: "GET", Path: "/metrics", Tags: []string{"node"}, Summary: "Prometheus metrics",
			Responses: map[string]*huma.Response{"200": {Description: "The metrics", Content: of("text/plain", str)}}})
	}
}

// bothForms lets a step be a string wherever there are steps: its type alone does not say that.
func bothForms(reg huma.Registry) {
	for _, name := range []string{"Spec", "Task"} {
		if s := reg.Map()[name]; s != nil && s.Properties["steps"] != nil {
			p := s.Properties["steps"]
			p.Items = &huma.Schema{OneOf: []*huma.Schema{{Type: "string"}, reg.Schema(typeOf(task.TaskStep{}), true, "")}}
		}
	}
}
