package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Times of a child.
const (
	pollEvery  = 50 * time.Millisecond // between looks at a node that is not ready yet
	probeMax   = 2 * time.Second       // for one look
	pipesAfter = 2 * time.Second       // after a node's end, for its own children to let go of its output
)

// child is one life of a node's process.
type child struct {
	cmd   *exec.Cmd
	ready chan struct{} // closed once /readyz said 200
	gone  chan struct{} // closed when it has ended, was waited for, and the supervisor has taken note

	mu    sync.Mutex
	asked bool // it was told to end
}

// launch starts cmd on a thread that lives as long as the child does: the kernel kills the child when the thread that
// started it ends. ended runs before gone is closed.
func launch(cmd *exec.Cmd, out *lines, ended func(*child)) (*child, error) {
	c := &child{cmd: cmd, ready: make(chan struct{}), gone: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, pipesAfter
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = childAttr()
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
			out.close()
			ended(c)
		}
	}()
	return c, <-started
}

// awaitReady closes ready when the node says so; it returns then, or when the process is gone.
func (c *child) awaitReady(probe func(context.Context) bool, then func()) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !probe(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	then()
	close(c.ready)
}

// ask tells the process to end, and to end at once with SIGKILL. It fails only when it has ended.
func (c *child) ask(sig syscall.Signal) {
	c.mu.Lock()
	c.asked = true
	c.mu.Unlock()
	_ = c.cmd.Process.Signal(sig)
}

func (c *child) wasAsked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// death says how a process ended, as a predicate: "was killed (signal 9)".
func death(st *os.ProcessState) string {
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("was killed (signal %d)", ws.Signal())
	}
	return fmt.Sprintf("ended (exit status %d)", st.ExitCode())
}

// prober asks a node whether it is ready.
type prober struct{ http *http.Client }

func newProber() prober {
	return prober{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second}}}
}

func (p prober) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // read, so that the connection is used again
	if res.StatusCode != http.StatusOK {
		var h wire.Health
		if json.Unmarshal(b, &h) == nil && h.Reason != "" {
			return errors.New(h.Reason)
		}
		return errors.New(res.Status + ": " + string(b))
	}
	return nil
}
