package file

import (
	"context"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// UploadKind is the kind of an upload.
const UploadKind = "upload"

// UploadKey is the key of an upload's journal.
func UploadKey(id string) persistence.Key { return persistence.Key{Kind: UploadKind, ID: id} }

// Limits of an upload.
const (
	PartMax     = 64 << 20  // bytes of a part
	PartsMax    = 10_000    // parts of an upload, those that failed included
	UploadLives = time.Hour // from its creation to its completion
	mimeMax     = 128       // bytes
)

// UploadStatus is where an upload stands. The empty one is "no such upload".
type UploadStatus string

// The states; doc.go draws them.
const (
	NoUpload   UploadStatus = ""
	Pending    UploadStatus = "pending"
	Completing UploadStatus = "completing" // decided: the file will be
	Completed  UploadStatus = "completed"  // final
	Cancelled  UploadStatus = "cancelled"  // final
	Expired    UploadStatus = "expired"    // final
)

// UploadInfo is what is known of an upload.
type UploadInfo struct {
	ID           string        `json:"id"`
	Filename     string        `json:"filename"`
	Purpose      string        `json:"purpose"`
	Mime         string        `json:"mime,omitempty"`
	Bytes        int64         `json:"bytes"` // that the parts must add up to
	CreatedAt    time.Time     `json:"created_at"`
	ExpiresAt    time.Time     `json:"expires_at"`
	ExpiresAfter time.Duration `json:"expires_after,omitempty"` // of the file
	Status       UploadStatus  `json:"status"`
	File         *Info         `json:"file,omitempty"` // completing, completed
}

// Part is one part of an upload.
type Part struct {
	ID        string    `json:"id"` // of its blob, too
	Bytes     int64     `json:"bytes"`
	CreatedAt time.Time `json:"created_at"`
	Whole     bool      `json:"whole,omitempty"`
}

func (p Part) ref() blob.Ref { return blob.Ref{ID: p.ID, Bytes: p.Bytes} }

// Upload is an upload's state.
type Upload struct {
	UploadInfo
	Parts []Part    `json:"parts,omitempty"` // in the order in which they began; none once Swept
	Wake  time.Time `json:"wake,omitzero"`
	Swept bool      `json:"swept,omitempty"` // final: the bytes that are no file's are gone
}

// Step is an upload's event.
type Step struct {
	What   string      `json:"what"` // opened, part_begun, part_done, completing, completed, cancelled, expired, swept
	Upload *UploadInfo `json:"upload,omitempty"`
	Part   *Part       `json:"part,omitempty"`
	File   *Info       `json:"file,omitempty"`
	Wake   time.Time   `json:"wake,omitzero"`
}

// What is said to an upload. Each may be said twice.
type (
	// Open begins it.
	Open struct {
		Upload UploadInfo `json:"upload"`
	}
	// BeginPart comes before a part's first byte, EndPart after its last one.
	BeginPart struct {
		Part Part `json:"part"`
	}
	EndPart struct {
		Part Part `json:"part"`
	}
	// Complete makes a file of parts, in this order. The first one decides.
	Complete struct {
		Parts  []string `json:"parts"`
		FileID string   `json:"file_id"`
		MD5    string   `json:"md5,omitempty"` // of all of it, which the sender has checked
	}
	// Made says that the file is there.
	Made struct{}
	// Cancel ends it without a file.
	Cancel struct{}
	// Stands answers all of them but Swept.
	Stands struct {
		Upload UploadInfo `json:"upload"`
	}
)

// apply folds one event.
func (u Upload) apply(s Step) (Upload, error) {
	end := func(status UploadStatus) { u.Status, u.Wake = status, s.Wake }
	switch {
	case s.What == "opened" && u.Status == NoUpload:
		u.UploadInfo, u.Wake = *s.Upload, s.Upload.ExpiresAt
		u.Status = Pending
	case s.What == "part_begun" && u.Status == Pending:
		u.Parts = append(slices.Clip(u.Parts), *s.Part)
	case s.What == "part_done" && u.Status == Pending && u.part(s.Part.ID) >= 0:
		u.Parts = slices.Clone(u.Parts)
		u.Parts[u.part(s.Part.ID)] = *s.Part
	case s.What == "completing" && u.Status == Pending:
		end(Completing)
		u.File = s.File
	case s.What == "completed" && u.Status == Completing:
		end(Completed)
	case s.What == "cancelled" && u.Status == Pending:
		end(Cancelled)
	case s.What == "expired" && u.Status == Pending:
		end(Expired)
	case s.What == "swept" && u.final():
		u.Swept, u.Wake, u.Parts = true, time.Time{}, nil
	default:
		return u, fault.New(fault.Corrupt, "file.upload", u.ID, "%q in state %q", s.What, u.Status)
	}
	return u, nil
}

func (u Upload) final() bool {
	return u.Status == Completed || u.Status == Cancelled || u.Status == Expired
}

// part finds a part.
func (u Upload) part(id string) int {
	return slices.IndexFunc(u.Parts, func(p Part) bool { return p.ID == id })
}

// chosen returns the blobs of parts in the order that a client says, or why they make no file.
func (u Upload) chosen(ids []string) (refs []blob.Ref, err error) {
	bad := func(key, format string, args ...any) error {
		return fault.New(fault.Invalid, "file.complete", key, format, args...)
	}
	if len(ids) == 0 {
		return nil, bad("part_ids", "is empty")
	}
	whole := make(map[string]Part, len(u.Parts))
	for _, p := range u.Parts {
		if p.Whole {
			whole[p.ID] = p
		}
	}
	sum := int64(0)
	for _, id := range ids {
		p, ok := whole[id]
		if !ok {
			return nil, bad("part_ids", "has %q, which is no whole part of this upload, or comes twice", id)
		}
		delete(whole, id)
		sum += p.Bytes
		refs = append(refs, p.ref())
	}
	if sum != u.Bytes {
		return nil, bad("bytes", "is %d, but the parts have %d", u.Bytes, sum)
	}
	return refs, nil
}

// uploads describes the kind. j may be nil where nothing is woken.
func uploads(j *Janitor) *entity.Kind[Upload, Step] {
	return &entity.Kind[Upload, Step]{
		Name:  UploadKind,
		Apply: Upload.apply,
		Behave: func(Upload) entity.Behavior[Upload, Step] {
			return func(c *entity.Context[Upload, Step]) { j.upload(c) }
		},
		Enter:         func(c *entity.Context[Upload, Step]) { j.driveUpload(c) },
		Timer:         func(u Upload) time.Time { return u.Wake },
		Nap:           true,
		SnapshotEvery: 256,
		Truncate:      true,
		Types: cluster.NewTypes().Add("Open", Open{}).Add("BeginPart", BeginPart{}).Add("EndPart", EndPart{}).Add("Complete", Complete{}).
			Add("Made", Made{}).Add("Cancel", Cancel{}).Add("Swept", Swept{}).Add("Stands", Stands{}),
	}
}

var uploadFolder = uploads(nil)

// FoldUpload is an upload's state by its journal.
func FoldUpload(id string, l persistence.Log) (Upload, error) {
	u, _, err := uploadFolder.Fold(id, l)
	return u, err
}

func stands(u Upload) any { return Stands{Upload: u.UploadInfo} }

// upload handles one message.
func (j *Janitor) upload(c *entity.Context[Upload, Step]) {
	u := c.State()
	closed := func() {
		if u.Status == NoUpload {
			c.Refuse(noUpload(c.ID()))
			return
		}
		c.Refuse(fault.New(fault.Conflict, "file.upload", u.ID, "the upload is %s", u.Status))
	}
	switch m := c.Message().(type) {
	case Open:
		if u.Status == NoUpload {
			c.Commit(Step{What: "opened", Upload: &m.Upload})
		}
		c.ReplyWith(stands)
	case BeginPart:
		switch {
		case u.Status != Pending:
			closed()
		case u.part(m.Part.ID) >= 0:
			c.Reply(stands(u))
		case len(u.Parts) >= PartsMax:
			c.Refuse(fault.New(fault.TooLarge, "file.upload", u.ID, "it has PartsMax of %d parts", PartsMax).WithRemedy("send larger parts"))
		default:
			c.Commit(Step{What: "part_begun", Part: &m.Part})
			c.ReplyWith(stands)
		}
	case EndPart:
		switch i := u.part(m.Part.ID); {
		case u.Status != Pending || i < 0:
			closed()
		case u.Parts[i].Whole:
			c.Reply(stands(u))
		default:
			c.Commit(Step{What: "part_done", Part: &m.Part})
			c.ReplyWith(stands)
		}
	case Complete:
		complete(c, m, closed)
	case Made:
		if u.Status == Completing {
			c.Commit(Step{What: "completed", Wake: c.Now().Add(sweptWithin)})
		}
		c.ReplyWith(stands)
	case Cancel:
		switch u.Status {
		case Pending:
			c.Commit(Step{What: "cancelled", Wake: c.Now().Add(sweptWithin)})
			c.ReplyWith(stands)
		case Cancelled:
			c.Reply(stands(u))
		default:
			closed()
		}
	case Swept:
		if u.final() && !u.Swept {
			c.Commit(Step{What: "swept"})
		}
	case entity.Wake:
		switch {
		case u.Wake.IsZero() || u.Wake.After(c.Now()):
		case u.Status == Pending:
			c.Commit(Step{What: "expired", Wake: c.Now().Add(sweptWithin)})
		default:
			j.driveUpload(c)
		}
	}
}

func complete(c *entity.Context[Upload, Step], m Complete, closed func()) {
	u := c.State()
	switch u.Status {
	case Pending:
		refs, err := u.chosen(m.Parts)
		if err != nil {
			c.Refuse(err)
			return
		}
		f := &Info{ID: m.FileID, Filename: u.Filename, Purpose: u.Purpose, Bytes: u.Bytes, CreatedAt: c.Now().UTC().Truncate(time.Microsecond),
			Status: Processed, MD5: m.MD5, Content: refs}
		if u.ExpiresAfter > 0 {
			f.ExpiresAt = f.CreatedAt.Add(u.ExpiresAfter)
		}
		c.Commit(Step{What: "completing", File: f, Wake: c.Now().Add(sweptWithin)})
		c.ReplyWith(stands)
	case Completing, Completed:
		same := slices.EqualFunc(u.File.Content, m.Parts, func(r blob.Ref, id string) bool { return r.ID == id })
		if !same {
			closed()
			return
		}
		c.Reply(stands(u))
	default:
		closed()
	}
}

// driveUpload has done what follows from a state: after its commit, after waking up, and again until it is heard.
func (j *Janitor) driveUpload(c *entity.Context[Upload, Step]) {
	u, router := c.State(), c.Owner().Router()
	switch {
	case u.Status == Completing && (c.Recovered() || c.Message() == any(entity.Wake{})): // else who asked for it does it
		j.sweep(router, UploadKey(c.ID()), Made{}, func(ctx context.Context, _ *blob.Store) error {
			_, err := router.Ask(ctx, Key(u.File.ID), Adopt{Info: *u.File})
			return err
		})
	case u.final() && !u.Swept:
		j.sweep(router, UploadKey(c.ID()), Swept{}, func(ctx context.Context, s *blob.Store) error { return u.sweep(ctx, s) })
	}
}

// sweep takes away the parts that are in no file.
func (u Upload) sweep(ctx context.Context, s *blob.Store) (err error) {
	for _, p := range u.Parts {
		switch {
		case u.File != nil && slices.ContainsFunc(u.File.Content, func(r blob.Ref) bool { return r.ID == p.ID }):
		case p.Whole:
			err = s.Delete(ctx, p.ref())
		default:
			err = s.Sweep(ctx, p.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func noUpload(id string) error {
	if len(id) > idMax {
		id = id[:idMax]
	}
	return fault.New(fault.NotFound, "upload", id, "no such upload")
}
