package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Options bound what a data_url may do; the zero value allows public http(s) only.
type Options struct {
	AllowedDirs  []string      // absolute; file URLs must lie below one of them. None: no file URLs
	SizeMax      int64         // bytes as fetched; SizeMax when 0
	Timeout      time.Duration // of one fetch, redirects included; Timeout when 0
	RedirectsMax int           // RedirectsMax when 0, none when negative
	Egress       egress.Policy // which addresses beside the public internet
	UserAgent    string        // "Open-AutoGLM" when empty
}

// Defaults of Options.
const (
	SizeMax      = 1 << 20
	Timeout      = 30 * time.Second
	RedirectsMax = 5
)

// Data is what a URL gave.
type Data struct {
	Text      string // UTF-8, without a byte order mark
	MediaType string // "text/csv", without parameters
	SHA256    string // of the bytes as fetched, in hex
	Bytes     int64  // as fetched
}

// Fetcher fetches for any number of goroutines; each holds at most a few times SizeMax in memory.
type Fetcher struct {
	o      Options
	client *http.Client
	dirs   []dir // longest path first
}

// New opens the allowed directories. Close lets go of them.
func New(o Options) (*Fetcher, error) {
	if o.SizeMax == 0 {
		o.SizeMax = SizeMax
	}
	if o.Timeout == 0 {
		o.Timeout = Timeout
	}
	if o.RedirectsMax == 0 {
		o.RedirectsMax = RedirectsMax
	}
	if o.UserAgent == "" {
		o.UserAgent = "Open-AutoGLM"
	}
	if o.SizeMax < 0 || o.Timeout < 0 {
		return nil, fault.New(fault.Invalid, "source.new", "", "size_max %d and timeout %v cannot be negative", o.SizeMax, o.Timeout)
	}
	f := &Fetcher{o: o}
	f.client = &http.Client{Transport: o.Egress.Transport(), CheckRedirect: f.checkRedirect}
	for _, path := range o.AllowedDirs {
		if err := f.open(path); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

func (f *Fetcher) open(path string) error {
	if !filepath.IsAbs(path) {
		return fault.New(fault.Invalid, "source.new", path, "is no absolute path")
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return fault.New(fault.NotFound, "source.new", path, "allowed directory: %w", err).WithRemedy("create it, or take it off the list")
	}
	f.dirs = insert(f.dirs, dir{filepath.Clean(path), root})
	return nil
}

// Close lets go of directories and idle connections. Fetches under way fail.
func (f *Fetcher) Close() {
	f.client.CloseIdleConnections()
	for _, d := range f.dirs {
		_ = d.root.Close() // it was only read from
	}
}

// Fetch gets the data behind raw. Faults: Refused (address, path, permission), NotFound, TooLarge,
// Invalid (no text, no JSON, a status 4xx), Timeout, Unavailable (5xx, connection), Overloaded (429).
func (f *Fetcher) Fetch(ctx context.Context, raw string) (Data, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Data{}, fault.New(fault.Invalid, "source.fetch", "", "the URL does not parse")
	}
	ctx, cancel := context.WithTimeout(ctx, f.o.Timeout)
	defer cancel()
	var got body
	switch u.Scheme {
	case "file":
		got, err = f.readFile(ctx, u)
	default:
		got, err = f.get(ctx, u)
	}
	if err != nil {
		return Data{}, err
	}
	sum := sha256.Sum256(got.bytes)
	d := Data{MediaType: got.mediaType, SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(got.bytes))}
	d.Text, d.MediaType, err = textOf(got, u.Path)
	if err != nil {
		return Data{}, fault.New(fault.Invalid, "source.fetch", u.Redacted(), "%w", err).
			WithRemedy("a data_url must give text, CSV or JSON, in UTF-8 or with its charset named")
	}
	return d, nil
}

// body is what came, and what was said of it.
type body struct {
	bytes     []byte
	mediaType string // lower case, without parameters; empty when nobody said
	charset   string // as declared; empty when not
}

// errTooLarge is readAll's way to say that the limit was reached.
var errTooLarge = errors.New("more bytes than allowed")

// readAll reads at most limit bytes, whatever was promised, and notices when ctx has ended.
func readAll(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(&ctxReader{ctx, io.LimitReader(r, limit+1)})
	if err == nil && int64(len(b)) > limit {
		err = errTooLarge
	}
	return b, err
}

// ctxReader ends between two reads when ctx has ended: a file does not know of it.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// readFault classes what stopped a read.
func (f *Fetcher) readFault(ctx context.Context, u *url.URL, err error) error {
	kind := fault.Unavailable
	switch {
	case errors.Is(err, errTooLarge):
		return fault.New(fault.TooLarge, "source.fetch", u.Redacted(), "the data has more than size_max = %d bytes", f.o.SizeMax).
			WithRemedy("split it into several tasks, or raise the limit")
	case ctx.Err() == context.DeadlineExceeded:
		kind = fault.Timeout
	}
	return fault.New(kind, "source.fetch", u.Redacted(), "%w", err)
}
