package file

import (
	"context"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// sweptWithin is how long a deletion has before the timer looks whether it is done.
const sweptWithin = 10 * time.Second

// Record is a file's state.
type Record struct {
	Info
	Wake    time.Time `json:"wake,omitzero"`     // journaled, not computed: a row must be found again after StaleAfter changed
	Swept   bool      `json:"swept,omitempty"`   // deleted: its bytes are gone
	Request string    `json:"request,omitempty"` // deleted: by this one
	Kept    int64     `json:"kept,omitempty"`    // bytes that are counted for its tenant; 0 of files from before they were
}

// Fact is a file's event.
type Fact struct {
	What    string    `json:"what"`           // begun, progressed, finished, adopted, sized, deleted, swept
	Info    *Info     `json:"info,omitempty"` // begun, finished, adopted: all of it
	Bytes   int64     `json:"bytes,omitempty"`
	Wake    time.Time `json:"wake,omitzero"`
	Request string    `json:"request,omitempty"`
	Kept    int64     `json:"kept,omitempty"` // finished, adopted: see Record
}

// What is said to a file. Each may be said twice.
type (
	// Begin comes before the first byte.
	Begin struct {
		Info Info `json:"info"`
	}
	// Progress says that its writer lives.
	Progress struct{}
	// Finish comes after the last byte, with all that is known then.
	Finish struct {
		Info Info `json:"info"`
	}
	// Adopt makes a file of bytes that are there, or that a batch renders.
	Adopt struct {
		Info Info `json:"info"`
	}
	// Delete ends it. Seen: only a file that clients see; else whatever there is.
	Delete struct {
		Request string `json:"request"` // tells a repeat from another one
		Seen    bool   `json:"seen,omitempty"`
	}
	// Swept says that its bytes are gone.
	Swept struct{}
	// Forget takes what a batch renders away for good: when the batch goes, its file is as if it had never been.
	Forget struct{}
	// Is answers all of them.
	Is struct {
		Info Info `json:"info"`
	}
)

// apply folds one event.
func (r Record) apply(f Fact) (Record, error) {
	switch {
	case f.What == "begun" && r.Status == None:
		r.Info, r.Wake = *f.Info, f.Wake
		r.Status = Uploading
	case f.What == "progressed" && r.Status == Uploading:
		r.Wake = f.Wake
	case f.What == "finished" && r.Status == Uploading, f.What == "adopted" && r.Status == None:
		r.Info, r.Wake = *f.Info, f.Info.ExpiresAt
		r.Status, r.Kept = Processed, f.Kept
	case f.What == "sized" && r.Status == Processed:
		r.Bytes = f.Bytes
	case f.What == "deleted" && (r.Status == Uploading || r.Status == Processed):
		r.Status, r.Wake, r.Request, r.Kept = Deleted, f.Wake, f.Request, 0
	case f.What == "swept" && r.Status == Deleted:
		r.Swept, r.Wake, r.Content = true, time.Time{}, nil
	default:
		return r, fault.New(fault.Corrupt, "file.apply", r.ID, "%q in state %q", f.What, r.Status)
	}
	return r, nil
}

// folder reads journals; what a kind does beside folding it needs no janitor for.
var folder = files(nil)

// Fold is a file's state by its journal.
func Fold(id string, l persistence.Log) (Record, error) {
	r, _, err := folder.Fold(id, l)
	return r, err
}

// files describes the kind. j may be nil where nothing is woken.
func files(j *Janitor) *entity.Kind[Record, Fact] {
	return &entity.Kind[Record, Fact]{
		Name:          KindName,
		Apply:         Record.apply,
		Behave:        func(Record) entity.Behavior[Record, Fact] { return func(c *entity.Context[Record, Fact]) { j.file(c) } },
		Enter:         func(c *entity.Context[Record, Fact]) { j.sweepFile(c) },
		Index:         index,
		Count:         count,
		Timer:         func(r Record) time.Time { return r.Wake },
		Nap:           true,
		SnapshotEvery: 16,
		Truncate:      true,
		Types: cluster.NewTypes().Add("Begin", Begin{}).Add("Progress", Progress{}).Add("Finish", Finish{}).Add("Adopt", Adopt{}).
			Add("Delete", Delete{}).Add("Swept", Swept{}).Add("Is", Is{}).Add("Forget", Forget{}),
	}
}

// count keeps what its tenant has in files; what a batch renders is in its lines.
func count(id string, before, after Record) []persistence.Count {
	if before.Kept == after.Kept {
		return nil
	}
	return []persistence.Count{task.CountBytes(tenant.Of(id), after.Kept-before.Kept)}
}

func is(r Record) any { return Is{Info: r.Info} }

// file handles one message.
func (j *Janitor) file(c *entity.Context[Record, Fact]) {
	r := c.State()
	switch m := c.Message().(type) {
	case Begin:
		switch {
		case r.Status == None:
			c.Commit(Fact{What: "begun", Info: &m.Info, Wake: c.Now().Add(j.staleAfter)})
			c.ReplyWith(is)
		case r.Status == Uploading:
			c.Reply(is(r))
		default:
			c.Refuse(ended(r))
		}
	case Progress:
		if r.Status != Uploading {
			c.Refuse(ended(r))
			return
		}
		c.Commit(Fact{What: "progressed", Wake: c.Now().Add(j.staleAfter)})
	case Finish:
		switch r.Status {
		case Uploading:
			c.Commit(Fact{What: "finished", Info: &m.Info, Kept: j.kept(m.Info.Bytes)})
			c.ReplyWith(is)
		case Processed:
			c.Reply(is(r))
		default:
			c.Refuse(ended(r))
		}
	case Adopt:
		adopt(c, m.Info, j.kept(m.Info.Bytes))
	case Delete:
		j.delete(c, m)
	case Swept:
		if r.Status == Deleted && !r.Swept {
			c.Commit(Fact{What: "swept"})
		}
	case Forget:
		forget(c)
	case entity.Wake:
		j.wake(c)
	}
}

// forget erases the record of what a batch renders, which has no bytes. Others leave theirs: it says that the bytes may be taken away.
func forget(c *entity.Context[Record, Fact]) {
	r := c.State()
	switch {
	case r.Status == None:
		c.Refuse(notFound(c.ID()))
	case r.Of == nil:
		c.Refuse(fault.New(fault.Conflict, "file.forget", c.ID(), "it is no output of a batch").WithRemedy("delete it"))
	default:
		c.Erase()
		c.Reply(is(r))
	}
}

// adopt makes the file, or finds that it is the same one.
func adopt(c *entity.Context[Record, Fact], in Info, kept int64) {
	r := c.State()
	same := slices.Equal(r.Content, in.Content) && (r.Of == nil) == (in.Of == nil) && (r.Of == nil || *r.Of == *in.Of)
	switch {
	case r.Status == None:
		f := Fact{What: "adopted", Info: &in}
		if in.Of == nil {
			f.Kept = kept
		}
		c.Commit(f)
		c.ReplyWith(is)
	case r.Status == Deleted: // somebody wanted it no more
		c.Reply(is(r))
	case !same:
		c.Refuse(fault.New(fault.Conflict, "file.adopt", c.ID(), "another file has this id"))
	case r.Of != nil && in.Bytes > 0 && in.Bytes != r.Bytes && r.Status == Processed:
		c.Commit(Fact{What: "sized", Bytes: in.Bytes})
		c.ReplyWith(is)
	default:
		c.Reply(is(r))
	}
}

func (j *Janitor) delete(c *entity.Context[Record, Fact], m Delete) {
	r := c.State()
	switch {
	case r.Status == Deleted && r.Request == m.Request:
		c.Reply(is(r))
	case r.Status == Processed, r.Status == Uploading && !m.Seen:
		c.Commit(gone(c.Now(), r, m.Request)...)
		c.ReplyWith(is)
	case m.Seen:
		c.Refuse(notFound(c.ID()))
	}
}

// gone are the events of a deletion. What a batch renders has no bytes here.
func gone(now time.Time, r Record, request string) []Fact {
	fs := []Fact{{What: "deleted", Wake: now.Add(sweptWithin), Request: request}}
	if r.Of != nil {
		fs = append(fs, Fact{What: "swept"})
	}
	return fs
}

// wake deletes what nobody writes any more and what has expired, and goes on with what is deleted.
func (j *Janitor) wake(c *entity.Context[Record, Fact]) {
	r := c.State()
	switch {
	case r.Wake.IsZero() || r.Wake.After(c.Now()):
	case r.Status == Uploading, r.Status == Processed:
		c.Commit(gone(c.Now(), r, "")...)
	case r.Status == Deleted:
		j.sweepFile(c)
	}
}

// sweepFile has the bytes of a deleted file taken away: after its commit, after waking up, and again until that is done.
func (j *Janitor) sweepFile(c *entity.Context[Record, Fact]) {
	r, id := c.State(), c.ID() // a Context is valid during the call
	if r.Status != Deleted || r.Swept {
		return
	}
	j.sweep(c.Owner().Router(), Key(c.ID()), Swept{}, func(ctx context.Context, s *blob.Store) error {
		if r.Content == nil { // it was never whole
			return s.Sweep(ctx, id)
		}
		for _, ref := range r.Content {
			if err := s.Delete(ctx, ref); err != nil {
				return err
			}
		}
		return nil
	})
}

func ended(r Record) error {
	return fault.New(fault.Conflict, "file", r.ID, "the file is %s", r.Status).WithRemedy("upload it again")
}
