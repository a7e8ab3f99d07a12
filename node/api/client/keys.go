package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// CreateKey makes an API key, one however often the call is repeated on the way.
func (c *Client) CreateKey(ctx context.Context, w wire.KeyWish) (*wire.NewKey, error) {
	k := &wire.NewKey{}
	return k, c.ask(ctx, "client.key", http.MethodPost, "/v1/keys", 0, w, k, "Idempotency-Key", uuid.NewString())
}

// RotateKey gives a key another secret; keepOldFor "" ends the one before at once.
func (c *Client) RotateKey(ctx context.Context, id, keepOldFor string) (*wire.NewKey, error) {
	k := &wire.NewKey{}
	return k, c.ask(ctx, "client.key", http.MethodPost, "/v1/keys/"+url.PathEscape(id)+"/rotate", 0, wire.KeyRotation{KeepOldFor: keepOldFor}, k, "Idempotency-Key", uuid.NewString())
}

// RevokeKey ends a key for ever.
func (c *Client) RevokeKey(ctx context.Context, id string) (*wire.Key, error) {
	k := &wire.Key{}
	return k, c.call(ctx, "client.key", http.MethodPost, "/v1/keys/"+url.PathEscape(id)+"/revoke", struct{}{}, k)
}

// Keys returns a page of keys, the newest first; tenant "" is all that the caller may see.
func (c *Client) Keys(ctx context.Context, tenant, after string, limit int) (*wire.Keys, error) {
	k := &wire.Keys{}
	return k, c.call(ctx, "client.keys", http.MethodGet, "/v1/keys?"+page(tenant, after, limit), nil, k)
}

// Audit returns a page of what administrators did, the newest first.
func (c *Client) Audit(ctx context.Context, tenant, after string, limit int) (*wire.Audit, error) {
	a := &wire.Audit{}
	return a, c.call(ctx, "client.audit", http.MethodGet, "/v1/audit?"+page(tenant, after, limit), nil, a)
}

// CallbackSecret returns what a tenant's callbacks are signed with; tenant "" is the caller's own.
func (c *Client) CallbackSecret(ctx context.Context, tenant string) (*wire.CallbackSecret, error) {
	s := &wire.CallbackSecret{}
	return s, c.call(ctx, "client.secret", http.MethodGet, "/v1/callback-secret?tenant="+url.QueryEscape(tenant), nil, s)
}

// WhoAmI returns whom the node takes this client for.
func (c *Client) WhoAmI(ctx context.Context) (*wire.Caller, error) {
	w := &wire.Caller{}
	return w, c.call(ctx, "client.whoami", http.MethodGet, "/v1/whoami", nil, w)
}

func page(tenant, after string, limit int) string {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if tenant != "" {
		q.Set("tenant", tenant)
	}
	if after != "" {
		q.Set("after", after)
	}
	return q.Encode()
}
