//go:build !linux

package bench

import (
	"os"
	"syscall"
)

func childAttr() *syscall.SysProcAttr { return nil }

func datasync(f *os.File) error { return f.Sync() }
