package raftnet

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// control has the kernel give up a connection whose data nobody acknowledges. Keep-alive probes alone are not sent while
// there is data under way. Connections that are accepted inherit it from the listener.
func control(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedMax.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}
