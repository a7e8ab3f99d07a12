package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// CreateSink makes a sink. The same definition again is harmless.
func (c *Client) CreateSink(ctx context.Context, d sink.Definition) (*wire.Sink, error) {
	out := new(wire.Sink)
	return out, c.call(ctx, "client.sink", http.MethodPost, c.sinkPath(""), d, out)
}

// Sinks returns all sinks, by name.
func (c *Client) Sinks(ctx context.Context) ([]wire.Sink, error) {
	var out wire.Sinks
	err := c.call(ctx, "client.sinks", http.MethodGet, c.sinkPath(""), nil, &out)
	return out.Sinks, err
}

// Sink returns one sink.
func (c *Client) Sink(ctx context.Context, name string) (*wire.Sink, error) {
	out := new(wire.Sink)
	return out, c.call(ctx, "client.sink", http.MethodGet, c.sinkPath("/"+url.PathEscape(name)), nil, out)
}

// SaySink pauses or resumes a sink: the verb is the end of the route.
func (c *Client) SaySink(ctx context.Context, name, verb string) (*wire.Sink, error) {
	out := new(wire.Sink)
	return out, c.call(ctx, "client.sink", http.MethodPost, c.sinkPath("/"+url.PathEscape(name)+"/"+verb), nil, out)
}

// DeleteSink deletes a sink. What it has written stays.
func (c *Client) DeleteSink(ctx context.Context, name string) error {
	return c.call(ctx, "client.sink", http.MethodDelete, c.sinkPath("/"+url.PathEscape(name)), nil, nil)
}

func (c *Client) sinkPath(rest string) string {
	if c.tenant != "" {
		rest += "?tenant=" + url.QueryEscape(c.tenant)
	}
	return "/v1/sinks" + rest
}
