package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Access is who may use the API.
type Access struct {
	Gate  *access.Gate
	Keys  *apikey.Keys
	Audit *audit.Log

	Rolled         func() error                        // nil: no node is there that is too old for keys, tenants, sinks, schedules and quotas
	CallbackSecret func(tenant string) (string, error) // what a tenant's callbacks are signed with
}

// WithAccess asks clients for keys, as the gate says, and serves the routes of keys and of the audit log. Without it
// whoever reaches the server is the operator.
func WithAccess(a Access) Option { return func(s *Server) { s.access = a } }

// admit lets a request in for whom it comes from, and puts that into its context.
func (s *Server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need := access.NeedOf(r.Method, r.URL.Path)
		if need.Anyone {
			next.ServeHTTP(w, r)
			return
		}
		who, text := access.Caller{Tenant: tenant.Default, Role: apikey.Admin, Open: true}, access.Text(r.Header)
		var err error
		if s.access.Gate != nil {
			who, err = s.access.Gate.Who(r.Context(), text)
		}
		r.Header.Del("Authorization") // nobody behind this has any use for it
		r.Header.Del("X-Api-Key")
		if err == nil {
			err = who.Allow(need)
		}
		s.attempted(r, who, need, err)
		switch {
		case err == nil:
			ctx, cancel := context.WithCancelCause(access.With(r.Context(), who))
			defer cancel(nil)
			if s.access.Gate != nil && !who.Open {
				defer s.access.Gate.Attend(ctx, text, func() { cancel(errRevoked) })()
			}
			in := r.WithContext(ctx)
			defer func() { r.Pattern = in.Pattern }() // which the mux finds, for metrics
			next.ServeHTTP(w, in)
			return
		case access.Unknown(err):
			w.Header().Set("WWW-Authenticate", `Bearer realm="autoglm"`)
			p := wire.NewProblem(http.StatusUnauthorized, fault.Refused, "", fault.Plain(err))
			err = p.With("", fault.RemedyOf(err))
		}
		s.refuse(w, r, err)
	})
}

// rolled refuses to begin what a node of an older version could not go on with.
func (s *Server) rolled() error {
	if s.access.Rolled == nil {
		return nil
	}
	return s.access.Rolled()
}

// open tells whether who shows no key is let in.
func (s *Server) open() bool { return s.access.Gate == nil || s.access.Gate.Open() }

// errRevoked ends a request that goes on when its key has ended.
var errRevoked = errors.New("the key of this request is not good any more")

// audited does what an administrator asks for, and keeps that they did.
func (s *Server) audited(ctx context.Context, act, object, about, detail string, do func() error) error {
	if s.access.Audit == nil {
		return do()
	}
	who := access.From(ctx)
	e := audit.Entry{Tenant: who.Tenant, By: who.Key, Remote: remote(ctx), Act: act, Object: object, Detail: detail, Request: requestID(ctx)}
	if about != who.Tenant {
		e.About = about
	}
	if who.Open {
		e.By = "anonymous"
	}
	return s.access.Audit.Do(ctx, e, do)
}
