package quota

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of the quotas: one actor has them all, so that who lends them out has them at hand.
const KindName = "quota"

// Key is where it is.
var Key = persistence.Key{Kind: KindName, ID: "quotas"}

// Book is all quotas, by tenant.
type Book struct {
	Terms   map[string]Terms `json:"terms,omitempty"`
	Version uint64           `json:"version"` // grows by one with each change
}

type event struct {
	What  string    `json:"what"` // set, applied, deleted
	At    time.Time `json:"at"`
	Terms *Terms    `json:"terms,omitempty"`
	Whom  string    `json:"whom,omitempty"` // deleted
	All   []Terms   `json:"all,omitempty"`  // applied
}

// What is said to the quotas. Each is answered with the Book, and may be said twice.
type (
	// Set makes or replaces a tenant's quota.
	Set struct {
		Terms Terms `json:"terms"`
	}
	// Apply makes or replaces the quotas of several tenants, or of none of them.
	Apply struct {
		All []Terms `json:"all"`
	}
	// Delete takes it away.
	Delete struct {
		Tenant string `json:"tenant"`
	}
)

func (b Book) apply(e event) (Book, error) {
	specs := maps.Clone(b.Terms)
	switch {
	case e.What == "set" && e.Terms != nil:
		if specs == nil {
			specs = map[string]Terms{}
		}
		specs[e.Terms.Tenant] = *e.Terms
	case e.What == "applied":
		if specs == nil {
			specs = map[string]Terms{}
		}
		for _, t := range e.All {
			specs[t.Tenant] = t
		}
	case e.What == "deleted":
		delete(specs, e.Whom)
	default:
		return b, fault.New(fault.Corrupt, "quota.apply", "", "%q cannot happen", e.What)
	}
	return Book{specs, b.Version + 1}, nil
}

var kind = &entity.Kind[Book, event]{
	Name:          KindName,
	Apply:         Book.apply,
	Behave:        func(Book) entity.Behavior[Book, event] { return behave },
	SnapshotEvery: 64,
	Nap:           true,
	Types:         cluster.NewTypes().Add("set", Set{}).Add("apply", Apply{}).Add("delete", Delete{}).Add("book", Book{}),
}

// Kind is what nodes run.
func Kind() cluster.Kind { return kind.Register() }

func behave(c *entity.Context[Book, event]) {
	b := c.State()
	switch m := c.Message().(type) {
	case Set:
		old, had := b.Terms[m.Terms.Tenant]
		switch {
		case had && same(old, m.Terms):
			c.Reply(b)
			return
		case !had && len(b.Terms) >= TermsMax:
			c.Refuse(fault.New(fault.TooLarge, "quota.set", m.Terms.Tenant, "%d tenants have quotas: that is all there may be", TermsMax).WithRemedy("delete some"))
			return
		}
		c.Commit(event{What: "set", At: c.Now(), Terms: &m.Terms})
	case Apply:
		after, _ := b.apply(event{What: "applied", All: m.All})
		switch {
		case maps.EqualFunc(b.Terms, after.Terms, same):
			c.Reply(b)
			return
		case len(after.Terms) > TermsMax:
			c.Refuse(fault.New(fault.TooLarge, "quota.apply", "", "%d tenants would have quotas, and %d is all that there may be", len(after.Terms), TermsMax).WithRemedy("delete some"))
			return
		}
		c.Commit(event{What: "applied", At: c.Now(), All: m.All})
	case Delete:
		if _, had := b.Terms[m.Tenant]; !had {
			c.Reply(b)
			return
		}
		c.Commit(event{What: "deleted", At: c.Now(), Whom: m.Tenant})
	default:
		return
	}
	c.ReplyWith(func(b Book) any { return b })
}

func same(a, b Terms) bool {
	return a.Tenant == b.Tenant && a.Weight == b.Weight && a.Hard == b.Hard && a.Over == b.Over && slices.Equal(a.Classes, b.Classes)
}

// Router is what the quotas need of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
	Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
}

// Quotas is how they are reached, from any node.
type Quotas struct{ router Router }

// New returns the quotas behind a router.
func New(router Router) *Quotas { return &Quotas{router} }

// Book returns all quotas.
func (q *Quotas) Book(ctx context.Context) (Book, error) {
	b, _, err := kind.Load(cluster.Reader{Context: ctx, Router: q.router}, Key.ID)
	return b, err
}

// Set makes or replaces a tenant's quota.
func (q *Quotas) Set(ctx context.Context, s Terms) error {
	s = s.Numbered()
	if err := s.Check(); err != nil {
		return err
	}
	_, err := q.router.Ask(ctx, Key, Set{s})
	return err
}

// Apply makes or replaces quotas of several tenants, which are right, in one write.
func (q *Quotas) Apply(ctx context.Context, all []Terms) error {
	_, err := q.router.Ask(ctx, Key, Apply{all})
	return err
}

// Delete takes a tenant's quota away.
func (q *Quotas) Delete(ctx context.Context, tenant string) error {
	_, err := q.router.Ask(ctx, Key, Delete{tenant})
	return err
}
