package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketPathMax is the kernel's, less the zero at the end.
const socketPathMax = 107

// unixSocket is a listening socket that no other worker has, and that leaves no file behind.
type unixSocket struct {
	net.Listener
	path, lockPath string
	lock           *os.File
	once           sync.Once
}

// listen takes the path for this process alone. A file left by a killed worker is removed; a socket where somebody
// answers is not. Between looking and removing another worker could come, so both happen under a lock that the kernel
// lets go when its holder dies.
func listen(path string) (*unixSocket, error) {
	s := &unixSocket{path: path, lockPath: path + ".lock"}
	var err error
	if s.lock, err = takeLock(s.lockPath); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		s.unlock()
		return nil, err
	}
	old := syscall.Umask(0o177) // only this user may connect, from the first moment; nothing else creates files yet
	s.Listener, err = net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		s.unlock()
		return nil, fmt.Errorf("socket.listen: %w", err)
	}
	return s, nil
}

// takeLock locks a file that is still the one at its path: its last holder removed it, maybe just now.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("socket.listen: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("socket.listen: another worker holds %s: choose another --socket or stop it", path)
			}
			return nil, fmt.Errorf("socket.listen: lock %s: %w", path, err)
		}
		mine, err := f.Stat()
		if err == nil {
			var there os.FileInfo
			if there, err = os.Stat(path); err == nil && os.SameFile(mine, there) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("socket.listen: %w", err)
		}
	}
}

func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket.listen: %w", err)
	case st.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("socket.listen: %s is there and is no socket: choose another --socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("socket.listen: somebody answers on %s: choose another --socket or stop it", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("socket.listen: %s cannot be told stale: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("socket.listen: %w", err)
	}
	return nil
}

// Close stops listening, which removes the socket's file, and then lets others have the path.
func (s *unixSocket) Close() (err error) {
	s.once.Do(func() {
		err = s.Listener.Close()
		s.unlock()
	})
	return err
}

// unlock removes the lock's file while it is still held, so that nobody else's is removed.
func (s *unixSocket) unlock() {
	_ = os.Remove(s.lockPath)
	_ = s.lock.Close()
}
