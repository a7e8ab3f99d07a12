package openai

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Completions is what the routes that ask an engine need of the node.
type Completions interface {
	// Complete makes a task of a request's body and returns its record once it is final. id is the task's; "" makes a new
	// one, which is cancelled when ctx ends first. The same id with another body is a Conflict.
	Complete(ctx context.Context, id, endpoint string, body json.RawMessage) (*task.Record, error)

	// ServedModels returns the names of models that the engines of the cluster serve.
	ServedModels(ctx context.Context) []string

	// CheckModel says whether an engine takes a name, also one that it does not list.
	CheckModel(ctx context.Context, model string) error
}

func (s *server) completionRoutes(mux *http.ServeMux) {
	for _, endpoint := range task.Endpoints() {
		mux.HandleFunc("POST "+endpoint, func(w http.ResponseWriter, r *http.Request) {
			if err := s.complete(w, r, endpoint); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /v1/models/{model...}", s.model)
}

// TaskHeader names the task that an answer came of, for /v1/tasks/{id}.
const TaskHeader = "X-Autoglm-Task"

// complete makes one task of a request and answers with what the engine said. An error is for fail; after the first
// byte of an answer there is none.
func (s *server) complete(w http.ResponseWriter, r *http.Request, endpoint string) error {
	body, err := s.readJSON(w, r)
	if err != nil {
		return err
	}
	body, live, err := cutStream(endpoint, body)
	if err != nil {
		return err
	}
	if s.Hold != nil {
		release, err := s.Hold(r.Context())
		if err != nil {
			return err
		}
		defer release()
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if s.Closing != nil {
		go func() {
			select {
			case <-s.Closing:
				cancel(errStopping)
			case <-ctx.Done():
			}
		}()
	}
	key := r.Header.Get("Idempotency-Key")
	rec, err := s.Completions.Complete(ctx, keyed(key), endpoint, body)
	switch {
	case key != "" && fault.KindOf(err) == fault.Conflict:
		return Conflict("This Idempotency-Key was sent before with another request.")
	case err != nil:
		return err
	}
	if rec.Spec != nil {
		w.Header().Set(TaskHeader, rec.Spec.ID)
	}
	status, answer, err := answerOf(rec)
	if err != nil {
		return err
	}
	media := "application/json"
	if live != nil && status == http.StatusOK {
		media = "text/event-stream"
		if answer, err = live.events(answer); err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "no-store")
	}
	s.answer(w, status, media, answer)
	return nil
}

var errStopping = errors.New("this node is stopping")

// keyed is the task id of an idempotency key: who sends it again asks for the same task.
func keyed(key string) string {
	if key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(key))
	return "idem-" + hex.EncodeToString(sum[:16])
}

// answerOf is what the engine said, good or bad, or the error that kept it from saying anything.
func answerOf(r *task.Record) (status int, body []byte, err error) {
	switch {
	case r.State == task.Completed && len(r.Answers) > 0:
		a := &r.Answers[len(r.Answers)-1]
		return a.Status, a.Body, nil
	case r.State == task.Cancelled:
		return 0, nil, Conflict("The task of this request was cancelled.")
	case r.Error == nil:
		return 0, nil, fault.New(fault.Unknown, "openai.complete", r.Spec.ID, "the task has no answer")
	case r.Error.Status != 0:
		return r.Error.Status, r.Error.Body, nil
	}
	return 0, nil, &fault.Error{Op: "openai.complete", Kind: wire.KindNamed(r.Error.Kind), Err: errors.New(r.Error.Message)}
}

// cutStream takes the wish for a stream out of a body: the engine is asked for the answer in one piece.
func cutStream(endpoint string, body []byte) ([]byte, *live, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, nil, Invalid("", "", "We could not parse the JSON body of your request: it must be a JSON object.")
	}
	l := &live{endpoint: endpoint}
	switch strings.TrimSpace(string(fields["stream"])) {
	case "", "null", "false":
		return body, nil, nil
	case "true":
	default:
		return nil, nil, Invalid("stream", "", "'stream' must be true or false.")
	}
	if endpoint != task.EndpointChat && endpoint != task.EndpointCompletions {
		return nil, nil, Invalid("stream", "unsupported_parameter", "%s is not streamed here: leave stream out.", endpoint)
	}
	var options struct {
		Usage bool `json:"include_usage"`
	}
	if raw := fields["stream_options"]; raw != nil && json.Unmarshal(raw, &options) != nil {
		return nil, nil, Invalid("stream_options", "", "'stream_options' must be an object.")
	}
	l.usage = options.Usage
	delete(fields, "stream")
	delete(fields, "stream_options")
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(fields); err != nil {
		return nil, nil, err
	}
	return b.Bytes(), l, nil
}
