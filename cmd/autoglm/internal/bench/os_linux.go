package bench

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttr puts a node into a process group of its own, out of a terminal's Ctrl-C, and lets the kernel kill it should
// this process die without a word. The kernel ties that to the thread that started it: see launch.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
