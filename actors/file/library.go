package file

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Library is the files of the cluster, for any node. It is safe for many goroutines.
type Library struct {
	router   *cluster.Router
	store    *blob.Store
	now      func() time.Time
	bytesMax int64         // of one file; 0: no limit but the disk's
	progress time.Duration // between two words of a file that is coming
	outputs  Outputs
	admit    Admit
}

// Admit lets so many bytes of a tenant be kept, or refuses them. What it returns is told whether they are.
type Admit func(ctx context.Context, tenant string, bytes int64) (settled func(kept bool), err error)

// Admits says who is asked before a file is whole. It is to be called before the library is used.
func (l *Library) Admits(a Admit) { l.admit = a }

// admitted asks for room for a file, by its id.
func (l *Library) admitted(ctx context.Context, id string, bytes int64) (settled func(kept bool), err error) {
	if l.admit == nil {
		return func(bool) {}, nil
	}
	return l.admit(ctx, tenant.Of(id), bytes)
}

// Outputs renders the files of batches.
type Outputs interface {
	// OpenOutput reads a part of a batch as it stands now, from an offset.
	OpenOutput(ctx context.Context, batch, part string, offset int64) (io.ReadCloser, error)
	// OutputBytes returns how long it is now.
	OutputBytes(ctx context.Context, batch, part string) (int64, error)
}

// Option changes a Library before its use.
type Option func(*Library)

// WithBytesMax bounds one file.
func WithBytesMax(n int64) Option { return func(l *Library) { l.bytesMax = n } }

// WithStaleAfter says what the nodes' janitors were given; the shortest of them, where they differ.
func WithStaleAfter(d time.Duration) Option {
	return func(l *Library) { l.progress = min(progressMax, d/progressOf) }
}

// NewLibrary returns the library behind a router.
func NewLibrary(router *cluster.Router, store *blob.Store, now func() time.Time, opts ...Option) *Library {
	l := &Library{router: router, store: store, now: now, progress: progressMax}
	for _, o := range opts {
		o(l)
	}
	return l
}

// Outputs says who renders the files of batches. It is to be called before the library is used.
func (l *Library) Outputs(o Outputs) { l.outputs = o }

// PutOptions say what a file is.
type PutOptions struct {
	Filename     string
	Purpose      string
	ExpiresAfter time.Duration // from its creation; 0: never
}

// Check refuses what no file may be.
func (o PutOptions) Check() error {
	bad := func(key, format string, args ...any) error {
		return fault.New(fault.Invalid, "file.check", key, format, args...)
	}
	switch {
	case o.Purpose == "":
		return bad("purpose", "is missing")
	case !slices.Contains(purposes, o.Purpose):
		return bad("purpose", "is %q: use one of %s", o.Purpose, strings.Join(purposes, ", "))
	case o.ExpiresAfter != 0 && (o.ExpiresAfter < ExpiresMin || o.ExpiresAfter > ExpiresMax):
		return bad("expires_after[seconds]", "is %d: %d to %d", int64(o.ExpiresAfter.Seconds()), int64(ExpiresMin.Seconds()), int64(ExpiresMax.Seconds()))
	}
	return nil
}

// Put stores a file. After an error nothing of it stays.
func (l *Library) Put(ctx context.Context, o PutOptions, r io.Reader) (Info, error) {
	if err := o.Check(); err != nil {
		return Info{}, err
	}
	in, err := l.Receive(ctx, o.Filename)
	if err != nil {
		return Info{}, err
	}
	defer in.Drop()
	if err := in.Fill(ctx, r); err != nil {
		return Info{}, err
	}
	return in.Keep(ctx, o)
}

// Get returns a file that is processed, or a NotFound fault.
func (l *Library) Get(ctx context.Context, id string) (Info, error) {
	r, err := l.load(ctx, id)
	if err != nil {
		return Info{}, err
	}
	if r.Status != Processed {
		return Info{}, notFound(id)
	}
	return l.sized(ctx, r.Info)
}

// load returns a file's record, whatever its status.
func (l *Library) load(ctx context.Context, id string) (Record, error) {
	if id == "" || len(id) > idMax {
		return Record{}, notFound(id)
	}
	r, _, err := folder.Load(cluster.Reader{Context: ctx, Router: l.router}, id)
	return r, err
}

// sized asks a batch how long its part is, until it was registered with that.
func (l *Library) sized(ctx context.Context, in Info) (_ Info, err error) {
	if in.Of != nil && in.Bytes == 0 && l.outputs != nil {
		in.Growing = true
		in.Bytes, err = l.outputs.OutputBytes(ctx, in.Of.Batch, in.Of.Part)
	}
	return in, err
}

// Delete makes a file disappear at once, and its bytes soon.
func (l *Library) Delete(ctx context.Context, id string) error {
	if id == "" || len(id) > idMax {
		return notFound(id)
	}
	request, err := newID(ctx, "")
	if err != nil {
		return err
	}
	_, err = l.router.Ask(ctx, Key(id), Delete{Request: request, Seen: true})
	return err
}

// Forget takes the file of a batch's part away for good.
func (l *Library) Forget(ctx context.Context, id string) error {
	_, err := l.router.Ask(ctx, Key(id), Forget{})
	return err
}

// Open reads a file from an offset. Its Info is as of now; what a batch goes on writing may be longer in the end.
func (l *Library) Open(ctx context.Context, id string, offset int64) (io.ReadCloser, Info, error) {
	in, err := l.Get(ctx, id)
	if err != nil {
		return nil, Info{}, err
	}
	if in.Of == nil {
		return l.store.Open(ctx, in.Content, offset), in, nil
	}
	if l.outputs == nil {
		return nil, Info{}, fault.New(fault.Unavailable, "file.open", id, "nobody here renders the files of batches")
	}
	r, err := l.outputs.OpenOutput(ctx, in.Of.Batch, in.Of.Part, offset)
	return r, in, err
}

// Register makes the file of a batch's part, under an id that the batch chose. Again with the same Of it is harmless: Bytes, once
// they are known, are kept, and the rest stays as it was.
func (l *Library) Register(ctx context.Context, in Info) error {
	if in.Of == nil || in.Of.Batch == "" || in.ID == "" || len(in.ID) > idMax {
		return fault.New(fault.Invalid, "file.register", in.ID, "it takes an id and whose output it is")
	}
	in.Filename, in.Content, in.Status = Filename(in.Filename), nil, Processed
	if in.CreatedAt.IsZero() {
		in.CreatedAt = l.now()
	}
	if in.Purpose == "" {
		in.Purpose = PurposeOutput
	}
	_, err := l.router.Ask(ctx, Key(in.ID), Adopt{Info: in})
	return err
}

// idMax bounds the ids that are looked up, in bytes.
const idMax = 128

func notFound(id string) error {
	if len(id) > idMax {
		id = id[:idMax]
	}
	return fault.New(fault.NotFound, "file", id, "no such file")
}
