package infer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// answered is the fault of an answer with another status than 200.
type answered struct {
	status int
	err    error
}

func (a *answered) Error() string { return a.err.Error() }
func (a *answered) Unwrap() error { return a.err }

// doRaw posts a whole request and returns the whole answer. An HTTP error comes back as a *task.EngineError, with what
// the engine said, around the fault that policy reads.
func (h *HTTP) doRaw(ctx context.Context, r *Request) (*Response, error) {
	body := getBuffer()
	defer putBuffer(body)
	err := h.call(ctx, http.MethodPost, h.base+strings.TrimPrefix(r.Endpoint, "/v1"), r, r.Raw, body)
	if a, ok := errors.AsType[*answered](err); ok {
		return nil, &task.EngineError{Status: a.status, Body: task.SaidBody(body.Bytes(), decodeError(body.Bytes()).message), Err: err}
	}
	if err != nil {
		return nil, err
	}
	return decodeRaw(h.o.Name, r, body.Bytes())
}

// rawResponse is what is read of an answer that is kept whole.
type rawResponse struct {
	Model   string `json:"model"`
	Choices []struct {
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Data   []json.RawMessage `json:"data"`
	Output []json.RawMessage `json:"output"`
	Usage  struct {
		Prompt int `json:"prompt_tokens"`
		Output int `json:"completion_tokens"`
		In     int `json:"input_tokens"` // of responses
		Out    int `json:"output_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// decodeRaw checks that the body of a 200 is an answer of its endpoint, and keeps all of it.
func decodeRaw(name string, r *Request, body []byte) (*Response, error) {
	var a rawResponse
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, notOurAPI(name, "answer of "+r.Endpoint, err)
	}
	if len(a.Error) > 0 && !bytes.Equal(a.Error, []byte("null")) && len(a.Choices)+len(a.Data)+len(a.Output) == 0 {
		return nil, errorInAnswer(name, body)
	}
	lacks := ""
	switch r.Endpoint {
	case task.EndpointEmbeddings:
		if len(a.Data) == 0 {
			lacks = "data"
		}
	case task.EndpointResponses:
		if a.Output == nil {
			lacks = "output"
		}
	default:
		if len(a.Choices) == 0 {
			lacks = "choices"
		}
	}
	if lacks != "" {
		return nil, fault.New(fault.Malformed, "infer.http", name, "the engine answered without %s", lacks)
	}
	if a.Model == "" {
		a.Model = r.Model
	}
	res := &Response{Model: a.Model, Status: http.StatusOK, Raw: compact(body),
		PromptTokens: max(0, a.Usage.Prompt, a.Usage.In), OutputTokens: max(0, a.Usage.Output, a.Usage.Out)}
	if len(a.Choices) > 0 {
		res.FinishReason = a.Choices[0].FinishReason
	}
	return res, nil
}

// compact copies JSON onto one line: it was decoded, so it is valid.
func compact(body []byte) json.RawMessage {
	b := bytes.NewBuffer(make([]byte, 0, len(body)))
	_ = json.Compact(b, body)
	return b.Bytes()
}
