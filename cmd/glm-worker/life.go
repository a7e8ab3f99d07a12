package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/chat"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/cpulevel"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/gguf"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/llama"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/openai"
)

// worker is a loaded model at work.
type worker struct {
	model    *llama.Model
	context  *llama.Context
	engine   *engine.Engine
	template *chat.Template
}

// errRefused marks a failure that another start would meet again.
var errRefused = errors.New("refused")

// run is the worker's whole life: listen, load, serve, drain.
func run(c config) (code int) {
	watchParent(c.parentStdin)
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	socket, err := listen(c.socket)
	if err != nil {
		slog.Error("cannot listen", "error", err)
		return exitRefused
	}
	defer socket.Close()
	api := openai.NewServer(openai.Limits{BodyBytes: c.bodyBytes})
	server := &http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	// As many connections as requests can be held, and some for health and metrics; others wait in the kernel's backlog.
	go func() { served <- server.Serve(netutil.LimitListener(socket, c.slots+c.queue+64)) }()

	type outcome struct {
		w   *worker
		err error
	}
	loaded, began := make(chan outcome, 1), time.Now()
	go func() {
		w, err := load(c)
		loaded <- outcome{w, err}
	}()
	select {
	case o := <-loaded:
		if o.err != nil {
			slog.Error("cannot load the model", "error", o.err)
			_ = server.Close()
			if errors.Is(o.err, errRefused) {
				return exitRefused
			}
			return exitFailed
		}
		api.Ready(o.w.served(c.name))
		slog.Info("ready", "name", c.name, "model", o.w.model.Describe(), "parameters", o.w.model.Params(), "slots", c.slots,
			"ctx", o.w.engine.Context(), "threads", c.threads, "cpu", cpulevel.Level(), "took", time.Since(began).Round(time.Millisecond))
		return work(c, o.w, api, server, stop, served)
	case <-stop: // nothing was accepted yet; the loading thread ends with the process
		_ = server.Close()
		return exitOK
	case err := <-served:
		slog.Error("cannot serve", "error", err)
		return exitFailed
	}
}

// work serves until told to stop, then drains.
func work(c config, w *worker, api *openai.Server, server *http.Server, stop <-chan os.Signal, served <-chan error) int {
	defer w.close()
	select {
	case <-stop:
	case err := <-w.engine.Broken():
		slog.Error("the model does not work any more", "error", err)
		_ = server.Close()
		return exitFailed
	case err := <-served:
		slog.Error("cannot serve", "error", err)
		return exitFailed
	}
	slog.Info("draining", "limit", c.drain)
	api.Drain()
	limit, cancel := context.WithTimeout(context.Background(), c.drain)
	defer cancel()
	go func() {
		select {
		case <-stop: // asked twice: at once
			cancel()
		case <-limit.Done():
		}
	}()
	if err := w.engine.Drain(limit); err != nil {
		slog.Warn("drain limit reached, the rest was answered 503", "limit", c.drain)
	}
	// The answers are made; what is left is to hand them over.
	last, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if err := server.Shutdown(last); err != nil {
		slog.Warn("some clients did not take their answers", "error", err)
		_ = server.Close()
	}
	slog.Info("drained")
	return exitOK
}

// load checks the file, loads it and starts the engine.
func load(c config) (*worker, error) {
	info, err := gguf.Check(c.model)
	if err == nil {
		err = checkSplits(c.model, info)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	if err := chat.Supports(info.Architecture); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errRefused, c.model, err)
	}
	w := &worker{}
	if w.model, err = llama.Load(c.model); err != nil {
		return nil, err
	}
	if c.ctx == 0 {
		c.ctx = min(w.model.ContextTrained(), ctxDefaultMax)
	}
	w.context, err = w.model.NewContext(llama.Shape{Slots: c.slots, Tokens: c.ctx, Batch: c.batch, Threads: c.threads})
	if err != nil {
		w.close()
		return nil, err
	}
	w.engine, err = engine.New(w.context, w.model.Vocab(chat.RoleTokens...),
		engine.Config{Slots: c.slots, Context: c.ctx, Batch: w.context.BatchMax(), Queue: c.queue})
	if err != nil {
		w.close()
		return nil, err
	}
	if w.template, err = chat.New(info.Architecture, w.model); err != nil {
		w.close()
		return nil, fmt.Errorf("%w: %s: %w", errRefused, c.model, err)
	}
	return w, nil
}

// checkSplits looks at the other files of a split model, whose names follow the first one's.
func checkSplits(path string, first gguf.Info) error {
	if first.Splits < 2 {
		return nil
	}
	tail := fmt.Sprintf("-%05d-of-%05d.gguf", 1, first.Splits)
	stem, ok := strings.CutSuffix(path, tail)
	if !ok {
		return fmt.Errorf("%s: the first of %d files of a split model must be named *%s", path, first.Splits, tail)
	}
	for i := uint64(2); i <= first.Splits; i++ {
		if _, err := gguf.Check(fmt.Sprintf("%s-%05d-of-%05d.gguf", stem, i, first.Splits)); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) served(name string) *openai.Model {
	return &openai.Model{Name: name, Engine: w.engine, Chat: w.template, NewGrammar: w.model.NewGrammar, Loaded: time.Now()}
}

// close frees everything in the order in which it depends.
func (w *worker) close() {
	if w.engine != nil {
		w.engine.Close()
	}
	if w.context != nil {
		w.context.Close()
	}
	if w.model != nil {
		w.model.Close()
	}
}

// watchParent ends the process when its parent is gone. Two ways, as each has a gap:
//
// The kernel sends a signal when the thread that started this process ends. That may be a thread of a living parent, so
// the signal only makes us look whether we have another parent now; and it is not sent when the parent died before we
// asked, so we look once more after asking.
//
// Standard input ends when the last holder of the pipe's other end is gone, however it went and whenever. This needs a
// parent that made such a pipe, hence a flag.
func watchParent(stdin bool) {
	parent := os.Getppid()
	look := make(chan os.Signal, 1)
	signal.Notify(look, unix.SIGUSR2)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGUSR2), 0, 0, 0); err != nil {
		slog.Warn("the kernel will not tell of the parent's death", "error", err)
	}
	orphaned := func() {
		slog.Error("the parent is gone")
		os.Exit(exitFailed)
	}
	if os.Getppid() != parent {
		orphaned()
	}
	go func() {
		for range look {
			if os.Getppid() != parent {
				orphaned()
			}
		}
	}()
	if stdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			orphaned()
		}()
	}
}
