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

// dir writes each batch as a file: beside its place first, synced, then renamed, so that a reader sees all of it or nothing.
type dir struct {
	root   *os.Root // of the destination itself: no symlink leads out of the allowed directory
	path   string
	format string
}

// tempMark begins the names of files that are not whole.
const tempMark = ".tmp-"

func (p Policy) openDir(t *sink.Target, d *sink.Definition, life string) (sink.Destination, error) {
	allowed, rel, err := p.place(t.Path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(allowed)
	if err != nil {
		return nil, unavailable(allowed, err)
	}
	defer root.Close()
	if err := root.MkdirAll(rel, 0o755); err != nil {
		return nil, unavailable(t.Path, err)
	}
	in, err := root.OpenRoot(rel)
	if err != nil {
		return nil, unavailable(t.Path, err)
	}
	out := &dir{root: in, path: t.Path, format: d.Format}
	if err := out.sweep(d.Name + "-" + life + "-"); err != nil {
		return nil, errors.Join(unavailable(t.Path, err), in.Close())
	}
	return out, nil
}

// sweep takes away what a crash left half written.
func (d *dir) sweep(prefix string) error {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempMark+prefix) {
			if err := d.root.Remove(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
	name := object + "." + d.format
	var r [6]byte
	_, _ = rand.Read(r[:])                                     // never fails
	temp := tempMark + object + "-" + hex.EncodeToString(r[:]) // a driver of the owner before may still be writing the same
	if err = d.create(temp, b); err == nil {
		err = d.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(unavailable(filepath.Join(d.path, name), err), ignoreMissing(d.root.Remove(temp)))
	}
	f, err := d.root.Open(".")
	if err != nil {
		return unavailable(d.path, err)
	}
	if err = errors.Join(f.Sync(), f.Close()); err != nil {
		return unavailable(d.path, err)
	}
	return nil
}

func (d *dir) create(name string, b []byte) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
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

// Close lets the directory go.
func (d *dir) Close() error { return d.root.Close() }
