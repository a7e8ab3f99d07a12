package dest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// dir writes each batch as a file: beside its place first, synced, then renamed, so that a reader sees all of it or nothing. The directory is
// opened for each: one that was moved away or mounted over is not written to any more.
type dir struct {
	policy Policy
	path   string
	format string
}

// tempMark begins the names of files that are not whole.
const tempMark = ".tmp-"

func (p Policy) openDir(t *sink.Target, d *sink.Definition, life string) (sink.Destination, error) {
	out := &dir{policy: p, path: t.Path, format: d.Format}
	in, err := out.open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := sweep(in, d.Name+"-"+life+"-"); err != nil {
		return nil, unavailable(t.Path, err)
	}
	return out, nil
}

// open makes the directory, if it is missing, and opens it: no symlink leads out of the allowed one.
func (d *dir) open() (*os.Root, error) {
	allowed, rel, err := d.policy.place(d.path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(allowed)
	if err != nil {
		// It is not made here: a file system that is not mounted looks like this.
		return nil, unavailable(allowed, err).WithRemedy("make this folder of sink.allowed_dirs on every node, or mount it")
	}
	defer root.Close()
	if err := root.MkdirAll(rel, 0o755); err != nil {
		return nil, unavailable(d.path, err)
	}
	in, err := root.OpenRoot(rel)
	if err != nil {
		return nil, unavailable(d.path, err)
	}
	return in, nil
}

// sweep takes away what a crash left half written.
func sweep(in *os.Root, prefix string) error {
	entries, err := fs.ReadDir(in.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempMark+prefix) {
			if err := ignoreMissing(in.Remove(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Write writes one file and syncs it and the directory.
func (d *dir) Write(_ context.Context, object string, batch []sink.Item) error {
	b, err := encode(d.format, batch)
	if err != nil {
		return fault.New(fault.Unknown, "sink.write", object, "it cannot be encoded: %w", err)
	}
	in, err := d.open()
	if err != nil {
		return err
	}
	defer in.Close()
	name := object + "." + d.format
	var r [6]byte
	_, _ = rand.Read(r[:])                                     // never fails
	temp := tempMark + object + "-" + hex.EncodeToString(r[:]) // a driver of the owner before may still be writing the same
	if err = create(in, temp, b); err == nil {
		err = in.Rename(temp, name)
	}
	if err != nil {
		return unavailable(filepath.Join(d.path, name), errors.Join(err, ignoreMissing(in.Remove(temp))))
	}
	f, err := in.Open(".")
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return unavailable(d.path, err)
	}
	return nil
}

func create(in *os.Root, name string, b []byte) error {
	f, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close has nothing to let go.
func (d *dir) Close() error { return nil }
