// Package audit keeps who did what as an administrator: an entry is a persistent actor with two facts, that somebody is about to do it,
// durable before it is done, and how that went. An act whose entry cannot be written is not done. Entries are never changed, and
// deleted only when they are older than an operator's retention.audit; one without an end was cut off, and may have been done.
//
//	Begin ──► begun ── done, or failed ──► ended
package audit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of an entry.
const KindName = "audit"

// IndexAll has all entries, newest first: ^begun id. IndexTenant, with a tenant's name, has those of its own administrators, and
// those that concern it.
const (
	IndexAll    = "audit"
	IndexTenant = "audit/"
)

// Limits of an entry.
const (
	textMax   = 512 // bytes of each text
	endWithin = 5 * time.Second
	// ListMax is how many entries a page has at most.
	ListMax = 1000
)

// Entry is one act.
type Entry struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Tenant  string    `json:"tenant"`           // of who did it
	About   string    `json:"about,omitempty"`  // the tenant that it concerns, when that is another one
	By      string    `json:"by"`               // id of the key
	Remote  string    `json:"remote,omitempty"` // address
	Act     string    `json:"act"`              // like "key.create"
	Object  string    `json:"object,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Request string    `json:"request,omitempty"` // id of the HTTP request
	EndedAt time.Time `json:"ended_at,omitzero"`
	Error   string    `json:"error,omitempty"` // why it was not done
}

// End says how an act went; the empty error is that it was done.
type End struct {
	Error string `json:"error,omitempty"`
}

// Forget deletes an entry that began before a time.
type Forget struct {
	Before time.Time `json:"before"`
}

type event struct {
	What  string    `json:"what"` // begun, ended
	At    time.Time `json:"at"`
	Entry *Entry    `json:"entry,omitempty"`
	Error string    `json:"error,omitempty"`
}

func (e Entry) apply(v event) (Entry, error) {
	switch {
	case v.What == "begun" && e.ID == "":
		e = *v.Entry
		e.At = v.At
		return e, nil
	case v.What == "ended" && e.ID != "" && e.EndedAt.IsZero():
		e.EndedAt, e.Error = v.At, v.Error
		return e, nil
	}
	return e, fault.New(fault.Corrupt, "audit.apply", e.ID, "%q cannot happen to it", v.What)
}

// begin makes an entry.
type begin struct {
	Entry Entry `json:"entry"`
}

var kind = &entity.Kind[Entry, event]{
	Name:  KindName,
	Apply: Entry.apply,
	Behave: func(Entry) entity.Behavior[Entry, event] {
		return func(c *entity.Context[Entry, event]) {
			switch m := c.Message().(type) {
			case begin:
				if c.State().ID == "" {
					c.Commit(event{What: "begun", At: c.Now(), Entry: &m.Entry})
				}
				c.ReplyWith(func(e Entry) any { return e })
			case End:
				if c.State().ID != "" && c.State().EndedAt.IsZero() {
					c.Commit(event{What: "ended", At: c.Now(), Error: m.Error})
				}
				c.ReplyWith(func(e Entry) any { return e })
			case Forget:
				switch e := c.State(); {
				case e.ID == "":
					c.Refuse(fault.New(fault.NotFound, "audit", c.ID(), "no such entry"))
				case !e.At.Before(m.Before):
					c.Refuse(fault.New(fault.Conflict, "audit.delete", c.ID(), "it is of %v", e.At))
				default:
					c.Erase()
					c.Reply(e)
				}
			}
		}
	},
	Index: func(id string, before, after Entry) []persistence.Index {
		gone := after.ID == ""
		switch {
		case gone:
			after = before
		case before.ID != "":
			return nil
		}
		at := task.AllKey(after.At, id)
		rows := []persistence.Index{{Name: IndexAll, Key: at}, {Name: IndexTenant + after.Tenant, Key: at}}
		if after.About != "" && after.About != after.Tenant {
			rows = append(rows, persistence.Index{Name: IndexTenant + after.About, Key: at})
		}
		for i := range rows {
			rows[i].Delete = gone
		}
		return rows
	},
	Nap:   true,
	Types: cluster.NewTypes().Add("begin", begin{}).Add("end", End{}).Add("entry", Entry{}).Add("forget", Forget{}),
}

// Kind is what nodes run.
func Kind() cluster.Kind { return kind.Register() }

// Router is what the log needs of the cluster; *cluster.Router is one.
type Router interface {
	Ask(ctx context.Context, key persistence.Key, msg any) (any, error)
	Read(ctx context.Context, key persistence.Key, after uint64) (persistence.Log, error)
	Newest(ctx context.Context, index string, from []byte, limit int, keep func(cluster.IndexRow) bool) ([]cluster.IndexRow, error)
}

// Log is the audit log of the cluster.
type Log struct{ router Router }

// New returns the log behind a router.
func New(router Router) *Log { return &Log{router} }

// Do writes that an act begins, does it, and writes how it went. An error is the act's, or that it was not begun.
func (l *Log) Do(ctx context.Context, e Entry, act func() error) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fault.New(fault.Unavailable, "audit.begin", "", "no id could be made: %w", err)
	}
	e.ID = id.String()
	for _, s := range []*string{&e.By, &e.Remote, &e.Act, &e.Object, &e.Detail, &e.Request} {
		if len(*s) > textMax {
			*s = (*s)[:textMax]
		}
	}
	key := persistence.Key{Kind: KindName, ID: e.ID}
	if _, err := l.router.Ask(ctx, key, begin{e}); err != nil {
		return fault.New(fault.KindOf(err), "audit.begin", e.Act, "it was not done, because it could not be written to the audit log: %w", err)
	}
	err = act()
	end := End{}
	if err != nil {
		end.Error = fault.Plain(err)
		if len(end.Error) > textMax {
			end.Error = end.Error[:textMax]
		}
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	_, _ = l.router.Ask(late, key, end) // it is written that it began
	return err
}

// List returns entries, the newest first, of one tenant or (whose "") of all, after the one with an id, and whether more follow.
func (l *Log) List(ctx context.Context, whose, after string, limit int) (page []Entry, more bool, err error) {
	if limit < 1 || limit > ListMax {
		return nil, false, fault.New(fault.Invalid, "audit.list", "limit", "is %d: use 1 to %d", limit, ListMax)
	}
	index := IndexAll
	if whose != "" {
		index = IndexTenant + whose
	}
	var last []byte
	if after != "" {
		e, err := l.get(ctx, after)
		if err != nil {
			return nil, false, err
		}
		last = task.AllKey(e.At, e.ID)
	}
	ids, more, err := task.NewestIDs(last, limit, func(from []byte, n int) ([]cluster.IndexRow, error) {
		return l.router.Newest(ctx, index, from, n, nil)
	})
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		e, err := l.get(ctx, id)
		if err != nil {
			return nil, false, err
		}
		page = append(page, e)
	}
	return page, more, nil
}

func (l *Log) get(ctx context.Context, id string) (Entry, error) {
	e, seq, err := kind.Load(cluster.Reader{Context: ctx, Router: l.router}, id)
	if err == nil && seq == 0 {
		err = fault.New(fault.NotFound, "audit", id, "no such entry")
	}
	return e, err
}
