package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/schedule"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Schedules is what the routes of schedules need of the node; *schedule.Schedules is one.
type Schedules interface {
	Create(ctx context.Context, p schedule.Plan) (schedule.State, error)
	Get(ctx context.Context, name string) (schedule.State, error)
	List(ctx context.Context) ([]schedule.State, error)
	Say(ctx context.Context, name string, msg any) (schedule.State, error)
}

// WithSchedules serves /v1/schedules.
func WithSchedules(x Schedules) Option { return func(s *Server) { s.schedules = x } }

// scheduleRoutes registers /v1/schedules. A plan holds a task, whose JSON only this package's own decoder reads as POST /v1/tasks does.
func (s *Server) scheduleRoutes(mux *http.ServeMux, api huma.API) {
	const tag = "schedules"
	mux.HandleFunc("POST /v1/schedules", s.createSchedule)
	reg := api.OpenAPI().Components.Schemas
	of := func(v any) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{"application/json": {Schema: reg.Schema(typeOf(v), true, "")}}
	}
	api.OpenAPI().AddOperation(&huma.Operation{OperationID: "create-schedule", Method: "POST", Path: "/v1/schedules", Tags: []string{tag},
		Summary:     "Create a schedule",
		Description: "A task is submitted at each time that cron names, from now on; the answer has the next of them. The same plan again is harmless.",
		RequestBody: &huma.RequestBody{Required: true, Content: of(schedule.Plan{})},
		Responses: map[string]*huma.Response{"201": {Description: "The schedule", Content: of(wire.Schedule{})},
			"default": {Description: "Refused", Content: map[string]*huma.MediaType{wire.ProblemType: {Schema: reg.Schema(typeOf(wire.Problem{}), true, "")}}}}})
	huma.Register(api, huma.Operation{OperationID: "list-schedules", Method: "GET", Path: "/v1/schedules", Tags: []string{tag},
		Summary: "List schedules", Errors: []int{503}}, s.listSchedules)
	huma.Register(api, huma.Operation{OperationID: "get-schedule", Method: "GET", Path: "/v1/schedules/{name}", Tags: []string{tag},
		Summary: "Get a schedule, its next times and its newest runs", Errors: []int{404, 503}}, s.getSchedule)
	huma.Register(api, huma.Operation{OperationID: "delete-schedule", Method: "DELETE", Path: "/v1/schedules/{name}", Tags: []string{tag}, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a schedule", Description: "Its tasks stay. Its name may be used again.", Errors: []int{404, 503}}, s.deleteSchedule)
	for verb, d := range map[string]struct {
		summary, text string
		msg           func(*scheduleInput) any
	}{
		"pause":  {"Pause a schedule", "Nothing is submitted until it is resumed.", func(*scheduleInput) any { return schedule.Pause{} }},
		"resume": {"Let a schedule go on", "With the next time from now on: those that passed meanwhile are left out.", func(*scheduleInput) any { return schedule.Resume{} }},
		"run": {"Submit a schedule's task now", "Whatever its times, its overlap, and whether it is paused.", func(in *scheduleInput) any {
			if in.Request == "" {
				in.Request = uuid.NewString()
			}
			return schedule.Fire{Request: uuid.NewSHA1(uuid.NameSpaceOID, []byte(in.Request)).String()}
		}},
	} {
		huma.Register(api, huma.Operation{OperationID: verb + "-schedule", Method: "POST", Path: "/v1/schedules/{name}/" + verb, Tags: []string{tag},
			Summary: d.summary, Description: d.text, Errors: []int{404, 503}},
			func(ctx context.Context, in *scheduleInput) (*scheduleOutput, error) {
				st, err := s.changeSchedule(ctx, "schedule."+verb, in.Name, d.msg(in))
				if err != nil {
					return nil, s.problem(ctx, err)
				}
				return &scheduleOutput{Body: wire.ScheduleOf(&st)}, nil
			})
	}
}

type scheduleInput struct {
	Name    string `path:"name" maxLength:"63" doc:"The schedule's name."`
	Request string `header:"Idempotency-Key" maxLength:"255" doc:"Of a run: a repeat under the same one submits no second task."`
}

type scheduleOutput struct {
	Body wire.Schedule
}

type schedulesOutput struct {
	Body wire.Schedules
}

func (s *Server) createSchedule(w http.ResponseWriter, r *http.Request) {
	body, err := s.readBody(w, r)
	var p schedule.Plan
	if err == nil {
		p, err = decodePlan(body)
	}
	var st schedule.State
	if err == nil {
		err = s.rolled()
	}
	if err == nil {
		err = s.audited(r.Context(), "schedule.create", p.Name, tenant.From(r.Context()), p.Cron, func() (err error) {
			st, err = s.schedules.Create(r.Context(), p)
			return err
		})
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Location", "/v1/schedules/"+url.PathEscape(p.Name))
	w.WriteHeader(http.StatusCreated)
	writeJSON(w, wire.ScheduleOf(&st))
}

// decodePlan reads a plan, and its task as POST /v1/tasks does.
func decodePlan(body []byte) (p schedule.Plan, err error) {
	if err := checkObject(body); err != nil {
		return p, err
	}
	var parts struct {
		schedule.Plan
		Task json.RawMessage `json:"task"` // hides the plan's own
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&parts); err != nil {
		return p, jsonProblem(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return p, malformed("", "there is more after the JSON object")
	}
	p = parts.Plan
	if len(parts.Task) > 0 {
		p.Task, err = decodeSpec(parts.Task)
	}
	return p, err
}

// changeSchedule tells a schedule something, and keeps that it was told.
func (s *Server) changeSchedule(ctx context.Context, act, name string, msg any) (st schedule.State, err error) {
	err = s.audited(ctx, act, name, tenant.From(ctx), "", func() (err error) {
		st, err = s.schedules.Say(ctx, name, msg)
		return err
	})
	return st, err
}

func (s *Server) getSchedule(ctx context.Context, in *scheduleInput) (*scheduleOutput, error) {
	st, err := s.schedules.Get(ctx, in.Name)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &scheduleOutput{Body: wire.ScheduleOf(&st)}, nil
}

func (s *Server) listSchedules(ctx context.Context, _ *struct{}) (*schedulesOutput, error) {
	all, err := s.schedules.List(ctx)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &schedulesOutput{Body: wire.Schedules{Schedules: []wire.Schedule{}}}
	for i := range all {
		out.Body.Schedules = append(out.Body.Schedules, wire.ScheduleOf(&all[i]))
	}
	return out, nil
}

func (s *Server) deleteSchedule(ctx context.Context, in *scheduleInput) (*struct{}, error) {
	if _, err := s.changeSchedule(ctx, "schedule.delete", in.Name, schedule.Delete{}); err != nil {
		return nil, s.problem(ctx, err)
	}
	return nil, nil
}
