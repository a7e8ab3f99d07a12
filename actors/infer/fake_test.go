package infer

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// fakeEnv holds the modes of the fake worker, and fakeDir the folder by which a test steers it:
// files that exist are switches, so nothing depends on time.
const fakeEnv, fakeDir = "AUTOGLM_FAKE_WORKER", "AUTOGLM_FAKE_DIR"

func fakeMain(mode string) {
	switch mode {
	case "parent", "parent-command":
		fakeParent(mode)
		return
	case "cgroup-node":
		fakeCgroupNode()
		return
	case "grandchild":
		fakeGrandchild()
		return
	}
	f := flag.NewFlagSet("fake", flag.ExitOnError)
	socket := f.String("socket", "", "")
	listen := f.String("listen", "", "") // a TCP address, in place of a socket
	name := f.String("name", "", "")
	stdin := f.Bool("parent-stdin", false, "")
	for _, known := range []string{"model", "slots", "ctx", "threads", "drain"} {
		f.String(known, "", "")
	}
	f.Parse(os.Args[1:])
	w := &fakeWorker{dir: os.Getenv(fakeDir), name: *name}
	fmt.Fprintf(os.Stderr, "fake worker in mode %s\n", mode)
	w.hold()
	switch mode {
	case "crash":
		fmt.Fprint(os.Stderr, "GGML_ASSERT(false) failed") // without a newline, as abort leaves it
		os.Exit(3)
	case "refuse":
		os.Exit(exitRefused)
	case "crash-once":
		if os.Mkdir(filepath.Join(w.dir, "crashed"), 0o700) == nil {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	case "port-taken":
		if os.Mkdir(filepath.Join(w.dir, "taken"), 0o700) == nil {
			fmt.Fprintf(os.Stderr, "[Errno 98] error while attempting to bind on address: Address already in use\n")
			os.Exit(1)
		}
	case "family", "orphans", "runaways":
		startGrandchild(w.dir, mode == "runaways")
		if mode == "orphans" && os.Mkdir(filepath.Join(w.dir, "crashed"), 0o700) == nil {
			os.Exit(3)
		}
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
	case "pdeath":
		*stdin = false // only the kernel tells of the parent's death
	}
	if *stdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(1)
		}()
	}
	if *listen != "" {
		w.serve("tcp", *listen, mode)
		return
	}
	os.Remove(*socket)
	w.serve("unix", *socket, mode)
}

type fakeWorker struct {
	dir, name string
	inFlight  atomic.Int32
}

// hold locks a file for as long as this process lives: a test that gets the lock knows it is gone.
func (w *fakeWorker) hold() {
	f, err := os.OpenFile(filepath.Join(w.dir, "alive"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		panic(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		panic(err)
	}
	heldFile = f
}

var heldFile *os.File // or the garbage collector would close it

func (w *fakeWorker) on(name string) bool {
	_, err := os.Stat(filepath.Join(w.dir, name))
	return err == nil
}

func (w *fakeWorker) serve(network, address, mode string) {
	l, err := net.Listen(network, address)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(rw http.ResponseWriter, r *http.Request) {
		if mode == "never" || (mode == "slow" && !w.on("loaded")) {
			rw.WriteHeader(503)
		}
	})
	mux.HandleFunc("GET /v1/models", func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, `{"data":[{"id":"its-own"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if mode == "stuck" { // tell the test, then never answer
			fmt.Fprintln(os.Stderr, "got "+strconv.Itoa(int(w.inFlight.Add(1))))
			select {
			case <-r.Context().Done():
			case <-stopRequested:
				fmt.Fprintf(rw, okAnswer, w.name)
			}
			return
		}
		fmt.Fprintf(rw, okAnswer, w.name)
	})
	s := &http.Server{Handler: mux}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if mode == "deaf" {
		signal.Reset(syscall.SIGTERM)
		signal.Ignore(syscall.SIGTERM)
	}
	go s.Serve(l)
	<-term
	fmt.Fprintln(os.Stderr, "draining")
	close(stopRequested)
	s.Shutdown(context.Background())
}

var stopRequested = make(chan struct{})

const okAnswer = `{"model":%q,"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}`

// fakeParent runs a pool until it is killed; it says "ready" on stdout once the worker is.
func fakeParent(mode string) {
	o := fakeOptions(os.Getenv(fakeDir), "pdeath")
	if mode == "parent-command" {
		o.Command = fakeCommand("--listen", "{{.Host}}:{{.Port}}")
	}
	o.Log = slog.New(slog.DiscardHandler)
	p, err := NewPool(o)
	if err != nil {
		panic(err)
	}
	p.Start()
	if err := p.WaitReady(context.Background(), 1); err != nil {
		panic(err)
	}
	fmt.Println("ready", p.Status()[0].PID)
	select {}
}

// fakeOptions is a pool of one fake worker with limits that a test can wait for.
func fakeOptions(dir, mode string) PoolOptions {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	o := PoolOptions{Binary: self, Model: filepath.Join(dir, "glm.gguf"), Env: []string{fakeEnv + "=" + mode, fakeDir + "=" + dir},
		ProbeEvery: 10 * time.Millisecond, HangAfter: 30 * time.Second, LoadTimeout: 30 * time.Second, StopTimeout: 30 * time.Second}
	o.Backoff.Min, o.Backoff.Max, o.Backoff.Jitter = time.Millisecond, 20*time.Millisecond, 0.5
	if err := os.WriteFile(o.Model, []byte("GGUF"), 0o600); err != nil {
		panic(err)
	}
	return o
}

// fakeCommand is the fake worker as a command.
func fakeCommand(args ...string) *Command {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c, err := ParseCommand(append([]string{self}, args...), nil)
	if err != nil {
		panic(err)
	}
	return c
}

// startGrandchild starts a process that outlives its parent and hears no SIGTERM; it returns once that holds its lock.
func startGrandchild(dir string, runsAway bool) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), fakeEnv+"=grandchild")
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: runsAway} // out of its parent's group
	out, err := c.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := c.Start(); err != nil {
		panic(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		panic(err)
	}
}

func fakeGrandchild() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGPIPE)
	(&fakeWorker{dir: os.Getenv(fakeDir)}).hold()
	fmt.Println("held")
	select {}
}
