//go:build unix && !linux

package infer

import "syscall"

// processAttr: a group of its own. Only Linux tells a child of its parent's death; elsewhere the
// worker notices by the end of its standard input.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// endGroup does nothing: what a child leaves behind when it ends by itself stays.
func endGroup(int) {}
