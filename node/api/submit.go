package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/ndjson"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// errorsMax bounds Problem.Errors.
const errorsMax = 100

// submit takes one task, an array, or a stream, as the Content-Type and the first
// character say.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		s.refuse(w, r, wire.NewProblem(http.StatusUnsupportedMediaType, fault.Invalid, "Content-Encoding",
			fmt.Sprintf("Content-Encoding %q is not understood", enc)).With("", "send it unpacked"))
		return
	}
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media {
	case "application/json":
		s.submitJSON(w, r)
	case "application/x-ndjson", "application/jsonl", "application/x-jsonlines":
		s.submitStream(w, r)
	default:
		s.refuse(w, r, wire.NewProblem(http.StatusUnsupportedMediaType, fault.Invalid, "Content-Type",
			fmt.Sprintf("Content-Type %q is not understood", r.Header.Get("Content-Type"))).
			With("", "use application/json for a task or an array, application/x-ndjson for a task a line"))
	}
}

func (s *Server) submitJSON(w http.ResponseWriter, r *http.Request) {
	body, err := s.readBody(w, r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	body = ndjson.TrimBOM(body)
	if t := bytes.TrimLeft(body, " \t\r\n"); len(t) > 0 && t[0] == '[' {
		s.submitArray(w, r, body)
		return
	}
	spec, err := decodeSpec(body)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	withID(spec)
	res := s.svc.Submit(r.Context(), []*task.Spec{spec})[0]
	if res.Err != nil {
		s.refuse(w, r, res.Err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Location", taskPath(res.ID))
	h.Set("Etag", etag(res.Version))
	status := http.StatusCreated
	if res.Existed {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	writeJSON(w, submittedOf(r.Context(), 0, res))
}

// readBody reads all of a JSON body in the time and size that it may take.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.lim.ReadTimeout)) // a recorder in a test has none
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.lim.BodyMax))
	_ = rc.SetReadDeadline(time.Time{})
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge("http.body_max", s.lim.BodyMax, "the body").With("http.body_max",
			"send a stream instead: one task a line with Content-Type application/x-ndjson")
	case err != nil:
		return nil, malformed("", "the body could not be read: %v", err)
	}
	return b, nil
}

func (s *Server) submitArray(w http.ResponseWriter, r *http.Request, body []byte) {
	entries, err := decodeArray(body, s.lim.ArrayMax)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	lines := make([]ndjson.Line, len(entries))
	for i, e := range entries {
		lines[i] = ndjson.Line{Number: i + 1, Text: e}
	}
	many := wire.Many{Results: s.submitLines(r.Context(), lines)}
	for i := range many.Results {
		many.Summary.Count(&many.Results[i])
	}
	if n := len(many.Results); n > 0 && many.Summary.Rejected == int64(n) {
		s.refuse(w, r, noneAccepted(many.Results))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, many)
}

// noneAccepted lets a client see by the status alone that nothing was kept: the first
// entry's problem stands for all.
func noneAccepted(results []wire.Submitted) *wire.Problem {
	p := *results[0].Error
	p.Detail = fmt.Sprintf("none of %d tasks was accepted; the first one: %s", len(results), p.Detail)
	for i := range min(len(results), errorsMax) {
		e := *results[i].Error
		e.Key = fmt.Sprintf("[%d].%s", i, e.Key)
		p.Errors = append(p.Errors, e)
	}
	return &p
}

// withID names a task before it is submitted, so that trying again cannot make a second one.
func withID(spec *task.Spec) {
	if spec.ID == "" {
		spec.ID = uuid.Must(uuid.NewV7()).String()
	}
}

func submittedOf(ctx context.Context, number int, res Submitted) wire.Submitted {
	out := wire.Submitted{Line: number, ID: res.ID}
	if res.Err != nil {
		p := *wire.ProblemOf(res.Err)
		p.Detail, p.Key = tenant.Plain(ctx, p.Detail), tenant.Plain(ctx, p.Key)
		out.Error = &p
		return out
	}
	out.State, out.Version, out.Existed = res.State, res.Version, res.Existed
	return out
}

func taskPath(id string) string { return "/v1/tasks/" + url.PathEscape(id) }

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }
