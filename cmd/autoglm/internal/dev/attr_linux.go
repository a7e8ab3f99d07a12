package dev

import "syscall"

// childAttr puts a node into a process group of its own, out of a terminal's Ctrl-C, and lets the kernel kill it should
// the supervisor die without a word. The kernel ties that to the thread that started it: see launch.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
