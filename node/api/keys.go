package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// keyRoutes registers what administrators of tenants use.
func (s *Server) keyRoutes(api huma.API) {
	tags, local := []string{"access"}, huma.Middlewares{s.localOnly}
	huma.Register(api, huma.Operation{OperationID: "who-am-i", Method: "GET", Path: "/v1/whoami", Tags: tags,
		Summary: "Whom the node takes you for", Errors: []int{401}}, s.whoami)
	if s.access.Keys == nil {
		return
	}
	huma.Register(api, huma.Operation{OperationID: "create-key", Method: "POST", Path: "/v1/keys", Tags: tags, Middlewares: local, DefaultStatus: http.StatusCreated,
		Summary: "Create an API key", Description: "The answer has the key itself, this once: only its hash is kept.", Errors: []int{401, 403, 409, 422, 503}}, s.createKey)
	huma.Register(api, huma.Operation{OperationID: "list-keys", Method: "GET", Path: "/v1/keys", Tags: tags, Middlewares: local,
		Summary: "List API keys", Description: "The newest first, without their secrets: those of your tenant; the operator sees all, or those of tenant=NAME.",
		Errors: []int{401, 403, 422, 503}}, s.listKeys)
	huma.Register(api, huma.Operation{OperationID: "get-key", Method: "GET", Path: "/v1/keys/{id}", Tags: tags,
		Summary: "Get an API key", Errors: []int{401, 403, 404, 503}}, s.getKey)
	huma.Register(api, huma.Operation{OperationID: "rotate-key", Method: "POST", Path: "/v1/keys/{id}/rotate", Tags: tags,
		Summary: "Give an API key another secret", Description: "What the key is and may stays. The answer has the new key, this once.",
		Errors: []int{401, 403, 404, 409, 422, 503}}, s.rotateKey)
	huma.Register(api, huma.Operation{OperationID: "revoke-key", Method: "POST", Path: "/v1/keys/{id}/revoke", Tags: tags,
		Summary: "End an API key for ever", Description: "Other nodes may go on believing it for a few seconds. Again is harmless.",
		Errors: []int{401, 403, 404, 503}}, s.revokeKey)
	huma.Register(api, huma.Operation{OperationID: "callback-secret", Method: "GET", Path: "/v1/callback-secret", Tags: tags, Middlewares: local,
		Summary: "The secret that callbacks are signed with", Description: "A tenant's own, for whoever verifies its callbacks (Standard Webhooks). That it was shown is in the audit log.",
		Errors: []int{401, 403, 422, 503}}, s.callbackSecret)
	huma.Register(api, huma.Operation{OperationID: "audit", Method: "GET", Path: "/v1/audit", Tags: tags, Middlewares: local,
		Summary: "What administrators did", Description: "The newest first: what those of your tenant did, and what was done to it; the operator sees all, or what concerns tenant=NAME.",
		Errors: []int{401, 403, 404, 422, 503}}, s.listAudit)
}

type whoamiOutput struct{ Body wire.Caller }

func (s *Server) whoami(ctx context.Context, _ *struct{}) (*whoamiOutput, error) {
	c := access.From(ctx)
	return &whoamiOutput{wire.Caller{Key: c.Key, Name: c.Name, Tenant: c.Tenant, Role: string(c.Role)}}, nil
}

func shownKey(k apikey.Key) wire.Key { return keyAt(k, time.Now()) }

func keyAt(k apikey.Key, now time.Time) wire.Key {
	out := wire.Key{ID: k.ID, Name: k.Name, Tenant: k.Tenant, Role: string(k.Role), Rate: k.Rate, State: "active", CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy,
		RotatedAt: timeOf(k.RotatedAt), ExpiresAt: timeOf(k.ExpiresAt), RevokedAt: timeOf(k.RevokedAt)}
	if k.Before != "" && now.Before(k.Until) {
		out.OldUntil = &k.Until
	}
	switch {
	case out.RevokedAt != nil:
		out.State = "revoked"
	case out.ExpiresAt != nil && !now.Before(*out.ExpiresAt):
		out.State = "expired"
	}
	return out
}

func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

type createKeyInput struct {
	Request string `header:"Idempotency-Key" maxLength:"255" doc:"A repeat under the same one makes no second key: it gives the first another secret."`
	Body    wire.KeyWish
}

type newKeyOutput struct{ Body wire.NewKey }

func (s *Server) createKey(ctx context.Context, in *createKeyInput) (*newKeyOutput, error) {
	who, q := access.From(ctx), in.Body
	w := apikey.Wish{Name: q.Name, Tenant: q.Tenant, Role: apikey.Role(q.Role), Rate: q.Rate, By: who.Key}
	if w.Tenant == "" {
		w.Tenant = who.Tenant
	}
	var err error
	if q.ExpiresIn != "" {
		if w.Lives, err = time.ParseDuration(q.ExpiresIn); err != nil || w.Lives <= 0 {
			return nil, s.problem(ctx, invalid("expires_in", "is %q: use a time from now, like 720h; leave it out for ever", q.ExpiresIn))
		}
	}
	if err = w.Check(); err == nil && w.Tenant != who.Tenant && !who.Operator() {
		err = fault.New(fault.Refused, "api.keys", "", "only the operator makes keys of other tenants")
		s.refused(ctx, who, "a key of tenant "+w.Tenant, err)
	}
	if err == nil {
		err = s.rolled()
	}
	var out wire.NewKey
	if err == nil {
		id := apikey.NewID(who.Tenant+" "+who.Key, in.Request)
		err = s.audited(ctx, "key.create", id, w.Tenant, fmt.Sprintf("%s, role %s", w.Name, w.Role), func() error {
			text, k, err := s.access.Keys.Create(ctx, id, w)
			out = wire.NewKey{Key: shownKey(k), Secret: text}
			return err
		})
		s.access.Gate.Forget(id)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &newKeyOutput{out}, nil
}

type pageInput struct {
	Tenant string `query:"tenant" doc:"For the operator: only what is this tenant's."`
	After  string `query:"after" doc:"Id of the last one of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// whose is the tenant that a list is of; "" is all.
func (in *pageInput) whose(ctx context.Context) (string, error) {
	who := access.From(ctx)
	switch {
	case who.Operator():
		return in.Tenant, nil
	case in.Tenant != "" && in.Tenant != who.Tenant:
		return "", fault.New(fault.Refused, "api.keys", "", "only the operator sees other tenants")
	}
	return who.Tenant, nil
}

type keysOutput struct{ Body wire.Keys }

func (s *Server) listKeys(ctx context.Context, in *pageInput) (*keysOutput, error) {
	whose, err := in.whose(ctx)
	var page []apikey.Key
	out := &keysOutput{}
	if err == nil && in.After != "" {
		_, err = s.ownKey(ctx, in.After)
	}
	if err == nil {
		page, out.Body.HasMore, err = s.access.Keys.List(ctx, whose, in.After, in.Limit)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out.Body.Keys = make([]wire.Key, len(page))
	for i, k := range page {
		out.Body.Keys[i] = shownKey(k)
	}
	return out, nil
}

type keyInput struct {
	ID string `path:"id" maxLength:"64"`
}
type keyOutput struct{ Body wire.Key }

// ownKey returns a key that the caller may see: another tenant's is not there.
func (s *Server) ownKey(ctx context.Context, id string) (apikey.Key, error) {
	k, err := s.access.Keys.Get(ctx, id)
	if who := access.From(ctx); err == nil && !who.Operator() && k.Tenant != who.Tenant {
		err = fault.New(fault.NotFound, "apikey", id, "no such key")
	}
	return k, err
}

func (s *Server) getKey(ctx context.Context, in *keyInput) (*keyOutput, error) {
	k, err := s.ownKey(ctx, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &keyOutput{shownKey(k)}, nil
}

type rotateKeyInput struct {
	Request string `header:"Idempotency-Key" maxLength:"255" doc:"A repeat under the same one leaves the key before as it was."`
	ID      string `path:"id" maxLength:"64"`
	Body    *wire.KeyRotation
}

func (s *Server) rotateKey(ctx context.Context, in *rotateKeyInput) (*newKeyOutput, error) {
	var keep time.Duration
	if in.Body != nil && in.Body.KeepOldFor != "" {
		var err error
		if keep, err = time.ParseDuration(in.Body.KeepOldFor); err != nil {
			return nil, s.problem(ctx, invalid("keep_old_for", "is %q: write it like 24h", in.Body.KeepOldFor))
		}
	}
	k, err := s.ownKey(ctx, in.ID)
	var out wire.NewKey
	if err == nil {
		err = s.audited(ctx, "key.rotate", k.ID, k.Tenant, k.Name, func() error {
			text, k, err := s.access.Keys.Rotate(ctx, k.ID, keep, in.Request)
			out = wire.NewKey{Key: shownKey(k), Secret: text}
			return err
		})
		s.access.Gate.Forget(in.ID)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &newKeyOutput{out}, nil
}

func (s *Server) revokeKey(ctx context.Context, in *keyInput) (*keyOutput, error) {
	k, err := s.ownKey(ctx, in.ID)
	if err == nil {
		err = s.audited(ctx, "key.revoke", k.ID, k.Tenant, k.Name, func() (err error) {
			k, err = s.access.Keys.Revoke(ctx, k.ID)
			return err
		})
		s.access.Gate.Forget(in.ID)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &keyOutput{shownKey(k)}, nil
}

type secretInput struct {
	Tenant string `query:"tenant" doc:"For the operator: whose; your own when empty."`
}

type secretOutput struct {
	Cache string `header:"Cache-Control"`
	Body  wire.CallbackSecret
}

func (s *Server) callbackSecret(ctx context.Context, in *secretInput) (*secretOutput, error) {
	who := access.From(ctx)
	whose, out := cmp.Or(in.Tenant, who.Tenant), &secretOutput{Cache: "no-store"}
	err := tenant.Check(whose)
	if err == nil && whose != who.Tenant && !who.Operator() {
		err = fault.New(fault.Refused, "api.keys", "", "only the operator sees other tenants")
		s.refused(ctx, who, "the callback secret of tenant "+whose, err)
	}
	if err == nil {
		err = s.audited(ctx, "callback_secret.show", "", whose, "", func() (err error) {
			out.Body.Tenant = whose
			out.Body.Secret, err = s.access.CallbackSecret(whose)
			return err
		})
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return out, nil
}

type auditOutput struct{ Body wire.Audit }

func (s *Server) listAudit(ctx context.Context, in *pageInput) (*auditOutput, error) {
	whose, err := in.whose(ctx)
	var page []audit.Entry
	out := &auditOutput{}
	if err == nil {
		page, out.Body.HasMore, err = s.access.Audit.List(ctx, whose, in.After, in.Limit)
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out.Body.Entries = make([]wire.AuditEntry, len(page))
	for i, e := range page {
		out.Body.Entries[i] = wire.AuditEntry{ID: e.ID, At: e.At, Tenant: e.Tenant, About: e.About, By: e.By, Remote: e.Remote, Act: e.Act, Object: e.Object,
			Detail: e.Detail, RequestID: e.Request, EndedAt: timeOf(e.EndedAt), Error: e.Error}
	}
	return out, nil
}
