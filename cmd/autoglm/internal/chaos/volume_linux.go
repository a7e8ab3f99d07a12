package chaos

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// volume remembers, for each file that was changed since it was last synced, what it was then.
//
//	write ─► first change of a page: keep its old bytes ─► backing file
//	fsync, fdatasync, msync ─► forget the old bytes: this is what it is now
//	power loss ─► old bytes and old size go back
//
// What was written is lost, and the size that a file grew to by writing. That a file was made, renamed, removed or
// truncated, to less or more, is kept at once, as by a file system with a journal whose folders are synced: a file made
// and never synced is there after a power loss, and empty, or full of zeros. Closing a file syncs nothing.
// What is written through a shared mapping arrives as ordinary writes, when the kernel writes pages back:
// at msync, which sends a sync after them, or at any time, without one.
type volume struct {
	mu    sync.Mutex
	lost  bool               // the power is away: nothing changes any more
	dirty map[uint64]*before // by inode number of the backing file
}

// before is what a file was when it was last synced.
type before struct {
	file  *os.File // the backing file, so that its inode number stays taken
	size  int64
	pages map[int64][]byte // by number: those that were changed, below size, whole; nil: zeros
}

const pageSize = 4096 // bytes that are kept together

func newVolume() *volume { return &volume{dirty: map[uint64]*before{}} }

// cut: from now on writes succeed and do nothing, syncs too. Whoever waits for one is dead.
func (v *volume) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost = true
}

// undo makes every file what it was when it was last synced.
func (v *volume) undo() (files int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	files = len(v.dirty)
	for ino, b := range v.dirty {
		err = errors.Join(err, b.restore(), b.file.Close())
		delete(v.dirty, ino)
	}
	return files, err
}

// close forgets what files were; they stay as they are.
func (v *volume) close() (err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for ino, b := range v.dirty {
		err = errors.Join(err, b.file.Close())
		delete(v.dirty, ino)
	}
	return err
}

func (b *before) restore() error {
	zeros := make([]byte, pageSize)
	err := b.file.Truncate(b.size)
	for page, old := range b.pages {
		if old == nil {
			old = zeros
		}
		_, werr := b.file.WriteAt(old[:min(pageSize, b.size-page*pageSize)], page*pageSize)
		err = errors.Join(err, werr)
	}
	return err
}

// change carries out do, which changes bytes from..to of a file, after their old ones are kept.
func (v *volume) change(f *os.File, from, to int64, do func() error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lost {
		return nil
	}
	b, err := v.before(f)
	if err == nil {
		err = b.keep(from, to)
	}
	if err != nil {
		return err
	}
	return do()
}

// truncate changes a file's size, for good.
func (v *volume) truncate(f *os.File, size int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lost {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if b := v.dirty[st.Sys().(*syscall.Stat_t).Ino]; b != nil {
		b.resize(st.Size(), size)
	}
	return f.Truncate(size)
}

// resize makes size what the file had at the last sync. What lies between that size and now, the file's own, was
// written and not synced: it is zeros.
func (b *before) resize(now, size int64) {
	for page := (b.size + pageSize - 1) / pageSize; page*pageSize < min(now, size); page++ {
		b.pages[page] = nil
	}
	for page, old := range b.pages {
		switch begin := page * pageSize; {
		case begin >= size:
			delete(b.pages, page)
		case old != nil && begin+pageSize > size:
			clear(old[size-begin:])
		}
	}
	b.size = size
}

func (v *volume) before(f *os.File) (*before, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	ino := st.Sys().(*syscall.Stat_t).Ino
	if b := v.dirty[ino]; b != nil {
		return b, nil
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	b := &before{os.NewFile(uintptr(fd), f.Name()), st.Size(), map[int64][]byte{}}
	v.dirty[ino] = b
	return b, nil
}

// keep copies the pages that bytes from..to touch and that were there at the last sync.
func (b *before) keep(from, to int64) error {
	for page := from / pageSize; page*pageSize < min(to, b.size); page++ {
		if _, kept := b.pages[page]; kept {
			continue
		}
		old := make([]byte, pageSize)
		n, err := b.file.ReadAt(old, page*pageSize)
		if err != nil && err != io.EOF {
			return err
		}
		clear(old[min(int64(n), b.size-page*pageSize):]) // what was appended since is not of then
		b.pages[page] = old
		if isZero(old) {
			b.pages[page] = nil // a mapped file begins with megabytes of them
		}
	}
	return nil
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// sync: the file is on disk as it is.
func (v *volume) sync(f *os.File) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	st, err := f.Stat()
	if err != nil || v.lost {
		return err
	}
	ino := st.Sys().(*syscall.Stat_t).Ino
	if b := v.dirty[ino]; b != nil {
		delete(v.dirty, ino)
		return b.file.Close()
	}
	return nil
}

// forgetful is a file or folder of a volume: the backing one, but for what changes a file.
type forgetful struct {
	fs.LoopbackNode
	v *volume
}

var _ = (fs.NodeWrapChilder)((*forgetful)(nil))
var _ = (fs.NodeOpener)((*forgetful)(nil))
var _ = (fs.NodeCreater)((*forgetful)(nil))
var _ = (fs.NodeSetattrer)((*forgetful)(nil))
var _ = (fs.NodeCopyFileRanger)((*forgetful)(nil))
var _ = (fs.NodeFsyncer)((*forgetful)(nil))

func newForgetfulRoot(backing string, v *volume) (fs.InodeEmbedder, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, err
	}
	data := &fs.LoopbackRoot{Path: backing, Dev: st.Dev}
	root := &forgetful{fs.LoopbackNode{RootData: data}, v}
	data.RootNode = root
	return root, nil
}

// WrapChild makes what is found below forgetful too.
func (n *forgetful) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &forgetful{fs.LoopbackNode{RootData: ops.(*fs.LoopbackNode).RootData}, n.v}
}

func (n *forgetful) path() string {
	return filepath.Join(n.RootData.Path, n.Path(n.RootData.RootNode.EmbeddedInode()))
}

// open opens the backing file so that it can also be read: old bytes are.
func (n *forgetful) open(path string, flags uint32) (*os.File, error) {
	access := int(flags) & syscall.O_ACCMODE
	if access != syscall.O_RDONLY {
		access = syscall.O_RDWR
	}
	f, err := os.OpenFile(path, access, 0)
	if err == nil && flags&syscall.O_TRUNC != 0 {
		if err = n.v.truncate(f, 0); err != nil {
			f.Close()
		}
	}
	return f, err
}

// Open opens a file.
func (n *forgetful) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := n.open(n.path(), flags)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return &handle{f, n.v}, 0, fs.OK
}

// Create makes a file and opens it.
func (n *forgetful) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	path := filepath.Join(n.path(), name)
	made, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|int(flags)&syscall.O_EXCL, os.FileMode(mode&0o777))
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	made.Close()
	f, err := n.open(path, flags)
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	child, errno := n.Lookup(ctx, name, out)
	if errno != fs.OK {
		f.Close()
		return nil, nil, 0, errno
	}
	return child, &handle{f, n.v}, 0, fs.OK
}

// Setattr changes a file's size through the volume, the rest as it is.
func (n *forgetful) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := n.resize(h, int64(size)); err != nil {
			return fs.ToErrno(err)
		}
		in.Valid &^= fuse.FATTR_SIZE
	}
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		if errno := n.LoopbackNode.Setattr(ctx, nil, in, out); errno != syscall.ENOENT {
			return errno
		}
	}
	return n.Getattr(ctx, h, out)
}

func (n *forgetful) resize(h fs.FileHandle, size int64) error {
	if open, ok := h.(*handle); ok { // it may have no name any more
		return n.v.truncate(open.f, size)
	}
	f, err := n.open(n.path(), syscall.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	return n.v.truncate(f, size)
}

// CopyFileRange is left to the kernel, which reads and writes.
func (n *forgetful) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.EOPNOTSUPP
}

// Fsync of a folder has nothing to do: see volume.
func (n *forgetful) Fsync(_ context.Context, h fs.FileHandle, _ uint32) syscall.Errno {
	if open, ok := h.(*handle); ok {
		return fs.ToErrno(n.v.sync(open.f))
	}
	return fs.OK
}

// handle is an open file. What it does not implement, such as preallocation, callers are told not to have.
type handle struct {
	f *os.File
	v *volume
}

var _ = (fs.FileReader)((*handle)(nil))
var _ = (fs.FileWriter)((*handle)(nil))
var _ = (fs.FileGetattrer)((*handle)(nil))
var _ = (fs.FileFlusher)((*handle)(nil))
var _ = (fs.FileReleaser)((*handle)(nil))

// Read reads the backing file.
func (h *handle) Read(_ context.Context, b []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.f.ReadAt(b, at)
	if err != nil && err != io.EOF {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(b[:n]), fs.OK
}

// Write keeps the old bytes and writes.
func (h *handle) Write(_ context.Context, b []byte, at int64) (uint32, syscall.Errno) {
	err := h.v.change(h.f, at, at+int64(len(b)), func() error {
		_, err := h.f.WriteAt(b, at)
		return err
	})
	return uint32(len(b)), fs.ToErrno(err)
}

// Getattr describes the backing file.
func (h *handle) Getattr(_ context.Context, out *fuse.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(h.f.Fd()), &st); err != nil {
		return fs.ToErrno(err)
	}
	out.FromStat(&st)
	return fs.OK
}

// Flush does nothing: closing syncs nothing.
func (h *handle) Flush(context.Context) syscall.Errno { return fs.OK }

// Release closes the backing file.
func (h *handle) Release(context.Context) syscall.Errno { return fs.ToErrno(h.f.Close()) }
