package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// humaError turns huma's own refusals (a bad parameter, a bad body) into a Problem.
func humaError(status int, msg string, errs ...error) huma.StatusError {
	var p *wire.Problem
	for _, err := range errs {
		if errors.As(err, &p) {
			return p
		}
	}
	p = wire.NewProblem(status, wire.KindOfStatus(status), "", msg)
	var parts []string
	for _, err := range errs {
		if err == nil {
			continue
		}
		var d huma.ErrorDetailer
		if !errors.As(err, &d) {
			parts = append(parts, err.Error())
			continue
		}
		detail := d.ErrorDetail()
		_, field, _ := strings.Cut(detail.Location, ".") // "query.limit", "body.reason"
		if field == "" {
			field = detail.Location
		}
		if p.Key == "" {
			p.Key = field
		}
		text := strings.TrimSpace(field + " " + detail.Message)
		if given, ok := detail.Value.(string); ok && strings.HasPrefix(detail.Message, "expected value to be one of") { // huma says the others
			text += fmt.Sprintf(", not %.80q", given)
		}
		parts = append(parts, text)
	}
	if len(parts) > 0 {
		p.Detail = strings.Join(parts, "; ")
	}
	return p
}

// malformed is a body that is no JSON of the right shape: 400, where a field with a wrong
// value is 422.
func malformed(key, format string, args ...any) *wire.Problem {
	return wire.NewProblem(http.StatusBadRequest, fault.Invalid, key, fmt.Sprintf(format, args...))
}

// invalid is a field with a wrong value.
func invalid(key, format string, args ...any) *wire.Problem {
	return wire.NewProblem(http.StatusUnprocessableEntity, fault.Invalid, key, key+" "+fmt.Sprintf(format, args...))
}

// tooLarge names the limit that a body, array or line is over.
func tooLarge(limit string, max int64, what string) *wire.Problem {
	return wire.NewProblem(http.StatusRequestEntityTooLarge, fault.TooLarge, "",
		fmt.Sprintf("%s is over %s, which is %d", what, limit, max)).With(limit, "")
}

func overloaded(limit string, max int) *wire.Problem {
	p := wire.ProblemOf(fault.New(fault.Overloaded, "api.limit", "", "%s is reached: %d at once", limit, max))
	return p.With(limit, "try again later, or raise "+limit)
}

// writeJSON writes v and a newline. A client that went away is nobody to tell.
func writeJSON(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}
