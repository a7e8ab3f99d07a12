// Package cpulevel refuses to start a binary on a processor older than it was compiled for.
//
// llama.cpp is compiled for one instruction set level (see build.mk). Run on an older processor it dies by SIGILL, in
// the C++ constructors that run before main and before Go itself, and nobody learns why. So the check is a C
// constructor of the highest priority, compiled for the plain x86-64 level whatever the rest is compiled for:
//
//	exec ─► libc ─► require_cpu_level (here) ─► C++ constructors ─► Go runtime ─► main
//	                  └─ too old: one line on stderr, exit 1
//
// Import it for its effect. Level tells what was compiled in.
package cpulevel
