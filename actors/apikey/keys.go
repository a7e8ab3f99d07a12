package apikey

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"time"
	"unicode"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a key.
const (
	nameMax    = 64      // bytes
	rateMax    = 100_000 // requests a second
	overlapMax = 30 * 24 * time.Hour
	livesMax   = 10 * 365 * 24 * time.Hour
)

// Router is what keys need of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
	Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
	Newest(ctx context.Context, index string, from []byte, limit int, keep func(cluster.IndexRow) bool) ([]cluster.IndexRow, error)
}

// Keys is how the keys of the cluster are reached, from any node.
type Keys struct {
	router Router
	now    func() time.Time
}

// New returns the keys behind a router.
func New(router Router, now func() time.Time) *Keys { return &Keys{router, now} }

// Wish says what a new key is to be.
type Wish struct {
	Name   string
	Tenant string
	Role   Role
	Rate   float64
	Lives  time.Duration // 0: for ever
	By     string        // who makes it
}

// Check refuses what no key may be.
func (w *Wish) Check() error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.Invalid, "apikey.create", field, format, args...)
	}
	if err := tenant.Check(w.Tenant); err != nil {
		return err
	}
	switch {
	case w.Name == "" || len(w.Name) > nameMax || strings.ContainsFunc(w.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return bad("name", "is %.80q: use 1 to %d printable bytes", w.Name, nameMax)
	case !w.Role.May(Read):
		return bad("role", "is %.20q: use read, submit or admin", string(w.Role))
	case !(w.Rate >= 0 && w.Rate <= rateMax):
		return bad("rate", "is %g: use 0 (no limit) to %d requests a second", w.Rate, rateMax)
	case w.Lives < 0 || w.Lives > livesMax:
		return bad("expires_in", "is %v: use 0 (never) to %v", w.Lives, livesMax)
	}
	return nil
}

// NewID is the id of a new key: always the same for what one caller asks for under one idempotency key, where there is one.
func NewID(caller, request string) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	if request != "" {
		sum := sha256.Sum256([]byte("apikey\x00" + caller + "\x00" + request))
		b = sum[:8]
	}
	return idCoding.EncodeToString(b)[:idLen]
}

// Create makes the key with an id of NewID, and returns its text, this once. Again with the same wish, it gives the key another secret:
// nobody has the first.
func (s *Keys) Create(ctx context.Context, id string, w Wish) (text string, k Key, err error) {
	if err := w.Check(); err != nil {
		return "", k, err
	}
	text, _, err = newText(id)
	if err != nil {
		return "", k, err
	}
	now := s.now().UTC().Truncate(time.Microsecond)
	k = Key{ID: id, Name: w.Name, Tenant: w.Tenant, Role: w.Role, Rate: w.Rate, Hash: Hash(text), CreatedAt: now, CreatedBy: w.By}
	if w.Lives > 0 {
		k.ExpiresAt = now.Add(w.Lives)
	}
	k, err = s.ask(ctx, id, Create{Key: k})
	return text, k, err
}

// Rotate gives a key another secret, and returns the new text, this once. The one before is good for overlap more. A repeat of the request,
// unless that is "", gives yet another secret in place of the new one, which nobody has.
func (s *Keys) Rotate(ctx context.Context, id string, overlap time.Duration, request string) (text string, k Key, err error) {
	if overlap < 0 || overlap > overlapMax {
		return "", k, fault.New(fault.Invalid, "apikey.rotate", "keep_old_for", "is %v: use 0s to %v", overlap, overlapMax)
	}
	if text, _, err = newText(id); err != nil {
		return "", k, err
	}
	k, err = s.ask(ctx, id, Rotate{Hash: Hash(text), Overlap: overlap, Request: request})
	return text, k, err
}

// Revoke ends a key.
func (s *Keys) Revoke(ctx context.Context, id string) (Key, error) { return s.ask(ctx, id, Revoke{}) }

func (s *Keys) ask(ctx context.Context, id string, msg any) (Key, error) {
	if len(id) != idLen {
		return Key{}, noSuch(id)
	}
	v, err := s.router.Ask(ctx, persistence.Key{Kind: KindName, ID: id}, msg)
	if err != nil {
		return Key{}, err
	}
	return v.(Key), nil
}

// Get returns a key, revoked ones too, or a NotFound fault.
func (s *Keys) Get(ctx context.Context, id string) (Key, error) {
	if len(id) != idLen {
		return Key{}, noSuch(id)
	}
	k, seq, err := kind.Load(cluster.Reader{Context: ctx, Router: s.router}, id)
	if err == nil && seq == 0 {
		err = noSuch(id)
	}
	return k, err
}

// ListMax is how many keys a page has at most.
const ListMax = 1000

// List returns keys, the newest first, of one tenant or (whose "") of all, after one of them.
func (s *Keys) List(ctx context.Context, whose, after string, limit int) (page []Key, more bool, err error) {
	if limit < 1 || limit > ListMax {
		return nil, false, fault.New(fault.Invalid, "apikey.list", "limit", "is %d: use 1 to %d", limit, ListMax)
	}
	index := IndexAll
	if whose != "" {
		index = IndexTenant + whose
	}
	var last []byte
	if after != "" {
		k, err := s.Get(ctx, after)
		if err != nil {
			return nil, false, err
		}
		last = task.AllKey(k.CreatedAt, k.ID)
	}
	ids, more, err := task.NewestIDs(last, limit, func(from []byte, n int) ([]cluster.IndexRow, error) {
		return s.router.Newest(ctx, index, from, n, nil)
	})
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		k, err := s.Get(ctx, id)
		if err != nil {
			return nil, false, err
		}
		page = append(page, k)
	}
	return page, more, nil
}
