package llama

// #include "abi.h"
// extern void glmLog(int level, char *text, void *user);
// static void log_to_go(void) { llama_log_set((void (*)(int, const char *, void *))glmLog, 0); }
import "C"

import (
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// The levels of llama.cpp's log that are worth passing on; below them it narrates every tensor.
const (
	levelWarn  = 3
	levelError = 4
)

// lastError keeps the newest error line: llama.cpp returns only a null pointer and logs the reason.
var lastError atomic.Pointer[string]

//export glmLog
func glmLog(level C.int, text *C.char, _ unsafe.Pointer) {
	if level != levelWarn && level != levelError {
		return
	}
	line := strings.TrimSpace(C.GoString(text))
	if line == "" {
		return
	}
	if level == levelError {
		lastError.Store(&line)
		slog.Error("llama.cpp", "text", line)
		return
	}
	slog.Warn("llama.cpp", "text", line)
}

// reason is what llama.cpp last complained about, to go into an error.
func reason() string {
	if line := lastError.Load(); line != nil {
		return *line
	}
	return "llama.cpp gave no reason"
}

// start prepares the library once, for whatever is called first.
var start = sync.OnceFunc(func() {
	// On abort ggml would fork a debugger to print a stack. A worker that dies must do so at once and alone.
	os.Setenv("GGML_NO_BACKTRACE", "1")
	C.log_to_go()
	C.llama_backend_init()
})
