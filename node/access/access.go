// Package access decides who calls and what they may: a request shows a key, the key says whose it is and in which role. A node that
// is alone on its machine may be open: then whoever reaches it is its operator, and a key is believed all the same.
//
//	Authorization: Bearer ag_… ──► Who ──► Caller{tenant, role} ──► Allow(method, route)
//	                               │ a few seconds' memory
//	                               └──► package apikey, or the operator's root key of the configuration
package access

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/actorv1/actorv1connect"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	believed   = 5 * time.Second  // a key that was looked up
	atMost     = 30 * time.Second // where it cannot be looked up again, because its shard has no owner for the moment
	lookWithin = 2 * time.Second
	looksMax   = 32   // for keys never seen, at once; more are told to come again
	keptMax    = 4096 // keys that are remembered
	absentMax  = 1024 // ids that are no key's, likewise
	burstMin   = 10   // requests at once, whatever the rate
)

// Caller is who calls.
type Caller struct {
	Key    string // id of the key; "" where none is needed
	Name   string // of the key
	Tenant string
	Role   apikey.Role
	Open   bool // nobody was asked for a key
}

// Operator tells whether the caller runs the cluster, not only something on it.
func (c Caller) Operator() bool { return c.Tenant == tenant.Default }

// Keys looks up keys; *apikey.Keys does.
type Keys interface {
	Get(ctx context.Context, id string) (apikey.Key, error)
}

// Gate knows callers by their keys. It is safe for many goroutines.
type Gate struct {
	open bool
	root apikey.Root // none: no ID
	keys Keys
	now  func() time.Time

	looks  chan struct{}
	once   singleflight.Group // by id
	mu     sync.Mutex
	kept   map[string]*entry
	absent map[string]time.Time // since when
}

// entry is what is remembered of a key.
type entry struct {
	key    apikey.Key
	looked time.Time
	limit  *rate.Limiter // nil: none
}

// New makes a gate; an open one also lets in who shows no key.
func New(open bool, root apikey.Root, keys Keys, now func() time.Time) *Gate {
	return &Gate{open: open, root: root, keys: keys, now: now, looks: make(chan struct{}, looksMax), kept: map[string]*entry{}, absent: map[string]time.Time{}}
}

// Open tells whether who shows no key is let in.
func (g *Gate) Open() bool { return g.open }

// Why a request is not let in.
var (
	ErrNone = fault.New(fault.Refused, "access", "", "no API key was shown").WithRemedy("send Authorization: Bearer KEY; autoglm reads it from AUTOGLM_API_KEY or --api-key-file")
	ErrBad  = fault.New(fault.Refused, "access", "", "the API key is none of this cluster, or is not valid any more").WithRemedy("check that it is whole; whoever administers the cluster can rotate it or create another")
)

// Text is the key that a request shows, "" for none.
func Text(h http.Header) string {
	if scheme, token, ok := strings.Cut(h.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return h.Get("X-Api-Key")
}

// endedError says that a key was good once. Who reads it has its secret.
type endedError struct{ text string }

func (e *endedError) Error() string { return "the API key " + e.text }

// Unknown tells whether an error of Who is that nobody good calls: for 401.
func Unknown(err error) bool {
	_, ended := errors.AsType[*endedError](err)
	return ended || errors.Is(err, ErrNone) || errors.Is(err, ErrBad)
}

// Who finds out who calls. Unknown errors are for 401, and come with the caller where it holds the secret of a key that has ended;
// Overloaded is the key's own rate; else the key could not be looked up.
func (g *Gate) Who(ctx context.Context, text string) (Caller, error) {
	id, whole := apikey.ID(text)
	switch {
	case whole:
		return g.known(ctx, id, text)
	case g.open: // clients of OpenAI always send something
		return Caller{Tenant: tenant.Default, Role: apikey.Admin, Open: true}, nil
	case text == "":
		return Caller{}, ErrNone
	}
	return Caller{}, ErrBad
}

func (g *Gate) known(ctx context.Context, id, text string) (Caller, error) {
	if id == g.root.ID && g.root.ID != "" {
		if !g.root.Is(text) {
			return Caller{}, ErrBad
		}
		return Caller{Key: id, Name: "root", Tenant: tenant.Default, Role: apikey.Admin}, nil
	}
	e, err := g.look(ctx, id)
	if err != nil {
		return Caller{}, err
	}
	if e == nil {
		return Caller{}, ErrBad
	}
	who := Caller{Key: id, Name: e.key.Name, Tenant: e.key.Tenant, Role: e.key.Role}
	switch held, ended := e.key.Held(text, g.now()); {
	case !held:
		return Caller{}, ErrBad
	case ended != "":
		return who, fault.New(fault.Refused, "access", "", "%w", &endedError{ended}).WithRemedy("whoever administers the cluster can create another one")
	}
	if e.limit != nil && !e.limit.Allow() {
		return Caller{}, fault.New(fault.Overloaded, "access", "", "this key may make %g requests a second at a node", e.key.Rate).
			WithRemedy("send fewer and larger requests: a file, an array or a stream of tasks is one")
	}
	return who, nil
}

// look returns what is known of a key, at most believed old; nil: there is none.
func (g *Gate) look(ctx context.Context, id string) (*entry, error) {
	began := g.now()
	g.mu.Lock()
	old, none := g.kept[id], began.Sub(g.absent[id]) < believed
	g.mu.Unlock()
	if none || old != nil && began.Sub(old.looked) < believed {
		return old, nil
	}
	v, err, _ := g.once.Do(id, func() (any, error) {
		if old == nil { // anybody can make up ids
			select {
			case g.looks <- struct{}{}:
				defer func() { <-g.looks }()
			default:
				return nil, fault.New(fault.Overloaded, "access", "", "%d keys that were not seen before are being looked up", looksMax)
			}
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookWithin) // others wait for it, too
		defer cancel()
		return g.keys.Get(ctx, id)
	})
	switch {
	case err == nil:
		return g.keep(id, v.(apikey.Key), began), nil
	case fault.KindOf(err) == fault.NotFound:
		g.lacks(id, began)
		return nil, nil
	case old != nil && began.Sub(old.looked) < atMost:
		return old, nil
	}
	return nil, err
}

// keep remembers a key. Its limiter goes on while its rate is the same.
func (g *Gate) keep(id string, k apikey.Key, at time.Time) *entry {
	e := &entry{key: k, looked: at}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.absent, id)
	old := g.kept[id]
	switch {
	case k.Rate == 0:
	case old != nil && old.limit != nil && old.key.Rate == k.Rate:
		e.limit = old.limit
	default:
		e.limit = rate.NewLimiter(rate.Limit(k.Rate), max(burstMin, int(k.Rate)))
	}
	if old == nil && len(g.kept) >= keptMax {
		for other := range g.kept { // any: it is looked up again
			delete(g.kept, other)
			break
		}
	}
	g.kept[id] = e
	return e
}

// lacks remembers that there is no such key.
func (g *Gate) lacks(id string, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.absent) >= absentMax {
		clear(g.absent)
	}
	g.absent[id] = at
}

// Forget makes this node look a key up again at once: it was changed here.
func (g *Gate) Forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.absent, id)
	if e := g.kept[id]; e != nil {
		e = &entry{key: e.key, limit: e.limit}
		g.kept[id] = e
	}
}

// Attend calls gone once the key that a request showed is not good any more, until stop: a request may last.
func (g *Gate) Attend(ctx context.Context, text string, gone func()) (stop func()) {
	id, whole := apikey.ID(text)
	if !whole || id == g.root.ID {
		return func() {}
	}
	done := make(chan struct{})
	var t *time.Timer
	t = time.AfterFunc(math.MaxInt64, func() {
		e, err := g.look(ctx, id)
		if err == nil && (e == nil || !e.key.Is(text, g.now())) {
			gone()
			return
		}
		select {
		case <-done:
		default:
			t.Reset(believed)
		}
	})
	t.Reset(believed)
	return func() { close(done); t.Stop() }
}

// Need is what a route asks of its callers.
type Need struct {
	Anyone   bool // no key
	Role     apikey.Role
	Operator bool // of the default tenant
}

// NeedOf tells what a request needs. Who reads needs Read, who changes something Submit, but for what is the administrators'.
func NeedOf(method, path string) Need {
	reads := method == http.MethodGet || method == http.MethodHead
	under := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
	switch {
	case reads && (path == "/healthz" || path == "/readyz" || path == "/openapi.json" || path == "/docs"):
		return Need{Anyone: true}
	case reads && (path == "/metrics" || under("/v1/cluster") || under("/v1/sinks") || under("/v1/engines")):
		return Need{Role: apikey.Read, Operator: true}
	case under("/v1/cluster"), under("/v1/admin"), under("/v1/sinks"), under("/v1/engines"):
		return Need{Role: apikey.Admin, Operator: true}
	case under("/v1/keys"), under("/v1/audit"), path == "/v1/callback-secret":
		return Need{Role: apikey.Admin}
	case under("/v1/quotas") && !reads:
		return Need{Role: apikey.Admin, Operator: true}
	case reads, path == actorv1connect.ActorServiceStateProcedure, path == actorv1connect.ActorServiceWatchProcedure:
		return Need{Role: apikey.Read}
	}
	return Need{Role: apikey.Submit}
}

// Allow tells whether a caller has what is needed, and else why not.
func (c Caller) Allow(n Need) error {
	switch {
	case n.Anyone:
		return nil
	case n.Operator && !c.Operator():
		return fault.New(fault.Refused, "access", "", "this is for the operator of the cluster").WithRemedy("use a key of the tenant %q with role %s", tenant.Default, n.Role)
	case !c.Role.May(n.Role):
		return fault.New(fault.Refused, "access", "", "the role of this key is %q, and %q is needed", string(c.Role), string(n.Role)).WithRemedy("use another key")
	}
	return nil
}

type callerKey struct{}

// With puts the caller, and its tenant, into a request's context.
func With(ctx context.Context, c Caller) context.Context {
	return tenant.With(context.WithValue(ctx, callerKey{}, c), c.Tenant)
}

// From returns the caller of a request; the zero one where nobody was looked at.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
