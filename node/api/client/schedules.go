package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/schedule"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func schedulePath(name, rest string) string { return "/v1/schedules/" + url.PathEscape(name) + rest }

// CreateSchedule makes a schedule. The same plan again is harmless.
func (c *Client) CreateSchedule(ctx context.Context, p schedule.Plan) (*wire.Schedule, error) {
	out := new(wire.Schedule)
	return out, c.call(ctx, "client.schedule", http.MethodPost, "/v1/schedules", p, out)
}

// Schedules returns all schedules, by name.
func (c *Client) Schedules(ctx context.Context) ([]wire.Schedule, error) {
	var out wire.Schedules
	err := c.call(ctx, "client.schedules", http.MethodGet, "/v1/schedules", nil, &out)
	return out.Schedules, err
}

// Schedule returns one schedule.
func (c *Client) Schedule(ctx context.Context, name string) (*wire.Schedule, error) {
	out := new(wire.Schedule)
	return out, c.call(ctx, "client.schedule", http.MethodGet, schedulePath(name, ""), nil, out)
}

// SaySchedule pauses, resumes or runs a schedule, once however often the call is repeated on the way: the verb is the end of the route.
func (c *Client) SaySchedule(ctx context.Context, name, verb string) (*wire.Schedule, error) {
	out := new(wire.Schedule)
	return out, c.ask(ctx, "client.schedule", http.MethodPost, schedulePath(name, "/"+verb), 0, struct{}{}, out, "Idempotency-Key", uuid.NewString())
}

// DeleteSchedule deletes a schedule. Its tasks stay.
func (c *Client) DeleteSchedule(ctx context.Context, name string) error {
	return c.call(ctx, "client.schedule", http.MethodDelete, schedulePath(name, ""), nil, nil)
}
