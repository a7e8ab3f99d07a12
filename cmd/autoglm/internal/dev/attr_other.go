//go:build unix && !linux

package dev

import "syscall"

// childAttr puts a node into a process group of its own, out of a terminal's Ctrl-C. A supervisor that is killed leaves
// its nodes behind here.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
