package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Quotas returns the quotas that the caller may see, by tenant.
func (c *Client) Quotas(ctx context.Context) ([]wire.Quota, error) {
	var out wire.Quotas
	err := c.call(ctx, "client.quotas", http.MethodGet, "/v1/quotas", nil, &out)
	return out.Quotas, err
}

// SetQuota makes or replaces a tenant's quota.
func (c *Client) SetQuota(ctx context.Context, s quota.Terms) error {
	return c.call(ctx, "client.quota", http.MethodPut, "/v1/quotas/"+url.PathEscape(s.Tenant), s, new(quota.Terms))
}

// ApplyQuotas makes or replaces the quotas of several tenants, or of none of them.
func (c *Client) ApplyQuotas(ctx context.Context, all []quota.Terms) error {
	return c.call(ctx, "client.quota", http.MethodPut, "/v1/quotas", wire.QuotaSet{Quotas: all}, new(wire.QuotaSet))
}

// DeleteQuota takes a tenant's quota away.
func (c *Client) DeleteQuota(ctx context.Context, tenant string) error {
	return c.call(ctx, "client.quota", http.MethodDelete, "/v1/quotas/"+url.PathEscape(tenant), nil, nil)
}
