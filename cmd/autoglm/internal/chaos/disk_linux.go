package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// SmallDisks gives every node a disk of its own, in memory, that can be filled to the brim. It forgets nothing when a
// process dies, and everything when it is closed.
type SmallDisks struct {
	paths []string // where they are mounted

	mu     sync.Mutex
	closed bool
}

// Sizes of a small disk and of the reserve that a node keeps on it.
const (
	diskBytes   = 512 << 20
	diskReserve = 96 << 20
	ballast     = "ballast" // beside a node's folder
)

// NewSmallDisks mounts a disk for each node of the cluster in dir, which must not exist yet. It needs root.
func NewSmallDisks(dir string, nodes int) (*SmallDisks, error) {
	d := &SmallDisks{}
	for i := range nodes {
		path := filepath.Join(dir, fmt.Sprintf("disk-%d", i+1))
		err := os.MkdirAll(path, 0o700)
		if err == nil {
			err = syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("disk %s: %w", path, err), d.Close())
		}
		d.paths = append(d.paths, path)
	}
	return d, nil
}

// Data is the folder of a node's data: below the disk's own, for a node may rename it.
func (d *SmallDisks) Data(i int) string { return filepath.Join(d.paths[i], "data") }

// Args are what nodes need to be told of their small disks.
func (d *SmallDisks) Args() []string {
	return []string{"--set", fmt.Sprintf("disk_reserve=%d", diskReserve)}
}

// Fill takes the room of a node's disk until only left bytes are free.
func (d *SmallDisks) Fill(i int, left int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.paths[i], &st); err != nil {
		return err
	}
	take := int64(st.Bavail)*st.Bsize - left
	if take <= 0 {
		return nil
	}
	f, err := os.Create(filepath.Join(d.paths[i], ballast))
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, take), f.Close())
}

// Free gives the room back.
func (d *SmallDisks) Free(i int) error {
	err := os.Remove(filepath.Join(d.paths[i], ballast))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Close unmounts all disks. Nodes must have ended. It is safe to call twice.
func (d *SmallDisks) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var err error
	for _, p := range d.paths {
		err = errors.Join(err, syscall.Unmount(p, 0))
	}
	return err
}
