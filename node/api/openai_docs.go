package api

import (
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/task"
)

// describeCompletions adds the routes of OpenAI's API that ask an engine. Their bodies are that API's, and the engine's
// business: a client has them from its own library.
func describeCompletions(doc *huma.OpenAPI) {
	object := map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: "object", AdditionalProperties: true}}}
	refused := &huma.Response{Description: "An error of OpenAI's API, or the engine's own", Content: object}
	key := &huma.Param{Name: "Idempotency-Key", In: "header", Description: "The same key asks for the same task: come back with it after a time-out.", Schema: &huma.Schema{Type: "string"}}
	for _, path := range task.Endpoints() {
		ok := &huma.Response{Description: "The engine's answer, as it is; X-Autoglm-Task names the task", Content: object}
		about := "One task that goes first; the answer comes once it is final. A client that goes away cancels it, unless it sent a key."
		if path == task.EndpointChat || path == task.EndpointCompletions {
			ok.Content = map[string]*huma.MediaType{"application/json": object["application/json"], "text/event-stream": {Schema: &huma.Schema{Type: "string"}}}
			about += " With stream, the answer comes as server-sent events, once it is there."
		}
		doc.AddOperation(&huma.Operation{OperationID: "openai" + strings.ReplaceAll(strings.TrimPrefix(path, "/v1"), "/", "-"), Method: "POST", Path: path,
			Tags: []string{"openai"}, Summary: "Ask an engine, as in OpenAI's API", Description: about, Parameters: []*huma.Param{key},
			RequestBody: &huma.RequestBody{Required: true, Content: object},
			Responses:   map[string]*huma.Response{"200": ok, "default": refused}})
	}
	doc.AddOperation(&huma.Operation{OperationID: "openai-models", Method: "GET", Path: "/v1/models", Tags: []string{"openai"}, Summary: "List the models that engines serve",
		Responses: map[string]*huma.Response{"200": {Description: "The models", Content: object}}})
	doc.AddOperation(&huma.Operation{OperationID: "openai-model", Method: "GET", Path: "/v1/models/{model}", Tags: []string{"openai"}, Summary: "Whether an engine serves a model",
		Parameters: []*huma.Param{{Name: "model", In: "path", Required: true, Description: "Its name; it may have slashes.", Schema: &huma.Schema{Type: "string"}}},
		Responses:  map[string]*huma.Response{"200": {Description: "One does", Content: object}, "default": refused}})
}
