package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of one line.
const (
	LineMax     = task.RequestMax + 64<<10 // bytes, its newline aside
	CustomIDMax = 512                      // bytes
)

// EndpointTasks makes the lines of a batch tasks in this system's own form, with several steps perhaps.
const EndpointTasks = "/v1/tasks"

// Line is one line of an input: a request.
type Line struct {
	CustomID string            `json:"custom_id"`
	Method   string            `json:"method"`
	URL      string            `json:"url"`
	Body     json.RawMessage   `json:"body"`
	Priority *task.Priority    `json:"priority"` // these three are no part of OpenAI's API
	Retry    *task.Retry       `json:"retry"`
	Metadata map[string]string `json:"metadata"`

	model   string
	lanes   []task.Wanted // of its steps, beside those of model
	timeout time.Duration
	newForm bool // it has steps that programs from before them cannot read
}

// Codes of Problems.
const (
	codeJSON     = "invalid_json_line"
	codeMissing  = "missing_required_parameter"
	codeInvalid  = "invalid_request"
	codeURL      = "url_mismatch"
	codeMethod   = "invalid_method"
	codeModel    = "model_mismatch"
	codeNoModel  = "model_not_found"
	codeTwice    = "duplicate_custom_id"
	codeEmpty    = "empty_file"
	codeTooLarge = "line_too_large"
	codeInput    = "invalid_input_file"
)

// decode reads one line without its newline and holds it against what needs no other line. It is pure.
func decode(b []byte, endpoint string) (l Line, p *Problem) {
	bad := func(code, param, format string, args ...any) (Line, *Problem) {
		return Line{}, &Problem{Code: code, Param: param, Message: fmt.Sprintf(format, args...)}
	}
	if !utf8.Valid(b) {
		return bad(codeJSON, "", "This line is not UTF-8 text.")
	}
	if err := json.Unmarshal(b, &l); err != nil {
		if e, ok := errors.AsType[*fault.Error](err); ok { // of a field that reads itself
			return bad(codeInvalid, e.Key, "%s", fault.Sentence(e))
		}
		return bad(codeJSON, "", "This line is not parseable as valid JSON: %v.", err)
	}
	body := bytes.TrimSpace(l.Body)
	switch {
	case len(bytes.TrimSpace(b)) == 0 || bytes.TrimSpace(b)[0] != '{':
		return bad(codeJSON, "", "This line is not a JSON object.")
	case l.CustomID == "":
		return bad(codeMissing, "custom_id", "Missing required parameter: 'custom_id'.")
	case len(l.CustomID) > CustomIDMax:
		return bad(codeInvalid, "custom_id", "'custom_id' has %d bytes, the limit is %d.", len(l.CustomID), CustomIDMax)
	case l.Method == "":
		return bad(codeMissing, "method", "Missing required parameter: 'method'.")
	case l.Method != http.MethodPost:
		return bad(codeMethod, "method", "'method' is %.20q: only POST is possible.", l.Method)
	case l.URL == "":
		return bad(codeMissing, "url", "Missing required parameter: 'url'.")
	case l.URL != endpoint:
		return bad(codeURL, "url", "The URL provided for this request, %.100q, does not match the batch endpoint, %q.", l.URL, endpoint)
	case len(body) == 0 || bytes.Equal(body, []byte("null")):
		return bad(codeMissing, "body", "Missing required parameter: 'body'.")
	case body[0] != '{':
		return bad(codeInvalid, "body", "'body' is not a JSON object.")
	}
	l.Body = body
	spec, err := l.spec("")
	if err != nil {
		param := "body"
		if e, ok := errors.AsType[*fault.Error](err); ok && e.Key != "request" && e.Key != "body" {
			param += "." + strings.TrimPrefix(strings.TrimPrefix(e.Key, "request."), "body.")
		}
		return bad(codeOf(err), param, "%s", strings.ReplaceAll(fault.Sentence(err), "'request.", "'"))
	}
	l.timeout, l.newForm = spec.LongestTimeout(), spec.NewForm()
	if spec.OwnLanes() {
		l.lanes = spec.Lanes(spec.ModelOr(""))
	}
	if l.model = spec.ModelOr(""); l.model == "" && endpoint != EndpointTasks {
		return bad(codeMissing, "body.model", "Missing required parameter: 'body.model'.")
	}
	return l, nil
}

func codeOf(err error) string {
	if fault.KindOf(err) == fault.TooLarge {
		return codeTooLarge
	}
	return codeInvalid
}

// spec makes the task of the line.
func (l *Line) spec(id string) (*task.Spec, error) {
	s := &task.Spec{}
	if l.URL == EndpointTasks {
		dec := json.NewDecoder(bytes.NewReader(l.Body))
		dec.DisallowUnknownFields() // a person wrote it: it may be misspelt
		if err := dec.Decode(s); err != nil {
			if e, ok := errors.AsType[*fault.Error](err); ok {
				return nil, e
			}
			return nil, fault.New(fault.Invalid, "bulk.line", "body", "is no task: %w", err)
		}
		if s.ID != "" {
			return nil, fault.New(fault.Invalid, "bulk.line", "body.task_id", "is the batch's to give: leave it out")
		}
	} else {
		s.Endpoint, s.Request = l.URL, l.Body
	}
	s.ID = id
	if l.Priority != nil {
		s.Priority = l.Priority
	}
	if l.Retry != nil {
		s.Retry = l.Retry
	}
	if len(l.Metadata) > 0 {
		s.Metadata = l.Metadata
	}
	return s, s.Validate()
}
