package infer

import "syscall"

// processAttr: a group of its own, and the kernel kills it when this process dies, however.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
