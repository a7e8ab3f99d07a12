package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

func enginePath(name, rest string) string { return "/v1/engines/" + url.PathEscape(name) + rest }

// Engines shows the engines of all nodes.
func (c *Client) Engines(ctx context.Context) (*wire.Engines, error) {
	out := new(wire.Engines)
	return out, c.call(ctx, "client.engines", http.MethodGet, "/v1/engines", nil, out)
}

// LoadEngine begins to load an engine. What became of it is in Engines.
func (c *Client) LoadEngine(ctx context.Context, l wire.EngineLoad) (*wire.Engines, error) {
	out := new(wire.Engines)
	return out, c.call(ctx, "client.engine", http.MethodPost, "/v1/engines", l, out)
}

// SwapEngine begins to put another model in an engine's place.
func (c *Client) SwapEngine(ctx context.Context, name string, s wire.EngineSwap) (*wire.Engines, error) {
	out := new(wire.Engines)
	return out, c.call(ctx, "client.engine", http.MethodPost, enginePath(name, "/swap"), s, out)
}

// PromoteEngine begins to give a canary more of the work, or all of it. What became of it is in Engines.
func (c *Client) PromoteEngine(ctx context.Context, name string, p wire.EnginePromote) (*wire.Engines, error) {
	out := new(wire.Engines)
	return out, c.call(ctx, "client.engine", http.MethodPost, enginePath(name, "/promote"), p, out)
}

// RollbackEngine begins to bring an engine's former model back.
func (c *Client) RollbackEngine(ctx context.Context, name string, b wire.EngineBack) (*wire.Engines, error) {
	out := new(wire.Engines)
	return out, c.call(ctx, "client.engine", http.MethodPost, enginePath(name, "/rollback"), b, out)
}

// UnloadEngine begins to take an engine away.
func (c *Client) UnloadEngine(ctx context.Context, name, node string) (*wire.Engines, error) {
	out := new(wire.Engines)
	path := enginePath(name, "")
	if node != "" {
		path += "?" + url.Values{"node": {node}}.Encode()
	}
	return out, c.call(ctx, "client.engine", http.MethodDelete, path, nil, out)
}
