package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Quotas is what the routes of quotas need of the node.
type Quotas interface {
	Book(ctx context.Context) (quota.Book, error)
	Set(ctx context.Context, s quota.Terms) error
	// Apply sets several, or none of them.
	Apply(ctx context.Context, all []quota.Terms) error
	Delete(ctx context.Context, tenant string) error
	// Used returns what tenants have in the cluster now.
	Used(ctx context.Context) (map[string]wire.QuotaUse, error)
}

// WithQuotas serves /v1/quotas.
func WithQuotas(q Quotas) Option { return func(s *Server) { s.quotas = q } }

func (s *Server) quotaRoutes(api huma.API) {
	tags, local := []string{"quotas"}, huma.Middlewares{s.localOnly}
	huma.Register(api, huma.Operation{OperationID: "list-quotas", Method: "GET", Path: "/v1/quotas", Tags: tags, Middlewares: local,
		Summary: "List quotas, and what is used of them", Description: "Those of all tenants for the operator, else your tenant's.", Errors: []int{503}}, s.listQuotas)
	huma.Register(api, huma.Operation{OperationID: "set-quota", Method: "PUT", Path: "/v1/quotas/{tenant}", Tags: tags, Middlewares: local,
		Summary: "Set the quota of a tenant", Description: "In place of the one before. All nodes go by it within seconds; what runs already is not ended.",
		Errors: []int{403, 404, 409, 422, 503}}, s.setQuota)
	huma.Register(api, huma.Operation{OperationID: "apply-quotas", Method: "PUT", Path: "/v1/quotas", Tags: tags, Middlewares: local,
		Summary: "Set the quotas of several tenants", Description: "All of them, or with an error none. Those of other tenants stay as they are.",
		Errors: []int{403, 404, 409, 422, 503}}, s.applyQuotas)
	huma.Register(api, huma.Operation{OperationID: "delete-quota", Method: "DELETE", Path: "/v1/quotas/{tenant}", Tags: tags, Middlewares: local, DefaultStatus: http.StatusNoContent,
		Summary: "Take the quota of a tenant away", Errors: []int{403, 404, 422, 503}}, s.deleteQuota)
}

type quotasOutput struct{ Body wire.Quotas }

func (s *Server) listQuotas(ctx context.Context, _ *struct{}) (*quotasOutput, error) {
	book, err := s.quotas.Book(ctx)
	var used map[string]wire.QuotaUse
	if err == nil {
		used, err = s.quotas.Used(ctx)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &quotasOutput{Body: wire.Quotas{Quotas: []wire.Quota{}}}
	who := access.From(ctx)
	for _, name := range slices.Sorted(maps.Keys(book.Terms)) {
		if name == who.Tenant || who.Operator() || who.Tenant == "" {
			out.Body.Quotas = append(out.Body.Quotas, wire.Quota{Terms: book.Terms[name], Used: used[name]})
		}
	}
	return out, nil
}

type setQuotaInput struct {
	Tenant string `path:"tenant" maxLength:"64"`
	Body   quota.Terms
}

type quotaOutput struct{ Body quota.Terms }

func (s *Server) setQuota(ctx context.Context, in *setQuotaInput) (*quotaOutput, error) {
	spec := in.Body.Numbered()
	var err error
	switch {
	case spec.Tenant == "":
		spec.Tenant = in.Tenant
	case spec.Tenant != in.Tenant:
		err = fault.New(fault.Invalid, "api.quotas", "tenant", "is %q in the body and %q in the path", spec.Tenant, in.Tenant)
	}
	if err == nil {
		err = spec.Check()
	}
	if err == nil {
		err = s.tenantThere(ctx, spec.Tenant)
	}
	if err == nil {
		err = s.rolled()
	}
	if err == nil {
		err = s.audited(ctx, "quota.set", spec.Tenant, spec.Tenant, spec.String(), func() error { return s.quotas.Set(ctx, spec) })
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &quotaOutput{spec}, nil
}

type applyQuotasInput struct{ Body wire.QuotaSet }

type applyQuotasOutput struct{ Body wire.QuotaSet }

// applyQuotas checks all of them before the first is set.
func (s *Server) applyQuotas(ctx context.Context, in *applyQuotasInput) (*applyQuotasOutput, error) {
	all, seen := make([]quota.Terms, 0, len(in.Body.Quotas)), map[string]bool{}
	for i, given := range in.Body.Quotas {
		spec := given.Numbered()
		err := spec.Check()
		if err == nil && seen[spec.Tenant] {
			err = fault.New(fault.Invalid, "api.quotas", "tenant", "%s has another document before", spec.Tenant).WithRemedy("put both into one")
		}
		if err == nil {
			err = s.tenantThere(ctx, spec.Tenant)
		}
		if err != nil {
			p := *wire.ProblemOf(err)
			p.Detail = fmt.Sprintf("document %d: %s; none of the %d was set", i+1, p.Detail, len(in.Body.Quotas))
			return nil, s.problem(ctx, &p)
		}
		all, seen[spec.Tenant] = append(all, spec), true
	}
	err := s.rolled()
	if err == nil {
		do := func() error { return s.quotas.Apply(ctx, all) }
		for _, spec := range all { // each tenant finds its own
			then := do
			do = func() error { return s.audited(ctx, "quota.set", spec.Tenant, spec.Tenant, spec.String(), then) }
		}
		err = do()
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &applyQuotasOutput{wire.QuotaSet{Quotas: all}}, nil
}

type quotaInput struct {
	Tenant string `path:"tenant" maxLength:"64"`
}

func (s *Server) deleteQuota(ctx context.Context, in *quotaInput) (*struct{}, error) {
	err := tenant.Check(in.Tenant)
	var book quota.Book
	if err == nil {
		book, err = s.quotas.Book(ctx)
	}
	if _, has := book.Terms[in.Tenant]; err == nil && !has {
		err = fault.New(fault.NotFound, "api.quotas", in.Tenant, "this tenant has no quota").WithRemedy("autoglm quota list shows those that have one")
	}
	if err == nil {
		err = s.audited(ctx, "quota.delete", in.Tenant, in.Tenant, "", func() error { return s.quotas.Delete(ctx, in.Tenant) })
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return nil, nil
}
