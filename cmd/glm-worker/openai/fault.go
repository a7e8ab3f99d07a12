package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// fault is an answer that says no, in OpenAI's form.
type fault struct {
	status  int
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

func (f *fault) Error() string { return f.Message }

func refused(status int, kind, code, param, format string, args ...any) *fault {
	f := &fault{status: status, Message: fmt.Sprintf(format, args...), Type: kind, Code: code}
	if param != "" {
		f.Param = &param
	}
	return f
}

// invalid refuses one field of a request.
func invalid(param, format string, args ...any) *fault {
	return refused(http.StatusBadRequest, "invalid_request_error", "invalid_value", param, format, args...)
}

// unsupported refuses a field that OpenAI knows and this worker does not.
func unsupported(param, remedy string) *fault {
	return refused(http.StatusBadRequest, "invalid_request_error", "unsupported_parameter", param,
		"%s is not supported: %s", param, remedy)
}

func loading() *fault {
	return refused(http.StatusServiceUnavailable, "server_error", "loading", "", "the model is still loading: try again soon")
}

func draining() *fault {
	return refused(http.StatusServiceUnavailable, "server_error", "draining", "",
		"the worker is shutting down: send the request to another one")
}

func unknownModel(asked, served string) *fault {
	return refused(http.StatusNotFound, "invalid_request_error", "model_not_found", "model",
		"the model %q does not exist here: this worker serves %q", asked, served)
}

// faultOf turns what the engine or the body's reader said into what the client is told.
func faultOf(err error) *fault {
	var told *fault
	var long *engine.TooLong
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &long):
		return refused(http.StatusBadRequest, "invalid_request_error", "context_length_exceeded", "messages",
			"This model's maximum context length is %d tokens. However, you requested %d tokens (%d in the prompt, %d in the completion). Please shorten either.",
			long.Context, long.Prompt+long.Answer, long.Prompt, long.Answer)
	case errors.As(err, &large):
		return refused(http.StatusRequestEntityTooLarge, "invalid_request_error", "body_too_large", "",
			"the request is larger than %d bytes: send less at a time", large.Limit)
	case errors.Is(err, engine.ErrQueueFull):
		return refused(http.StatusTooManyRequests, "rate_limit_error", "rate_limit_exceeded", "",
			"%v: wait for an answer before sending more, or start more workers", err)
	case errors.Is(err, engine.ErrDraining):
		return draining()
	case errors.Is(err, engine.ErrNoToken):
		return refused(http.StatusUnprocessableEntity, "invalid_request_error", "grammar_dead_end", "response_format",
			"%v: allow other characters in the schema", err)
	case errors.Is(err, engine.ErrSlow):
		return refused(http.StatusUnprocessableEntity, "invalid_request_error", "grammar_too_slow", "response_format",
			"%v: write the schema so that a text can be read in one way only, above all its patterns", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return refused(statusClientGone, "invalid_request_error", "cancelled", "", "the request was cancelled")
	}
	return refused(http.StatusInternalServerError, "server_error", "internal_error", "", "%v", err)
}

// statusClientGone is nginx's number for an answer that nobody waits for; it only shows in the metrics.
const statusClientGone = 499

// badJSON names what is wrong with a body, and the field where there is one.
func badJSON(err error) error {
	var kind *json.UnmarshalTypeError
	var large *http.MaxBytesError
	var told *fault
	switch {
	case errors.As(err, &large), errors.As(err, &told):
		return err
	case errors.As(err, &kind):
		field := strings.TrimPrefix(kind.Field, "common.") // where a Go struct is embedded nobody need know
		return invalid(field, "%s must be %s, not a %s", field, kindName(kind.Type.Kind()), kind.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return refused(http.StatusBadRequest, "invalid_request_error", "unknown_parameter", strings.Trim(name, `"`),
			"unknown parameter %s: leave it out", name)
	}
	return refused(http.StatusBadRequest, "invalid_request_error", "invalid_json", "", "the body is not the JSON expected here: %v", err)
}

// kindName is JSON's word for a kind of Go value.
func kindName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func (f *fault) write(w http.ResponseWriter) {
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, f.status, map[string]any{"error": f})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // only a value that JSON cannot carry, such as an infinite number
		status, b = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer cannot be written as JSON","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
