package openai

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Completions is what the routes that ask an engine need of the node.
type Completions interface {
	// Complete makes a task of a request's body and returns its record once it is final, or once ctx ended, which
	// cancels the task. id is the task's; "" makes a new one. The same id with another body is a Conflict.
	Complete(ctx context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error)

	// ServedModels returns the models that the engines of the cluster serve, and the default's name.
	ServedModels(ctx context.Context) []string
}

func (s *server) completionRoutes(mux *http.ServeMux) {
}
