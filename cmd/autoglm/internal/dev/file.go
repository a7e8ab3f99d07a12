package dev

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Names in the folder of a local cluster.
const (
	fileName   = "dev.json"
	lockName   = "dev.lock"
	socketName = "dev.sock"
	pkiDir     = "pki"
	formatNow  = 1       // of dev.json
	fileMax    = 1 << 20 // bytes of dev.json; more is not ours
)

// ReadFile reads DIR/dev.json: NotFound when no cluster was ever started there.
func ReadFile(dir string) (f File, err error) {
	path := filepath.Join(dir, fileName)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, fault.New(fault.NotFound, "dev.file", dir, "no local cluster was started there").
			WithRemedy("start one with: autoglm dev --data-dir %s", dir)
	}
	if err != nil {
		return f, fileFault(path, err)
	}
	if st.Size() > fileMax {
		return f, fault.New(fault.Corrupt, "dev.file", path, "has %d bytes: that is no file of autoglm dev", st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return f, fileFault(path, err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fault.New(fault.Corrupt, "dev.file", path, "%w", err).WithRemedy("remove it: the nodes keep their data, and get ports anew")
	}
	if f.Format > formatNow {
		return f, fault.New(fault.Invalid, "dev.file", path, "has format %d, of a later version", f.Format).WithRemedy("use that version")
	}
	return f, nil
}

// write replaces dev.json at once: a reader sees the old or the new one. It need not survive a power cut.
func (f *File) write(dir string) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fault.New(fault.Unknown, "dev.file", dir, "%w", err)
	}
	path := filepath.Join(dir, fileName)
	tmp, err := os.CreateTemp(dir, fileName+".*")
	if err != nil {
		return fileFault(path, err)
	}
	_, werr := tmp.Write(append(b, '\n'))
	if err := errors.Join(werr, tmp.Close(), os.Rename(tmp.Name(), path)); err != nil {
		os.Remove(tmp.Name())
		return fileFault(path, err)
	}
	return nil
}

func fileFault(path string, err error) error {
	kind := fault.Unavailable
	if errors.Is(err, syscall.ENOSPC) {
		kind = fault.NoSpace
	}
	return fault.New(kind, "dev.file", path, "%w", err).WithRemedy("check the folder, its permissions and its disk")
}

// lockDir keeps a second dev out of dir; the lock goes with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileFault(dir, err)
	}
	path := filepath.Join(dir, lockName)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fileFault(path, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // for the message only
		lock.Close()
		return nil, fault.New(fault.Conflict, "dev.lock", dir, "process %s runs a cluster there", strings.TrimSpace(string(holder))).
			WithRemedy("stop it with Ctrl-C, see `autoglm dev status --data-dir %s`, or name another folder", dir)
	}
	if err := lock.Truncate(0); err != nil {
		lock.Close()
		return nil, fileFault(path, err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		lock.Close()
		return nil, fileFault(path, err)
	}
	return lock, nil
}

// certify makes the cluster's authority once, and a certificate for each node that has none.
func certify(dir string, nodes []Node) error {
	dir = filepath.Join(dir, pkiDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		var names []string
		for _, n := range nodes {
			names = append(names, n.Name)
		}
		text, root, err := apikey.NewRoot() // for who runs it with --set access.keys=required
		if err != nil {
			return err
		}
		return pki.Init(dir, pki.InitOptions{Nodes: names, Admin: pki.AdminKey{Key: text, Hash: root.String()}})
	}
	have, err := pki.Nodes(dir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, n := range have {
		known[n] = true
	}
	for _, n := range nodes {
		if known[n.Name] {
			continue
		}
		if err := pki.AddNode(dir, n.Name); err != nil {
			return err
		}
	}
	return nil
}
