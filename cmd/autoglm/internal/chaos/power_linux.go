package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// ForgetfulDisks gives every node a disk of its own, a FUSE file system in this process, that loses power when told to:
// then every file is again what it was when it was last synced. See volume for what counts.
type ForgetfulDisks struct {
	disks []*disk

	mu     sync.Mutex
	closed bool
}

// disk is one mount. Only one goroutine at a time changes it.
type disk struct {
	path, backing string
	v             *volume
	server        *fuse.Server // nil while not mounted
}

// NewForgetfulDisks mounts a disk for each node of the cluster in dir, which must not exist yet; their bytes lie in
// backing. It needs root and /dev/fuse; see CanForget.
func NewForgetfulDisks(dir, backing string, nodes int) (*ForgetfulDisks, error) {
	f := &ForgetfulDisks{}
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i+1)
		d := &disk{path: filepath.Join(dir, name), backing: filepath.Join(backing, name)}
		err := errors.Join(os.MkdirAll(d.path, 0o700), os.MkdirAll(d.backing, 0o700))
		if err == nil {
			err = d.mount()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("disk %s: %w", d.path, err), f.Close())
		}
		f.disks = append(f.disks, d)
	}
	return f, nil
}

// CanForget returns why this machine cannot have ForgetfulDisks, or nil.
func CanForget() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may mount a FUSE file system without fusermount")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func (d *disk) mount() (err error) {
	d.v = newVolume()
	root, err := newForgetfulRoot(d.backing, d.v)
	if err != nil {
		return err
	}
	d.server, err = fs.Mount(d.path, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, FsName: "forgetful", Name: "forgetful", DisableXAttrs: true}})
	return err
}

func (d *disk) unmount() error {
	if d.server == nil {
		return nil
	}
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.path, err)
	}
	d.server = nil
	return nil
}

// lose takes the power away and gives it back. From the first line on nothing reaches the disk; unmounting drops what
// the kernel had in its page cache, pages that were written through a mapping among them.
func (d *disk) lose() (files int, err error) {
	d.v.cut()
	if err := d.unmount(); err != nil {
		return 0, err
	}
	if files, err = d.v.undo(); err != nil {
		return files, err
	}
	return files, d.mount()
}

// Lose takes the power away from all disks and gives it back. The nodes must be dead. It returns how many files lost
// something.
func (f *ForgetfulDisks) Lose() (files int, err error) {
	for _, d := range f.disks {
		n, derr := d.lose()
		files, err = files+n, errors.Join(err, derr)
	}
	return files, err
}

// PowerLoss is a fault: all nodes and their disks lose power at once.
func (f *ForgetfulDisks) PowerLoss() Fault {
	return Fault{"power-loss", 1, false, false, func(ctx context.Context, e *Env) error {
		e.Log("all nodes lose power")
		if err := killNodes(e); err != nil {
			return err
		}
		files, err := f.Lose()
		if err != nil {
			return err
		}
		e.Log("%d files lost what was not synced", files)
		return e.start(ctx)
	}}
}

// Close unmounts all disks. Nodes must have ended. It is safe to call twice.
func (f *ForgetfulDisks) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var err error
	for _, d := range f.disks {
		err = errors.Join(err, d.unmount(), d.v.close())
	}
	return err
}
