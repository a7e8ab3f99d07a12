package file

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	progressMax = time.Minute // between two words of a file that is coming
	progressOf  = 10          // times that it says so in StaleAfter

	dropFor = 30 * time.Second // giving up a file; after that its timer does
)

// Incoming is a file whose bytes are still coming: for who hears what it is only after them. Receive, Fill, Keep; and Drop in
// any case. It is for one goroutine.
type Incoming struct {
	l     *Library
	info  Info
	ref   blob.Ref
	sha   hash.Hash
	md    hash.Hash
	ended bool // kept, or dropped

	once  bool  // under an idempotency key
	there *Info // the file that was made under it; nil: none yet
}

// Receive journals that a file begins.
func (l *Library) Receive(ctx context.Context, filename string) (*Incoming, error) {
	id, err := newID(ctx, "file-")
	if err != nil {
		return nil, err
	}
	in := l.incoming(id, filename)
	if _, err := l.router.Ask(ctx, Key(id), Begin{Info: in.info}); err != nil {
		in.Drop() // it may be there all the same
		return nil, err
	}
	return in, nil
}

func (l *Library) incoming(id, filename string) *Incoming {
	in := &Incoming{l: l, sha: sha256.New(), md: md5.New()}
	in.info = Info{ID: id, Filename: Filename(filename), CreatedAt: l.now().UTC().Truncate(time.Microsecond), Status: Uploading}
	return in
}

// ID is what the file will be called.
func (in *Incoming) ID() string { return in.info.ID }

// Fill takes all bytes of r. It is called once.
func (in *Incoming) Fill(ctx context.Context, r io.Reader) (err error) {
	r = &attended{r: r, now: in.l.now, last: in.l.now(), every: in.l.progress, say: func() error {
		_, err := in.l.router.Ask(ctx, Key(in.info.ID), Progress{})
		return err
	}}
	if in.there != nil {
		return in.check(r)
	}
	in.ref, err = in.l.store.Write(ctx, in.info.ID, r, in.l.bytesMax, in.sha, in.md)
	if in.once && fault.KindOf(err) == fault.Conflict { // a chunk of it is there, and is another
		err = otherBody(in.info.ID)
	}
	return err
}

// Keep makes it a file.
func (in *Incoming) Keep(ctx context.Context, o PutOptions) (Info, error) {
	if err := o.Check(); err != nil {
		return Info{}, err
	}
	f := in.info
	f.Purpose, f.Bytes, f.Content, f.Status = o.Purpose, in.ref.Bytes, []blob.Ref{in.ref}, Processed
	f.SHA256, f.MD5 = hex.EncodeToString(in.sha.Sum(nil)), hex.EncodeToString(in.md.Sum(nil))
	if o.ExpiresAfter > 0 {
		f.ExpiresAt = f.CreatedAt.Add(o.ExpiresAfter)
	}
	if in.there != nil {
		return *in.there, in.same(in.there, &f)
	}
	settled, err := in.l.admitted(ctx, f.ID, f.Bytes)
	if err != nil {
		return Info{}, err
	}
	v, err := in.l.router.Ask(ctx, Key(f.ID), Finish{Info: f})
	settled(err == nil)
	if err != nil {
		return Info{}, err
	}
	if is, ok := v.(Is); ok && in.once { // that may be what another attempt kept
		f, err = is.Info, in.same(&is.Info, &f)
	}
	in.ended = true
	return f, err
}

// Drop gives up a file that was not kept. It is safe to call at any time, and twice.
func (in *Incoming) Drop() {
	if in.ended || in.once { // its client may come back for it, or be back already
		return
	}
	in.ended = true
	in.l.forget(Key(in.info.ID), Delete{})
}

// forget tells an actor, whose client may be gone, to give up what it has. Where that fails its timer does.
func (l *Library) forget(key persistence.Key, msg any) {
	ctx, cancel := context.WithTimeout(context.Background(), dropFor)
	defer cancel()
	_, _ = l.router.Ask(ctx, key, msg)
}

// attended is a reader that says now and then that it is still read.
type attended struct {
	r     io.Reader
	now   func() time.Time
	last  time.Time
	every time.Duration
	say   func() error
}

func (a *attended) Read(b []byte) (int, error) {
	if now := a.now(); now.Sub(a.last) >= a.every {
		if err := a.say(); err != nil {
			return 0, err
		}
		a.last = now
	}
	return a.r.Read(b)
}
