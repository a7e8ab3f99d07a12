package infer

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttr: a group of its own, and the kernel kills it when this process dies, however.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// endGroup waits until a child has ended and kills what it left in its group. The child is not reaped yet, so that its number, which is the
// group's, is nobody else's.
func endGroup(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil {
			_ = syscall.Kill(-pid, syscall.SIGKILL) // fails where nobody is left
		}
		return
	}
}
