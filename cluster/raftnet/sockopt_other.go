//go:build !linux

package raftnet

import "syscall"

// control does nothing: here the kernel's own limit for data that nobody acknowledges stays.
func control(_, _ string, _ syscall.RawConn) error { return nil }
