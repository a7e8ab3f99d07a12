package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/llama"
)

// Exit codes. A parent may restart after a failure; a refusal comes back until the command or the file is changed.
const (
	exitOK      = 0
	exitFailed  = 1
	exitRefused = 2
)

// config is what the flags say.
type config struct {
	model, socket, name string

	slots   int // answers made at once
	ctx     int // tokens of one slot; 0 is the model's own, at most ctxDefaultMax
	batch   int // tokens computed in one round
	threads int
	queue   int // requests waiting for a slot

	bodyBytes   int64
	drain       time.Duration // for accepted requests to finish after SIGTERM
	parentStdin bool
	logFormat   string
}

// ctxDefaultMax keeps a model trained for a long context from taking all memory unasked.
const ctxDefaultMax = 4096

// main stays on its thread: the kernel tells of the parent's death only as long as the thread that asked lives.
func init() { runtime.LockOSThread() }

func main() {
	c, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(exitOK)
	case err != nil:
		fmt.Fprintln(os.Stderr, "glm-worker:", err)
		os.Exit(exitRefused)
	}
	slog.SetDefault(newLogger(c.logFormat, os.Stderr))
	os.Exit(run(c))
}

func parse(args []string, usage io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("glm-worker", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&c.model, "model", "", "GGUF `file` of a GLM model (required)")
	f.StringVar(&c.socket, "socket", "", "unix socket `path` to serve on (required)")
	f.StringVar(&c.name, "name", "", "model `id` to serve under (default: the file's name without .gguf)")
	f.IntVar(&c.slots, "slots", 16, fmt.Sprintf("answers made at once, 1 to %d", llama.SlotsMax))
	f.IntVar(&c.ctx, "ctx", 0, fmt.Sprintf("`tokens` of a prompt and its answer (default: the model's own length, at most %d)", ctxDefaultMax))
	f.IntVar(&c.batch, "batch", 512, "`tokens` computed in one round; at least --slots")
	f.IntVar(&c.threads, "threads", 1, "threads; on a busy machine more are much slower, run more workers instead")
	f.IntVar(&c.queue, "queue", 64, "requests waiting for a slot; one more is answered 429")
	f.Int64Var(&c.bodyBytes, "body-bytes", 2<<20, "`bytes` of the largest request")
	f.DurationVar(&c.drain, "drain", time.Minute, "`time` for accepted requests to finish after SIGTERM")
	f.BoolVar(&c.parentStdin, "parent-stdin", false, "exit when standard input ends: a parent keeps the other end open")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json, on standard error")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q: all settings are flags", f.Arg(0))
	case c.model == "":
		return c, errors.New("--model is missing: name a GGUF file")
	case c.socket == "":
		return c, errors.New("--socket is missing: name a path for the unix socket")
	case len(c.socket) > socketPathMax:
		return c, fmt.Errorf("--socket has %d bytes: a unix socket's path has at most %d, use a shorter folder", len(c.socket), socketPathMax)
	case c.slots < 1 || c.slots > llama.SlotsMax:
		return c, fmt.Errorf("--slots is %d: 1 to %d", c.slots, llama.SlotsMax)
	case c.ctx < 0 || c.ctx == 1:
		return c, fmt.Errorf("--ctx is %d: at least 2, or 0 for the model's own", c.ctx)
	case c.batch < c.slots || c.batch > 1<<16:
		return c, fmt.Errorf("--batch is %d: at least --slots, %d, so that each answer moves in each round, and at most %d", c.batch, c.slots, 1<<16)
	case c.threads < 1 || c.threads > 1024:
		return c, fmt.Errorf("--threads is %d: 1 to 1024", c.threads)
	case c.queue < 1 || c.queue > 1<<16:
		return c, fmt.Errorf("--queue is %d: 1 to %d", c.queue, 1<<16)
	case c.bodyBytes < 1024:
		return c, fmt.Errorf("--body-bytes is %d: at least 1024", c.bodyBytes)
	case c.drain <= 0:
		return c, fmt.Errorf("--drain is %v: more than nothing", c.drain)
	case c.logFormat != "text" && c.logFormat != "json":
		return c, fmt.Errorf("--log-format is %q: text or json", c.logFormat)
	}
	if c.name == "" {
		c.name = strings.TrimSuffix(filepath.Base(c.model), ".gguf")
	}
	return c, nil
}

func newLogger(format string, to io.Writer) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(to, nil))
	}
	return slog.New(slog.NewTextHandler(to, nil))
}
