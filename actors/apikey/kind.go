package apikey

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of a key.
const KindName = "apikey"

// IndexAll has all keys, newest first: ^created id. IndexTenant, with the tenant's name, has those of one tenant.
const (
	IndexAll    = "apikeys"
	IndexTenant = "apikeys/"
)

// Role is what a key may. Each may what the one before may.
type Role string

// The roles.
const (
	Read   Role = "read"   // see what is the tenant's
	Submit Role = "submit" // submit, cancel, delete
	Admin  Role = "admin"  // keys and audit of the tenant; of the default tenant: of all, and the cluster
)

var roles = []Role{Read, Submit, Admin}

// May tells whether a role is enough where another is needed.
func (r Role) May(needed Role) bool {
	have, need := -1, len(roles)
	for i, x := range roles {
		if x == r {
			have = i
		}
		if x == needed {
			need = i
		}
	}
	return have >= need
}

// Key is what is known of a key.
type Key struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Tenant    string    `json:"tenant"`
	Role      Role      `json:"role"`
	Rate      float64   `json:"rate,omitempty"` // requests a second that one node takes; 0: no limit of its own
	Hash      string    `json:"hash"`
	Before    string    `json:"before,omitempty"` // hash of the key before the rotation, good until
	Until     time.Time `json:"until,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"` // id of the key that made it
	RotatedAt time.Time `json:"rotated_at,omitzero"`
	Request   string    `json:"request,omitempty"`   // of the rotation: a repeat replaces its secret, and leaves the one before
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// Is tells whether a text with the key's id is the key, at a time.
func (k *Key) Is(text string, now time.Time) bool {
	held, ended := k.Held(text, now)
	return held && ended == ""
}

// Held tells whether a text with the key's id has its secret, or the one before it, and why that is not good any more at a time: who has no
// secret of it is told nothing.
func (k *Key) Held(text string, now time.Time) (held bool, ended string) {
	hash := Hash(text)
	current, before := is(hash, k.Hash), k.Before != "" && is(hash, k.Before)
	switch {
	case !current && !before:
		return false, ""
	case !k.RevokedAt.IsZero():
		return true, "was revoked at " + when(k.RevokedAt)
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return true, "expired at " + when(k.ExpiresAt)
	case !current && !now.Before(k.Until):
		return true, "was rotated at " + when(k.RotatedAt) + ", and this secret of it was good until " + when(k.Until)
	}
	return true, ""
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Event is one thing that happened to a key.
type Event struct {
	What  string    `json:"what"` // created, rotated, revoked
	At    time.Time `json:"at"`
	Key   *Key      `json:"key,omitempty"`
	Hash  string    `json:"hash,omitempty"`
	Until time.Time `json:"until,omitzero"`

	Request string `json:"request,omitempty"`
}

// What is said to a key. Each is answered with the Key, and may be said twice.
type (
	Create struct {
		Key Key `json:"key"`
	}
	Rotate struct {
		Hash    string        `json:"hash"`
		Overlap time.Duration `json:"overlap"` // that the one before is good for
		Request string        `json:"request,omitempty"`
	}
	Revoke struct{}
)

func (k Key) apply(e Event) (Key, error) {
	switch {
	case e.What == "created" && k.ID == "":
		return *e.Key, nil
	case e.What == "rotated" && k.ID != "":
		if e.Request == "" || e.Request != k.Request {
			k.Before, k.Until = "", time.Time{}
			if e.Until.After(e.At) {
				k.Before, k.Until = k.Hash, e.Until
			}
		}
		k.Hash, k.RotatedAt, k.Request = e.Hash, e.At, e.Request
		return k, nil
	case e.What == "revoked" && k.ID != "":
		k.RevokedAt, k.Before, k.Until = e.At, "", time.Time{}
		return k, nil
	}
	return k, fault.New(fault.Corrupt, "apikey.apply", k.ID, "%q cannot happen to it", e.What)
}

var kind = &entity.Kind[Key, Event]{
	Name:   KindName,
	Apply:  Key.apply,
	Behave: func(Key) entity.Behavior[Key, Event] { return behave },
	Index: func(id string, before, after Key) []persistence.Index {
		if before.ID != "" {
			return nil
		}
		at := task.AllKey(after.CreatedAt, id)
		return []persistence.Index{{Name: IndexAll, Key: at}, {Name: IndexTenant + after.Tenant, Key: at}}
	},
	Nap:   true,
	Types: cluster.NewTypes().Add("create", Create{}).Add("rotate", Rotate{}).Add("revoke", Revoke{}).Add("key", Key{}),
}

// Kind is what nodes run.
func Kind() cluster.Kind { return kind.Register() }

func behave(c *entity.Context[Key, Event]) {
	k := c.State()
	say := func(k Key) any { return k }
	switch m := c.Message().(type) {
	case Create:
		switch {
		case k.ID == "":
		case !k.same(&m.Key):
			c.Refuse(fault.New(fault.Conflict, "apikey.create", c.ID(), "another key was made under this idempotency key").WithRemedy("give each key one of its own"))
			return
		case k.Hash == m.Key.Hash || !k.RevokedAt.IsZero():
			c.Reply(k)
			return
		default: // its secret was lost on the way
			c.Commit(Event{What: "rotated", At: c.Now(), Hash: m.Key.Hash})
			c.ReplyWith(say)
			return
		}
		c.Commit(Event{What: "created", At: c.Now(), Key: &m.Key})
		c.ReplyWith(say)
	case Rotate:
		switch {
		case k.ID == "":
			c.Refuse(noSuch(c.ID()))
		case !k.RevokedAt.IsZero():
			c.Refuse(fault.New(fault.Conflict, "apikey.rotate", c.ID(), "the key is revoked").WithRemedy("create another one"))
		case k.Hash == m.Hash:
			c.Reply(k)
		default:
			c.Commit(Event{What: "rotated", At: c.Now(), Hash: m.Hash, Until: c.Now().Add(m.Overlap), Request: m.Request})
			c.ReplyWith(say)
		}
	case Revoke:
		switch {
		case k.ID == "":
			c.Refuse(noSuch(c.ID()))
		case !k.RevokedAt.IsZero():
			c.Reply(k)
		default:
			c.Commit(Event{What: "revoked", At: c.Now()})
			c.ReplyWith(say)
		}
	}
}

// same tells whether two keys were asked for in the same words.
func (k *Key) same(o *Key) bool {
	return k.Name == o.Name && k.Tenant == o.Tenant && k.Role == o.Role && k.Rate == o.Rate && k.CreatedBy == o.CreatedBy
}

func noSuch(id string) error {
	return fault.New(fault.NotFound, "apikey", id, "no such key").WithRemedy("autoglm key list has them; the operator's first key is none of these: autoglm init --new-admin-key replaces it")
}
