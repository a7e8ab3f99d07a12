package infer

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	portTriesMax = 5  // starts in a row of a child whose port somebody took; then it ended like any other
	portPicksMax = 64 // ports that the kernel offers and another child of this process has
)

// place is where a child listens.
type place struct {
	network, address string
	port             int // 0: a socket
}

// completeCommand checks what a command needs beside what every pool does.
func (o *PoolOptions) completeCommand() error {
	path, err := exec.LookPath(o.Command.Program())
	if err != nil {
		return fault.New(fault.NotFound, "infer.pool", o.Command.Program(), "the command's program: %w", errors.Unwrap(err)).
			WithRemedy("install it, or name it by its absolute path; the node looks for it in its own PATH")
	}
	if o.Binary, err = filepath.Abs(path); err != nil {
		return fault.New(fault.NotFound, "infer.pool", path, "%w", err)
	}
	if o.Model == "" && o.Command.uses.path {
		return fault.New(fault.Invalid, "infer.pool", "", "the command says {{.Path}}, and no path is named").WithRemedy("name the model's file or folder as path")
	}
	if o.ModelID == "" && o.Command.uses.model {
		if o.ModelID = strings.TrimSuffix(filepath.Base(o.Model), ".gguf"); o.Model == "" {
			o.ModelID = o.Name
		}
	}
	return nil
}

// models are what its engines serve; none: they are asked.
func (p *Pool) models() []string {
	if p.o.ModelID == "" {
		return nil
	}
	return []string{p.o.ModelID}
}

// remedy is for a worker that ends before it is ready.
func (p *Pool) remedy() string {
	if p.o.Command != nil {
		return "try the command by hand; the node's log has all that it said at level debug"
	}
	return "check that the file is a GGUF model that this machine has the memory for; the node's log has all that it said"
}

// spawn starts the child's process.
func (c *Child) spawn() (*process, error) {
	o := &c.pool.o
	c.tail.begin()
	s := start{binary: o.Binary, out: c.tail, name: c.Name()}
	if o.Limits != (Limits{}) {
		g := o.grounds()
		s.root, s.plan = g.root, planLimits(o.Limits, g)
	}
	env := o.Env
	if o.GPU != "" {
		env = append([]string{"CUDA_VISIBLE_DEVICES=" + o.GPU}, env...)
	}
	if o.Command == nil {
		s.args, s.env, s.pipe = c.pool.args(c.socket), env, true
		return startProcess(s)
	}
	f := CommandFields{Path: o.Model, Model: o.ModelID, Host: commandHost, Socket: c.socket, Slots: o.Slots, Ctx: o.Ctx, GPU: o.GPU}
	at := &place{network: "unix", address: c.socket}
	if o.Command.uses.socket {
		if err := os.Remove(c.socket); err != nil && !errors.Is(err, os.ErrNotExist) { // what one that was killed left
			return nil, err
		}
	} else {
		port, err := ports.pick()
		if err != nil {
			return nil, err
		}
		f.Port = port
		at = &place{"tcp", net.JoinHostPort(commandHost, strconv.Itoa(port)), port}
	}
	args, more, err := o.Command.Render(f)
	if err == nil {
		c.at.Store(at)
		var p *process
		s.args, s.env = args[1:], append(env[:len(env):len(env)], more...)
		if p, err = startProcess(s); err == nil {
			return p, nil
		}
	}
	ports.free(at.port)
	return nil, err
}

// leave gives the port of a process back that has ended.
func (c *Child) leave() {
	if at := c.at.Load(); at != nil {
		ports.free(at.port)
	}
}

// dial reaches the process of a command.
func (c *Child) dial(ctx context.Context) (net.Conn, error) {
	at := c.at.Load()
	if at == nil {
		return nil, errors.New("it listens nowhere yet")
	}
	return (&net.Dialer{Timeout: c.http.o.DialTimeout}).DialContext(ctx, at.network, at.address)
}

// portWasTaken tells whether a process ended for want of its port, as far as its words tell.
func (c *Child) portWasTaken() bool {
	if c.pool.o.Command == nil || c.pool.o.Command.uses.socket {
		return false
	}
	text := strings.ToLower(c.tail.fresh())
	return strings.Contains(text, "address already in use") || strings.Contains(text, "eaddrinuse")
}

// portBook are the ports that children of this process have, or will have when they listen: the kernel does not know of the latter.
type portBook struct {
	mu    sync.Mutex
	taken map[int]bool
}

var ports = portBook{taken: map[int]bool{}}

// pick returns a port of loopback that nobody has.
func (b *portBook) pick() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range portPicksMax {
		l, err := net.Listen("tcp", net.JoinHostPort(commandHost, "0"))
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if !b.taken[port] {
			b.taken[port] = true
			return port, nil
		}
	}
	return 0, fault.New(fault.Unavailable, "infer.child", "", "no port of %s is free", commandHost)
}

func (b *portBook) free(port int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.taken, port)
}
