package pki

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const fileMax = 64 << 10 // bytes; a certificate takes 1 KiB

func (d aboutFile) encode() []byte {
	b, _ := json.MarshalIndent(d, "", "  ") // strings and a number always can
	return append(b, '\n')
}

func readAbout(dir string) (aboutFile, error) {
	var d aboutFile
	b, err := read(dir, about)
	if err != nil {
		return d, err
	}
	path := filepath.Join(dir, about)
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fault.New(fault.Corrupt, "pki.read", path, "%w", err)
	}
	if d.Format > formatNow {
		return d, fault.New(fault.Invalid, "pki.read", path, "format %d is newer than this program", d.Format).WithRemedy("use a newer autoglm")
	}
	if err := CheckName(d.Cluster); err != nil {
		return d, fault.New(fault.Corrupt, "pki.read", path, "%w", err)
	}
	return d, nil
}

func read(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	st, err := os.Stat(path)
	if err == nil && st.Size() > fileMax {
		return nil, fault.New(fault.TooLarge, "pki.read", path, "%d bytes, over the limit of %d", st.Size(), fileMax)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fileFault("pki.read", path, err)
	}
	return b, nil
}

// writeAll replaces files, each whole or not at all, readable by their owner alone.
func writeAll(dir string, files map[string][]byte) error {
	for name, b := range files {
		if err := write(filepath.Join(dir, name), b); err != nil {
			return fileFault("pki.write", filepath.Join(dir, name), err)
		}
	}
	return syncDir(dir)
}

func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fileFault("pki.write", dir, err)
	}
	return nil
}

// fileFault classes what the file system says.
func fileFault(op, path string, err error) error {
	f := fault.New(fault.Unavailable, op, path, "%w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Kind = fault.NotFound
		return f.WithRemedy("make the cluster's folder with `autoglm init`, and copy the node's folder whole")
	case errors.Is(err, fs.ErrPermission):
		f.Kind = fault.Refused
		return f.WithRemedy("give the folder and its files to the user that runs autoglm")
	}
	return f
}
