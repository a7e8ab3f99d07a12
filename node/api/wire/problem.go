package wire

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// problemURN starts every Problem.Type; the name of its kind follows.
const problemURN = "urn:autoglm:problem:"

// Problem is how the API refuses, after RFC 9457, with what a person needs to go on.
type Problem struct {
	Type      string    `json:"type" doc:"urn:autoglm:problem: and the kind."`
	Title     string    `json:"title" doc:"The kind in words."`
	Status    int       `json:"status" doc:"The HTTP status."`
	Detail    string    `json:"detail" doc:"What happened this time."`
	Kind      string    `json:"kind" enum:"unknown,invalid,not_found,conflict,fenced,unavailable,overloaded,no_space,too_large,timeout,corrupt,refused,malformed" doc:"What policy acts on."`
	Key       string    `json:"key,omitempty" doc:"The field, task or file concerned."`
	Remedy    string    `json:"remedy,omitempty" doc:"What you can do."`
	Limit     string    `json:"limit,omitempty" doc:"Name of the limit that was reached."`
	RequestID string    `json:"request_id,omitempty" doc:"Finds this request in the node's log."`
	Errors    []Problem `json:"errors,omitempty" doc:"One for each part that was refused, the first 100."`

	RetryAfter time.Duration `json:"-"` // sent as a header when positive
}

// kinds is the one table from a fault's Kind to what HTTP calls it.
var kinds = map[fault.Kind]struct {
	status int
	title  string
	retry  time.Duration // Retry-After; 0 for kinds that stay wrong
}{
	fault.Unknown:     {http.StatusInternalServerError, "Internal error", 0},
	fault.Invalid:     {http.StatusUnprocessableEntity, "Invalid input", 0},
	fault.NotFound:    {http.StatusNotFound, "Not found", 0},
	fault.Conflict:    {http.StatusConflict, "Conflict", 0},
	fault.Fenced:      {http.StatusServiceUnavailable, "Another owner took over", time.Second},
	fault.Unavailable: {http.StatusServiceUnavailable, "Not available now", time.Second},
	fault.Overloaded:  {http.StatusTooManyRequests, "Too much at once", 2 * time.Second},
	fault.NoSpace:     {http.StatusInsufficientStorage, "Not enough disk space", 30 * time.Second},
	fault.TooLarge:    {http.StatusRequestEntityTooLarge, "Too large", 0},
	fault.Timeout:     {http.StatusGatewayTimeout, "No answer in time", time.Second},
	fault.Corrupt:     {http.StatusInternalServerError, "Damaged data", 0},
	fault.Refused:     {http.StatusForbidden, "Refused", 0},
	fault.Malformed:   {http.StatusBadGateway, "Malformed answer of an engine", time.Second},
}

// StatusOf returns the HTTP status of a kind.
func StatusOf(k fault.Kind) int { return kinds[k].status }

// KindOfStatus guesses the kind of an answer that is no Problem, as a proxy may send.
func KindOfStatus(status int) fault.Kind {
	switch {
	case status == http.StatusBadRequest:
		return fault.Invalid
	case status == http.StatusRequestTimeout:
		return fault.Timeout
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable:
		return fault.Unavailable
	}
	for k, v := range kinds {
		if v.status == status && k != fault.Fenced && k != fault.Corrupt {
			return k
		}
	}
	return fault.Unknown
}

// KindNamed is the inverse of fault.Kind.String; an unknown name gives fault.Unknown.
func KindNamed(name string) fault.Kind {
	for k := range kinds {
		if k.String() == name {
			return k
		}
	}
	return fault.Unknown
}

// ProblemOf describes err to a client. An err that is a *Problem, or wraps one, stays as it is.
func ProblemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	kind := fault.KindOf(err)
	k := kinds[kind]
	p = &Problem{Type: problemURN + kind.String(), Title: k.title, Status: k.status, Detail: fault.Plain(err), // ops are for logs
		Kind: kind.String(), Remedy: fault.RemedyOf(err), RetryAfter: k.retry}
	if d := backoff.AskedBy(err); d > 0 {
		p.RetryAfter = d
	}
	var f *fault.Error
	if errors.As(err, &f) {
		p.Key = f.Key
	}
	return p
}

// NewProblem makes a Problem that no fault stands behind: HTTP's own trouble, with its
// own status.
func NewProblem(status int, kind fault.Kind, key, detail string) *Problem {
	return &Problem{Type: problemURN + kind.String(), Title: http.StatusText(status), Status: status, Detail: detail,
		Kind: kind.String(), Key: key}
}

// Error makes a Problem an error; its text is Detail, with the remedy in brackets.
func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	if p.Remedy != "" {
		s += " (" + p.Remedy + ")"
	}
	return s
}

// Fault turns a received Problem into a fault, with op naming the client's step.
func (p *Problem) Fault(op string) *fault.Error {
	return &fault.Error{Op: op, Kind: KindNamed(p.Kind), Remedy: p.Remedy, Err: errors.New(p.Detail)}
}

// With returns a copy of p with a limit's name and a remedy.
func (p *Problem) With(limit, remedy string) *Problem {
	c := *p
	c.Limit, c.Remedy = limit, remedy
	return &c
}

// GetStatus, GetHeaders and ContentType are what huma asks of an error.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns Retry-After for the kinds that may pass.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.RetryAfter.Round(time.Second)/time.Second)))
	}
	return h
}

// ContentType replaces plain JSON's media type.
func (p *Problem) ContentType(string) string { return ProblemType }
