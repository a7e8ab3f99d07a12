package cpulevel

// #cgo CFLAGS: -std=gnu11
// #include "cpulevel.h"
import "C"

// Level is the instruction set level this binary was compiled for, such as "x86-64-v3".
func Level() string { return C.GoString(C.cpu_level_built()) }

// Missing names the first feature of the given features that the mask of present ones lacks, or is empty.
// It is the decision of the start check, kept apart so that a test reaches it.
func missing(have uint32) string { return C.GoString(C.cpu_level_missing(C.uint(have))) }

// present is what this processor offers, as a mask in the order of cpulevel.c's table.
func present() uint32 { return uint32(C.cpu_level_present()) }
