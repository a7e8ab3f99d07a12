package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// DeadQuery filters failed tasks.
type DeadQuery struct {
	Model, Kind string
	Since       string // a time (RFC 3339), or how long ago
	Retried     bool   // those that were tried again, too
	Limit       int    // 0: the server's default
	Cursor      string
}

func (q DeadQuery) values() string {
	v := url.Values{}
	for name, value := range map[string]string{"model": q.Model, "kind": q.Kind, "since": q.Since, "cursor": q.Cursor} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Retried {
		v.Set("retried", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v.Encode()
}

// Dead returns one page of failed tasks.
func (c *Client) Dead(ctx context.Context, q DeadQuery) (*wire.List, error) {
	out := new(wire.List)
	return out, c.call(ctx, "client.dead", http.MethodGet, "/v1/dead?"+q.values(), nil, out)
}

// DeadSummary counts failed tasks by error and model.
func (c *Client) DeadSummary(ctx context.Context, q DeadQuery) (*wire.DeadSummary, error) {
	out := new(wire.DeadSummary)
	return out, c.call(ctx, "client.dead", http.MethodGet, "/v1/dead/summary?"+q.values(), nil, out)
}

// RetryDead has at most wire.DeadRetriesMax failed tasks tried again. It is harmless to say it twice.
func (c *Client) RetryDead(ctx context.Context, ids []string) ([]wire.DeadResult, error) {
	var out wire.DeadRetried
	err := c.call(ctx, "client.retry", http.MethodPost, "/v1/dead/retry", wire.DeadRetry{IDs: ids}, &out)
	return out.Results, err
}
