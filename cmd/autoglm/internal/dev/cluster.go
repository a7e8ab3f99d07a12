package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Options say what cluster Open makes.
type Options struct {
	Dir         string        // of everything; made when missing
	Nodes       int           // 0: as many as Dir has, else NodesDefault
	HTTPPort    int           // of node-1's API; 0: free ones; KeepPorts
	ClusterPort int           // of node-1's gossip; 0: free ones; KeepPorts
	Args        []string      // more arguments of `autoglm serve`, for every node
	StopMax     time.Duration // a node that was told to end is killed after so long
	Log         io.Writer     // what the nodes say, with their names; nil: nowhere but their files
	Colour      bool          // of the names in Log

	// Host gives the i-th node an IP address of its own, and all nodes the same ports; nil: all are on loopback.
	// Ports that are taken are then only found out by the node itself.
	Host func(i int) string
	// Data is the folder of the i-th node's data; nil: node-1 and so on in Dir.
	Data func(i int) string
	// Command makes the process of a node from arguments that begin with "serve"; nil: this program itself.
	Command func(name string, args []string) *exec.Cmd
}

// Cluster is a local cluster and its supervisor. Its methods may be called from any goroutine.
type Cluster struct {
	dir  string
	o    Options
	out  *console
	lock *os.File
	ask  prober

	mu    sync.Mutex
	file  File
	procs map[string]*proc // one for each node of file

	saving  sync.Mutex // one writer of dev.json
	adding  sync.Mutex // one AddNode
	wg      sync.WaitGroup
	ctl     *control
	closing bool // under mu: no more nodes are started
	closed  sync.Once
}

// proc is a node's place for a process.
type proc struct {
	op    chan struct{} // holds one token: who has it starts and stops the node
	child *child        // nil while down; under Cluster.mu
}

// Open takes the folder, makes certificates, finds ports and listens on the control socket. It starts no node.
// A folder that another dev has is a Conflict; so is a port that somebody else has.
func Open(o Options) (*Cluster, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fileFault(o.Dir, err)
	}
	if o.Command == nil {
		exe, err := os.Executable()
		if err == nil {
			_, err = os.Stat(exe)
		}
		if err != nil {
			return nil, fault.New(fault.NotFound, "dev.open", "", "this program's file is gone: %w", err).WithRemedy("build or install autoglm again")
		}
		o.Command = func(_ string, args []string) *exec.Cmd { return exec.Command(exe, args...) }
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, o: o, lock: lock, out: &console{w: o.Log, colour: o.Colour}, ask: newProber(), procs: map[string]*proc{}}
	if err := c.prepare(); err != nil {
		lock.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) prepare() error {
	old, err := ReadFile(c.dir)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	f, err := c.plan(old, c.o.Nodes, c.o.HTTPPort, c.o.ClusterPort)
	if err != nil {
		return err
	}
	if err := c.settle(f.Nodes); err != nil {
		return err
	}
	if err := certify(c.dir, f.Nodes); err != nil {
		return err
	}
	for _, n := range f.Nodes {
		if err := os.Remove(n.Log); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fileFault(n.Log, err)
		}
		c.procs[n.Name] = newProc()
	}
	f.PID = os.Getpid()
	c.file = f
	if c.ctl, err = listenControl(c); err != nil {
		return err
	}
	c.file.Socket = c.ctl.path
	if err := c.save(); err != nil {
		c.ctl.close()
		return err
	}
	return nil
}

// plan is grow with the Options' own addresses and folders.
func (c *Cluster) plan(old File, want, httpBase, clusterBase int) (File, error) {
	f, err := grow(old, c.dir, want, httpBase, clusterBase, c.o.Host)
	for i := range f.Nodes {
		if c.o.Data != nil {
			f.Nodes[i].DataDir = c.o.Data(f.Nodes[i].index())
		}
	}
	return f, err
}

func newProc() *proc {
	p := &proc{op: make(chan struct{}, 1)}
	p.op <- struct{}{}
	return p
}

func (c *Cluster) settle(nodes []Node) error {
	if c.o.Host != nil {
		return nil
	}
	return settlePorts(nodes)
}

// Dir is the folder of the cluster, as an absolute path.
func (c *Cluster) Dir() string { return c.dir }

// Nodes returns what is known of each node now.
func (c *Cluster) Nodes() []Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.file.Nodes)
}

// Node returns what is known of one node: NotFound when there is none of that name.
func (c *Cluster) Node(name string) (Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.file.node(name); n != nil {
		return *n, nil
	}
	return Node{}, c.unknown(name)
}

func (c *Cluster) unknown(name string) error {
	return fault.New(fault.NotFound, "dev.node", name, "there is no such node").
		WithRemedy("use node-1 to %s", c.file.Nodes[len(c.file.Nodes)-1].Name)
}

// Status is Nodes with a fresh look: a node that is up but does not say that it is ready now is Starting if it never did,
// else Unready or Silent, with the reason.
func (c *Cluster) Status(ctx context.Context) []Node {
	nodes := c.Nodes()
	var wg sync.WaitGroup
	for i := range nodes {
		n := &nodes[i]
		if n.State != Ready && n.State != Starting {
			continue
		}
		wg.Go(func() {
			n.State, n.Reason = seen(n.State, c.ask.ready(ctx, n.URL))
		})
	}
	wg.Wait()
	return nodes
}

// seen judges one look at a node that is up.
func seen(was State, err error) (now State, reason string) {
	var unanswered *url.Error
	silent := errors.As(err, &unanswered)
	switch {
	case err == nil:
		return Ready, ""
	case silent && unanswered.Timeout():
		reason = fmt.Sprintf("nothing in %v", probeMax)
	case silent:
		reason = unanswered.Err.Error()
	default:
		reason = err.Error()
	}
	switch {
	case was == Starting:
		return Starting, reason
	case silent:
		return Silent, reason
	}
	return Unready, reason
}

// save writes dev.json as things are now.
func (c *Cluster) save() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	f := c.file
	f.Nodes = slices.Clone(f.Nodes)
	c.mu.Unlock()
	return f.write(c.dir)
}

// change alters a node's entry and saves. A dev.json that cannot be written is told, and ends nothing.
func (c *Cluster) change(name string, alter func(*Node)) {
	c.mu.Lock()
	if n := c.file.node(name); n != nil { // nil: it was removed meanwhile
		alter(n)
	}
	c.mu.Unlock()
	if err := c.save(); err != nil {
		c.say("%s is out of date: %v", fileName, err)
	}
}

// say tells the user something of the supervisor's own.
func (c *Cluster) say(format string, args ...any) {
	c.out.line("dev", fmt.Appendf(nil, format, args...))
}

// AddNode makes another node, certificate and ports included, and starts it. It waits until the node is ready.
func (c *Cluster) AddNode(ctx context.Context) (Node, error) {
	c.adding.Lock()
	defer c.adding.Unlock()
	c.mu.Lock()
	old := c.file
	old.Nodes = slices.Clone(old.Nodes)
	c.mu.Unlock()
	f, err := c.plan(old, len(old.Nodes)+1, KeepPorts, KeepPorts)
	if err != nil {
		return Node{}, err
	}
	n := f.Nodes[len(old.Nodes)]
	one := []Node{n}
	if err := c.settle(one); err != nil {
		return Node{}, err
	}
	if err := certify(c.dir, append(slices.Clone(old.Nodes), n)); err != nil {
		return Node{}, err
	}
	c.mu.Lock()
	c.file.Nodes, c.file.Made = append(c.file.Nodes, one[0]), f.Made
	c.procs[n.Name] = newProc()
	c.mu.Unlock()
	if err := c.StartNode(ctx, n.Name); err != nil {
		return Node{}, err
	}
	return c.Node(n.Name)
}

// Close tells all nodes to end, all at once, and kills those that take longer than Options.StopMax; when ctx ends, it
// kills them all. Then it gives the folder back. It is safe to call twice; the second call waits for the first.
func (c *Cluster) Close(ctx context.Context) {
	c.closed.Do(func() {
		c.mu.Lock()
		c.closing = true
		c.mu.Unlock()
		c.ctl.close()
		var wg sync.WaitGroup
		for _, n := range c.Nodes() {
			wg.Go(func() {
				if err := c.finish(ctx, n.Name); err != nil {
					c.say("%s: %v", n.Name, err)
				}
			})
		}
		wg.Wait()
		c.wg.Wait()
		c.mu.Lock()
		c.file.PID = 0
		c.mu.Unlock()
		if err := c.save(); err != nil {
			c.say("%s is out of date: %v", fileName, err)
		}
		c.ask.http.CloseIdleConnections()
		c.lock.Close()
	})
}
