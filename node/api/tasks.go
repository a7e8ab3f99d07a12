package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

type getInput struct {
	ID          string `path:"id" maxLength:"256" doc:"The task's id."`
	Wait        string `query:"wait" doc:"Answer only once the task is final, or after so long." example:"30s"`
	IfNoneMatch string `header:"If-None-Match" doc:"Answer 304 when the version is still this ETag."`
}

type taskOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   *wire.Task
}

func (s *Server) get(ctx context.Context, in *getInput) (*taskOutput, error) {
	var wait time.Duration
	if in.Wait != "" {
		var err error
		if wait, err = time.ParseDuration(in.Wait); err != nil || wait < 0 || wait > s.lim.WaitMax {
			return nil, s.problem(ctx, invalid("wait", "is %q: use 0s to %v", in.Wait, s.lim.WaitMax))
		}
	}
	rec, err := s.read(ctx, in.ID, wait)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &taskOutput{Status: http.StatusOK, ETag: etag(rec.Version)}
	if matches(in.IfNoneMatch, out.ETag) {
		out.Status = http.StatusNotModified
		return out, nil
	}
	out.Body = wire.TaskOf(in.ID, rec)
	return out, nil
}

// read returns the task at once, or, with a wait, once it is final or the wait is over.
func (s *Server) read(ctx context.Context, id string, wait time.Duration) (*task.Record, error) {
	if wait <= 0 {
		return s.svc.Get(ctx, id)
	}
	release, p := s.takeStream(ctx)
	if p != nil {
		return nil, p
	}
	defer release()
	changed, stop, err := s.svc.Watch(ctx, id)
	if err != nil {
		return nil, err
	}
	defer stop()
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		rec, err := s.svc.Get(ctx, id)
		if err != nil || rec.State.Final() {
			return rec, err
		}
		select {
		case <-changed:
		case <-over.C:
			return rec, nil
		case <-s.closing:
			return rec, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// matches implements If-None-Match: a list of tags, or *.
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == tag || part == "*" {
			return true
		}
	}
	return false
}

// metaPrefix starts the name of a query parameter that filters by metadata.
const metaPrefix = "metadata."

type listInput struct {
	State  string `query:"state" enum:"pending,running,completed,failed,cancelled" doc:"Only tasks in this state."`
	Model  string `query:"model" maxLength:"256" doc:"Only tasks submitted for this model."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Tasks in a page."`
	Cursor string `query:"cursor" maxLength:"65536" doc:"next_cursor of the page before."`

	pairs map[string]string // the parameters like metadata.job=dates, which have no fixed name
}

// Resolve implements huma.Resolver. It also refuses parameters that the route does not
// have: a misspelt filter would silently match everything.
func (m *listInput) Resolve(c huma.Context) []error {
	var err error
	u := c.URL()
	known := map[string]bool{}
	for _, p := range c.Operation().Parameters {
		known[p.Name] = p.In == "query"
	}
	m.pairs, err = metadataOf(u.Query(), known)
	if err != nil {
		return []error{err}
	}
	return nil
}

// metadataOf returns the metadata filters in a query; every other name must be known.
func metadataOf(query map[string][]string, known map[string]bool) (map[string]string, error) {
	pairs := map[string]string{}
	for name, values := range query {
		key, is := strings.CutPrefix(name, metaPrefix)
		switch {
		case !is && !known[name]:
			return nil, invalid(name, "is no parameter of this route")
		case !is:
		case len(values) != 1:
			return nil, invalid(name, "is given %d times: give it once", len(values))
		case len(pairs) == task.MetadataMax:
			return nil, invalid(name, "is one filter too many: the limit is %d", task.MetadataMax)
		default:
			pairs[key] = values[0]
		}
	}
	return pairs, nil
}

type listOutput struct {
	Body wire.List
}

func (s *Server) list(ctx context.Context, in *listInput) (*listOutput, error) {
	state, _ := task.ParseState(in.State) // None when empty; huma refused all else
	q := Query{State: state, Model: in.Model, Metadata: in.pairs, Limit: in.Limit, Cursor: in.Cursor}
	items, next, err := s.svc.List(ctx, q)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return listOf(items, next), nil
}

func listOf(items []Item, next string) *listOutput {
	out := &listOutput{Body: wire.List{Tasks: make([]wire.Brief, len(items)), NextCursor: next}}
	for i, it := range items {
		out.Body.Tasks[i] = wire.BriefOf(it.ID, it.Record)
	}
	return out
}

type deleteInput struct {
	ID string `path:"id" maxLength:"256" doc:"The task's id."`
}

func (s *Server) delete(ctx context.Context, in *deleteInput) (*struct{}, error) {
	if err := s.svc.Delete(ctx, in.ID); err != nil {
		return nil, s.problem(ctx, err)
	}
	return nil, nil
}

type cancelInput struct {
	ID   string `path:"id" maxLength:"256" doc:"The task's id."`
	Body *wire.Cancel
}

// cancel is idempotent: a task that is cancelled already answers 200 again; one that ended
// otherwise is a conflict.
func (s *Server) cancel(ctx context.Context, in *cancelInput) (*taskOutput, error) {
	reason := "asked by a client"
	if in.Body != nil && in.Body.Reason != "" {
		reason = in.Body.Reason
	}
	rec, err := s.svc.Cancel(ctx, in.ID, reason)
	if err != nil {
		again := fault.KindOf(err) == fault.Conflict && rec != nil && rec.State == task.Cancelled
		if !again {
			return nil, s.problem(ctx, err)
		}
	}
	if rec == nil {
		return nil, s.problem(ctx, errors.New("api.cancel: the service returned no record"))
	}
	return &taskOutput{Status: http.StatusOK, ETag: etag(rec.Version), Body: wire.TaskOf(in.ID, rec)}, nil
}
