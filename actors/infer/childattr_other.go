//go:build unix && !linux

package infer

import (
	"errors"
	"syscall"
)

// processAttr: a group of its own. Only Linux tells a child of its parent's death; elsewhere the
// worker notices by the end of its standard input.
func processAttr(*childGroup) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// endGroup does nothing: what a child leaves behind when it ends by itself stays.
func endGroup(int) bool { return false }

func setNice(int) error { return errors.ErrUnsupported }

// limitProcess has nothing to do it with.
func limitProcess(_ int, p plan) (missed []string) {
	if p.data > 0 {
		missed = append(missed, "memory: only Linux limits another process")
	}
	return missed
}
