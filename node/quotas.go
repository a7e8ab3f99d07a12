package node

import (
	"context"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// quotas is the quotas for clients, with what is used.
type quotas struct {
	*quota.Quotas
	tally func(context.Context) (task.Tally, error)
	spent func(context.Context) (map[string]quota.Spent, error)
}

// Used returns what tenants have in the cluster now.
func (q quotas) Used(ctx context.Context) (map[string]wire.QuotaUse, error) {
	t, err := q.tally(ctx)
	if err != nil {
		return nil, err
	}
	spent, err := q.spent(ctx)
	if err != nil {
		return nil, err
	}
	use := func(name string) wire.QuotaUse {
		n := t.Of(name)
		return wire.QuotaUse{Running: int(n[task.Running]), Waiting: int(n[task.Pending]), Bytes: int(t.Bytes[name]), Tokens: spent[name].Tokens, Requests: spent[name].Requests}
	}
	all := map[string]wire.QuotaUse{tenant.Default: use(tenant.Default)}
	for name := range t.Tenants {
		all[name] = use(name)
	}
	for name := range t.Bytes { // files may be all that it has
		all[name] = use(name)
	}
	return all, nil
}
