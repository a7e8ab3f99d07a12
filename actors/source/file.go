package source

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// dir is one allowed directory, open since the start: what is renamed or linked later does not
// change what it is.
type dir struct {
	path string
	root *os.Root
}

// insert keeps the longest path first, so that the innermost directory decides.
func insert(ds []dir, d dir) []dir {
	i, _ := slices.BinarySearchFunc(ds, d, func(a, b dir) int { return len(b.path) - len(a.path) })
	return slices.Insert(ds, i, d)
}

// readFile opens a file URL below an allowed directory. os.Root walks with openat, so that no
// symlink, however placed and whenever swapped, leads out.
func (f *Fetcher) readFile(ctx context.Context, u *url.URL) (body, error) {
	key := u.Redacted()
	d, rel, err := f.place(u)
	if err != nil {
		return body{}, err
	}
	file, err := openRegular(d.root, rel)
	if err != nil {
		return body{}, fileFault(key, err)
	}
	defer file.Close()
	b, err := readAll(ctx, file, f.o.SizeMax)
	if err != nil {
		return body{}, f.readFault(ctx, u, err)
	}
	return body{bytes: b}, nil
}

// Admit refuses a URL that Fetch would refuse whatever is there: a file below no allowed directory. It looks at nothing.
func (f *Fetcher) Admit(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "file" {
		return nil // Fetch has its say
	}
	_, _, err = f.place(u)
	return err
}

// place finds the allowed directory of a file URL, and the path in it.
func (f *Fetcher) place(u *url.URL) (dir, string, error) {
	key := u.Redacted()
	if u.Host != "" && u.Host != "localhost" {
		return dir{}, "", fault.New(fault.Refused, "source.fetch", key, "file URLs of another host are not allowed").WithRemedy("write file:///path")
	}
	path := filepath.Clean(u.Path)
	if !filepath.IsAbs(path) || strings.ContainsRune(u.Path, 0) {
		return dir{}, "", fault.New(fault.Invalid, "source.fetch", key, "a file URL needs an absolute path").WithRemedy("write file:///path")
	}
	d, rel, ok := f.dirOf(path)
	if !ok {
		return dir{}, "", fault.New(fault.Refused, "source.fetch", key, "the file is below no allowed directory").
			WithRemedy("add its directory to source.allowed_dirs of the nodes")
	}
	return d, rel, nil
}

func (f *Fetcher) dirOf(path string) (dir, string, bool) {
	for _, d := range f.dirs {
		if rel, err := filepath.Rel(d.path, path); err == nil && filepath.IsLocal(rel) {
			return d, rel, true
		}
	}
	return dir{}, "", false
}

// errNotRegular is for directories, pipes, sockets and devices.
var errNotRegular = errors.New("is no regular file")

// openRegular looks before it opens, as opening some devices does something, and once more after,
// as the file may have been swapped. O_NONBLOCK: opening a pipe would wait for its writer.
func openRegular(root *os.Root, rel string) (*os.File, error) {
	st, err := root.Stat(rel)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	file, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err = file.Stat(); err == nil && !st.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// fileFault: what is not there is NotFound; everything else that keeps a file shut is a refusal
// (no permission, a symlink that leads out, no regular file).
func fileFault(key string, err error) error {
	kind := fault.Refused
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // the key already names the path
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		kind = fault.NotFound
	}
	return fault.New(kind, "source.fetch", key, "%w", err)
}
