package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Error is an error object as OpenAI has it, with its status.
type Error struct {
	Status  int     `json:"-"`
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`

	final      bool // a client must not try again, although the status says that it may
	retryAfter int  // seconds; 0: not said
}

// errorBody is how an Error is sent.
type errorBody struct {
	Error *Error `json:"error"`
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// The types of errors.
const (
	typeRequest = "invalid_request_error"
	typeLimit   = "rate_limit_exceeded"
	typeQuota   = "insufficient_quota"
	typeServer  = "server_error"
)

// Invalid is a request that is wrong, and stays wrong: 400. param and code may be empty.
func Invalid(param, code, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Message: fault.Sentence(fmt.Errorf(format, args...)), Type: typeRequest, Param: some(param), Code: some(code)}
}

// NotFound is something that is not there: 404.
func NotFound(param, format string, args ...any) *Error {
	e := Invalid(param, "", format, args...)
	e.Status = http.StatusNotFound
	return e
}

// Conflict is what cannot be any more: 409, with word that trying again does not help.
func Conflict(format string, args ...any) *Error {
	e := Invalid("", "", format, args...)
	e.Status, e.final = http.StatusConflict, true
	return e
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// ErrorOf says err in OpenAI's words. An *Error stays as it is.
func ErrorOf(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	p := wire.ProblemOf(err)
	field := fieldOf(err, p)
	e := &Error{Status: p.Status, Message: strings.ReplaceAll(messageOf(err), "'"+inTask, "'"), retryAfter: int(p.RetryAfter.Seconds())}
	switch kind := wire.KindNamed(p.Kind); kind {
	case fault.Invalid:
		e.Type = typeRequest
		if e.Status == http.StatusUnprocessableEntity { // of a field, which OpenAI has as 400
			e.Status, e.Param = http.StatusBadRequest, some(strings.TrimPrefix(field, inTask))
		}
		if field == "model" {
			e.Status, e.Code = http.StatusNotFound, some("model_not_found")
		}
	case fault.NotFound, fault.Refused:
		e.Type = typeRequest
	case fault.TooLarge:
		e.Type, e.Code, e.Param = typeRequest, some("request_too_large"), some(strings.TrimPrefix(field, inTask))
	case fault.Conflict:
		e.Type, e.final = typeRequest, true
	case fault.Overloaded:
		e.Type, e.Code = typeLimit, some(typeLimit)
		if errors.Is(err, quota.OverBytes) {
			e.Type, e.Code = typeQuota, some(typeQuota)
		}
	case fault.Unavailable, fault.Fenced, fault.Timeout, fault.NoSpace, fault.Malformed:
		e.Status, e.Type = http.StatusServiceUnavailable, typeServer
	default:
		e.Status, e.Type = http.StatusInternalServerError, typeServer
	}
	if e.Status == http.StatusUnauthorized {
		e.Type, e.Code = typeRequest, some("invalid_api_key")
	}
	return e
}

// inTask is how the fields of a client's body are called in its task.
const inTask = "request."

// messageOf is err in sentences, without the steps that only a log needs.
func messageOf(err error) string {
	p, ok := errors.AsType[*wire.Problem](err)
	if !ok {
		return fault.Sentence(err)
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	return fault.Sentence(&fault.Error{Remedy: p.Remedy, Err: errors.New(text)})
}

// fieldOf is the field that err is about, however deep in it.
func fieldOf(err error, p *wire.Problem) string {
	for f, ok := errors.AsType[*fault.Error](err); ok; f, ok = errors.AsType[*fault.Error](f.Err) {
		if f.Key != "" && (f.Kind == fault.Invalid || f.Kind == fault.TooLarge) {
			return f.Key
		}
	}
	return p.Key
}

// WriteError answers with err in OpenAI's words.
func WriteError(w http.ResponseWriter, _ *http.Request, err error) {
	e := ErrorOf(err)
	h := w.Header()
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.final {
		h.Set("X-Should-Retry", "false")
	}
	writeJSON(w, e.Status, errorBody{e})
}

// writeJSON answers with v. A client that went away is nobody to tell.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}
