package dev

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const logTail = 2 << 10 // bytes of a node's words that an error shows

// Start starts all nodes that are down, at once: none of them is ready before most are there. It returns when all are
// ready, or with the first that cannot be; the others go on.
func (c *Cluster) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for _, n := range c.Nodes() {
		if n.State != Down {
			continue
		}
		wg.Go(func() {
			if err := c.StartNode(ctx, n.Name); err != nil {
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
				cancel() // a cluster that lacks one may wait for it for ever
			}
		})
	}
	wg.Wait()
	return first
}

// StartNode starts a node that is down and waits until it is ready. A node that runs is a Conflict, one that ends
// before it is ready Unavailable; when ctx ends first it is a Timeout, and the node goes on starting.
func (c *Cluster) StartNode(ctx context.Context, name string) error {
	p, release, err := c.operate(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	return c.begin(ctx, name, p)
}

// StopNode tells a node to end, and kills it when it takes longer than Options.StopMax. One that is down is a Conflict.
// When ctx ends first the node is killed at once.
func (c *Cluster) StopNode(ctx context.Context, name string) error {
	n, err := c.Node(name)
	if err != nil {
		return err
	}
	if n.State == Down {
		return fault.New(fault.Conflict, "dev.stop", name, "is down already")
	}
	return c.finish(ctx, name)
}

// RestartNode stops a node in order, starts it and waits until it is ready. One that is down is just started.
func (c *Cluster) RestartNode(ctx context.Context, name string) error {
	p, release, err := c.operate(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	if err := c.finish(ctx, name); err != nil {
		return err
	}
	return c.begin(ctx, name, p)
}

// KillNode ends a node as a power cut would, as far as processes go, and returns when it is gone. A node that is down
// stays so. It does not wait for an operation on the node that is under way.
func (c *Cluster) KillNode(name string) error {
	ch, err := c.childOf(name)
	if err != nil || ch == nil {
		return err
	}
	_ = ch.cmd.Process.Signal(syscall.SIGKILL) // fails only when it has ended
	<-ch.gone
	return nil
}

// Signal sends a signal to a node's process: SIGSTOP, SIGCONT. One that is down is a Conflict.
func (c *Cluster) Signal(name string, sig syscall.Signal) error {
	ch, err := c.childOf(name)
	if err != nil {
		return err
	}
	if ch == nil {
		return fault.New(fault.Conflict, "dev.signal", name, "is down")
	}
	if err := ch.cmd.Process.Signal(sig); err != nil {
		return fault.New(fault.Conflict, "dev.signal", name, "%w", err)
	}
	return nil
}

// Gone returns a channel that is closed when the node's process of now has ended; closed already when it is down.
func (c *Cluster) Gone(name string) (<-chan struct{}, error) {
	ch, err := c.childOf(name)
	if err != nil {
		return nil, err
	}
	if ch == nil {
		closed := make(chan struct{})
		close(closed)
		return closed, nil
	}
	return ch.gone, nil
}

func (c *Cluster) childOf(name string) (*child, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.procs[name]
	if p == nil {
		return nil, c.unknown(name)
	}
	return p.child, nil
}

// operate waits for its turn with a node.
func (c *Cluster) operate(ctx context.Context, name string) (*proc, func(), error) {
	c.mu.Lock()
	p := c.procs[name]
	if p == nil {
		defer c.mu.Unlock()
		return nil, nil, c.unknown(name)
	}
	c.mu.Unlock()
	select {
	case <-p.op:
		return p, func() { p.op <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, nil, fault.New(fault.Timeout, "dev.node", name, "another command is at work on it: %w", ctx.Err())
	}
}

// begin starts a process for a node whose turn the caller has, and waits until it is ready.
func (c *Cluster) begin(ctx context.Context, name string, p *proc) error {
	if err := ctx.Err(); err != nil {
		return fault.New(fault.Timeout, "dev.start", name, "%w", err)
	}
	n, err := c.Node(name)
	if err != nil {
		return err
	}
	ch, err := c.launch(&n, p)
	if err != nil {
		return err
	}
	if err := c.save(); err != nil {
		c.say("%s is out of date: %v", fileName, err)
	}
	go func() {
		defer c.wg.Done()
		ch.awaitReady(func(ctx context.Context) bool { return c.ask.ready(ctx, n.URL) == nil }, func() { c.noteReady(name, p, ch) })
		<-ch.gone
	}()
	select {
	case <-ch.ready:
		return nil
	case <-ch.gone:
		return fault.New(fault.Unavailable, "dev.start", name, "%s before it was ready:\n%s", death(ch.cmd.ProcessState), tailOf(n.Log)).
			WithRemedy("its whole log is %s", n.Log)
	case <-ctx.Done():
		return fault.New(fault.Timeout, "dev.start", name, "not ready in time: %w", ctx.Err()).WithRemedy("it goes on starting; see %s", n.Log)
	}
}

// launch makes the process, and takes note of it before its end can be noted: the lock is held over the start. On
// success c.wg counts one more.
func (c *Cluster) launch(n *Node, p *proc) (*child, error) {
	out, err := newLines(c.out, n.Name, n.Log)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		out.close()
		return nil, fault.New(fault.Unavailable, "dev.start", n.Name, "the cluster is being stopped")
	case p.child != nil:
		out.close()
		return nil, fault.New(fault.Conflict, "dev.start", n.Name, "runs already, as process %d", n.PID)
	}
	cmd := c.o.Command(n.Name, serveArgs(&c.file, n, c.o.Args))
	ch, err := launch(cmd, out, func(ch *child) { c.noteEnd(n.Name, p, ch) })
	if err != nil {
		out.close()
		return nil, fault.New(fault.NotFound, "dev.start", n.Name, "%s cannot be started: %w", cmd.Path, err).
			WithRemedy("check that the program exists and may be executed")
	}
	p.child = ch
	c.wg.Add(1)
	entry := c.file.node(n.Name)
	entry.State, entry.PID, entry.Reason, entry.StartedAt = Starting, cmd.Process.Pid, "", time.Now().UTC()
	return ch, nil
}

func tailOf(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-logTail):]))
}

func (c *Cluster) noteReady(name string, p *proc, ch *child) {
	c.change(name, func(n *Node) {
		if p.child == ch && n.State == Starting { // it may have ended meanwhile
			n.State = Ready
		}
	})
}

func (c *Cluster) noteEnd(name string, p *proc, ch *child) {
	how := death(ch.cmd.ProcessState)
	if ch.wasAsked() && ch.cmd.ProcessState.Success() {
		how = "was stopped"
	}
	c.change(name, func(n *Node) {
		p.child = nil
		n.State, n.PID, n.Reason, n.StartedAt = Down, 0, how, time.Time{}
	})
	if ch.wasAsked() {
		c.say("%s %s", name, how)
		return
	}
	c.say("%s %s; start it again with: autoglm dev start %s --data-dir %s", name, how, name, c.dir)
}

// finish tells the process to end and returns when it has. It takes no turn: who waits for the node to get ready has it,
// and the end of the process ends that wait.
func (c *Cluster) finish(ctx context.Context, name string) error {
	ch, err := c.childOf(name)
	if err != nil || ch == nil {
		return err
	}
	c.change(name, func(n *Node) {
		if n.PID != 0 {
			n.State = Stopping
		}
	})
	ch.ask(syscall.SIGTERM)
	late := time.NewTimer(c.o.StopMax)
	defer late.Stop()
	why := ""
	select {
	case <-ch.gone:
		return nil
	case <-late.C:
		why = "it took longer than " + c.o.StopMax.String()
	case <-ctx.Done():
		why = "it was not waited for"
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			why = "it took too long"
		}
	}
	c.say("%s is killed: %s", name, why)
	ch.ask(syscall.SIGKILL)
	<-ch.gone
	return nil
}
