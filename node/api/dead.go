package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// deadMax bounds the failed tasks that one summary looks at.
const deadMax = 20_000

// deadRoutes registers /v1/dead: the failed tasks, which nothing tries again by itself.
func (s *Server) deadRoutes(api huma.API) {
	huma.Register(api, huma.Operation{OperationID: "list-dead", Method: "GET", Path: "/v1/dead", Tags: []string{"dead"},
		Summary: "List failed tasks", Description: "In the order in which they failed, without those that were tried again.", Errors: []int{422, 503}}, s.listDead)
	huma.Register(api, huma.Operation{OperationID: "summarize-dead", Method: "GET", Path: "/v1/dead/summary", Tags: []string{"dead"},
		Summary: "Count failed tasks by error and model", Description: "The oldest 20,000 of them. A node answers four such requests, and explanations of tasks, of one tenant at once.", Errors: []int{422, 429, 503}}, s.summarizeDead)
	huma.Register(api, huma.Operation{OperationID: "retry-dead", Method: "POST", Path: "/v1/dead/retry", Tags: []string{"dead"},
		Summary: "Try failed tasks again",
		Description: "A final state never changes, so each becomes another task: the same but for its id, ID.retry-1, its retry_of, and its deadline and not_before, which it has not. " +
			"The failed one then has retried_as. The same wish again finds the same tasks.",
		Errors: []int{422, 503}}, s.retryDead)
}

// DeadFilter is exported for huma, which looks into no other embedded struct.
type DeadFilter struct {
	Model   string `query:"model" maxLength:"256" doc:"Only tasks of this model."`
	Kind    string `query:"kind" maxLength:"64" enum:"unavailable,timeout,overloaded,malformed,invalid,too_large,refused,not_found,conflict,corrupt,no_space,fenced,unknown" doc:"Only tasks that failed with an error of this kind, like timeout."`
	Since   string `query:"since" example:"24h" doc:"Only tasks that failed since: a time (RFC 3339), or how long ago."`
	Retried bool   `query:"retried" doc:"Those that were tried again, too."`
}

func (f *DeadFilter) query() (q Query, err error) {
	q = Query{State: task.Failed, Model: f.Model, ErrorKind: f.Kind, Open: !f.Retried}
	if f.Since == "" {
		return q, nil
	}
	if ago, err := time.ParseDuration(f.Since); err == nil && ago >= 0 {
		q.Since = time.Now().Add(-ago)
	} else if q.Since, err = time.Parse(time.RFC3339, f.Since); err != nil {
		return q, invalid("since", "is %q: use a time like 2026-01-02T15:04:05Z or a duration like 24h", f.Since)
	}
	return q, nil
}

type listDeadInput struct {
	DeadFilter
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Tasks in a page."`
	Cursor string `query:"cursor" maxLength:"65536" doc:"next_cursor of the page before."`
}

func (s *Server) listDead(ctx context.Context, in *listDeadInput) (*listOutput, error) {
	q, err := in.query()
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	q.Limit, q.Cursor = in.Limit, in.Cursor
	items, next, err := s.svc.List(ctx, q)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return listOf(items, next), nil
}

type deadSummaryOutput struct {
	Body wire.DeadSummary
}

func (s *Server) summarizeDead(ctx context.Context, in *DeadFilter) (*deadSummaryOutput, error) {
	q, err := in.query()
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	leave, err := s.look(ctx)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	defer leave()
	q.Limit = 1000
	var g deadGroups
	for g.total < deadMax {
		items, next, err := s.svc.List(ctx, q)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		g.add(items)
		if q.Cursor = next; next == "" {
			break
		}
	}
	return &deadSummaryOutput{Body: g.summary(q.Cursor != "")}, nil
}

// deadGroups adds failed tasks up. It is a value without a clock; zero is empty.
type deadGroups struct {
	by    map[[2]string]*wire.DeadGroup
	total int
}

func (g *deadGroups) add(items []Item) {
	if g.by == nil {
		g.by = map[[2]string]*wire.DeadGroup{}
	}
	for _, it := range items {
		r, f := it.Record, task.Failure{Kind: "unknown"}
		if r.Error != nil {
			f = *r.Error
		}
		key := [2]string{f.Kind, r.Model}
		x := g.by[key]
		if x == nil {
			x = &wire.DeadGroup{Kind: f.Kind, Model: r.Model, First: r.EndedAt}
			g.by[key] = x
		}
		if x.Count++; r.EndedAt.Before(x.First) {
			x.First = r.EndedAt
		}
		if !r.EndedAt.Before(x.Last) {
			x.Last, x.Example, x.Message = r.EndedAt, it.ID, f.Message
		}
		g.total++
	}
}

func (g *deadGroups) summary(more bool) wire.DeadSummary {
	out := wire.DeadSummary{Groups: []wire.DeadGroup{}, Total: g.total, Partial: more}
	for _, x := range g.by {
		out.Groups = append(out.Groups, *x)
	}
	slices.SortFunc(out.Groups, func(a, b wire.DeadGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Model, b.Model))
	})
	return out
}

type retryDeadInput struct {
	Body wire.DeadRetry
}

type retryDeadOutput struct {
	Body wire.DeadRetried
}

func (s *Server) retryDead(ctx context.Context, in *retryDeadInput) (*retryDeadOutput, error) {
	out := &retryDeadOutput{Body: wire.DeadRetried{Results: []wire.DeadResult{}}}
	for i, r := range s.svc.Retry(ctx, in.Body.IDs) {
		out.Body.Results = append(out.Body.Results, wire.DeadResult{RetryOf: in.Body.IDs[i], Submitted: submittedOf(ctx, 0, r)})
	}
	return out, nil
}
