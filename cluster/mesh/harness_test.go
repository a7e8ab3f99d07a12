package mesh

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// remote.Start sets a logger for the whole process without a lock, so a second mesh in a process is a data race. A test that
// needs a mesh of its own therefore runs in a process of its own (isolated), and other nodes are processes too (startNode).

const (
	isolatedEnv = "MESH_TEST_ISOLATED"
	nodeEnv     = "MESH_TEST_NODE"
	patience    = 20 * time.Second // for what should take milliseconds, on a busy machine
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(nodeEnv); dir != "" {
		if err := runNode(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// isolated runs the calling test again in a process of its own and returns true; there it returns false.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(isolatedEnv) != "" {
		return false
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a process of its own: %v\n%s", err, out)
	}
	return true
}

// book is a Resolve that tests write.
type book struct {
	mu sync.Mutex
	at map[string]string
}

func newBook() *book { return &book{at: map[string]string{}} }

func (b *book) set(node, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[node] = addr
}

func (b *book) resolve(node string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr, ok := b.at[node]
	return addr, ok
}

// startMesh starts a mesh in this process, once.
func startMesh(t testing.TB, dir, name string, b *book, o Options, ops map[string]Handler) *Mesh {
	t.Helper()
	id, err := pki.Load(filepath.Join(dir, "nodes", name))
	require.NoError(t, err)
	o.Listen, o.TLS, o.Resolve = "127.0.0.1:0", id, b.resolve
	if o.Log == nil && testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	m, err := New(o)
	require.NoError(t, err)
	for op, h := range ops {
		m.Handle(op, h)
	}
	require.NoError(t, m.Start())
	t.Cleanup(m.Stop)
	b.set(name, m.Addr())
	return m
}

// testOps are what every node of the tests serves.
func testOps(told chan<- string) map[string]Handler {
	return map[string]Handler{
		"echo": func(_ context.Context, from string, r *Request) (Answer, error) {
			return Answer{Type: from + " " + r.ID, Body: r.Body}, nil
		},
		"trace": func(ctx context.Context, _ string, _ *Request) (Answer, error) {
			return Answer{Body: []byte(trace.From(ctx))}, nil
		},
		"size": func(_ context.Context, _ string, r *Request) (Answer, error) {
			n, err := strconv.Atoi(r.Key)
			return Answer{Body: make([]byte, n)}, err
		},
		"fail": func(_ context.Context, _ string, r *Request) (Answer, error) {
			return Answer{}, fmt.Errorf("step: %w", fault.New(fault.Fenced, "x.do", r.Key, "epoch %d is old", 3).WithRemedy("look the route up again"))
		},
		"panic": func(context.Context, string, *Request) (Answer, error) { panic("oops") },
		"hang": func(ctx context.Context, _ string, r *Request) (Answer, error) {
			if told != nil {
				told <- "hanging " + r.Key
			}
			<-ctx.Done()
			return Answer{}, context.Cause(ctx)
		},
		"tell": func(_ context.Context, from string, r *Request) (Answer, error) {
			if told != nil {
				told <- from + " " + r.Key
			}
			return Answer{}, nil
		},
	}
}

// node is another node, a process.
type node struct {
	t    testing.TB
	name string
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  chan string // its lines, but for the first
	dead chan struct{}
}

type nodeOptions struct {
	Listen   string
	Version  string
	InFlight int
}

// startNode starts node name of the cluster in dir and enters it in the book.
func startNode(t testing.TB, dir, name string, b *book, o nodeOptions) *node {
	t.Helper()
	opts, err := json.Marshal(o)
	require.NoError(t, err)
	n := &node{t: t, name: name, cmd: exec.Command(os.Args[0], string(opts)), out: make(chan string, 64), dead: make(chan struct{})}
	n.cmd.Env = append(os.Environ(), nodeEnv+"="+filepath.Join(dir, "nodes", name))
	n.cmd.Stderr = os.Stderr
	n.in, err = n.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := n.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, n.cmd.Start())
	go func() {
		defer close(n.dead)
		for s := bufio.NewScanner(out); s.Scan(); {
			n.out <- s.Text()
		}
		_ = n.cmd.Wait() // killed
	}()
	t.Cleanup(n.kill)
	n.addr = strings.TrimPrefix(n.line(), "listening ")
	if b != nil {
		b.set(name, n.addr)
	}
	return n
}

// line returns the next line that the node printed.
func (n *node) line() string {
	n.t.Helper()
	select {
	case s := <-n.out:
		return s
	case <-time.After(patience):
		n.t.Fatalf("node %s says nothing", n.name)
	}
	return ""
}

func (n *node) do(format string, args ...any) {
	n.t.Helper()
	_, err := fmt.Fprintf(n.in, format+"\n", args...)
	require.NoError(n.t, err)
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	require.NoError(n.t, n.cmd.Process.Signal(s))
}

func (n *node) kill() {
	_ = n.cmd.Process.Kill() // it may be over
	<-n.dead
}

// runNode is a node as a process. It prints "listening ADDR", what its handlers are told, and the outcome of each
// "ask NODE OP KEY"; "peer NAME ADDR" enters an address. The end of its input ends it.
func runNode(dir string, in io.Reader, out io.Writer) error {
	var o nodeOptions
	if err := json.Unmarshal([]byte(os.Args[1]), &o); err != nil {
		return err
	}
	id, err := pki.Load(dir)
	if err != nil {
		return err
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	b := newBook()
	m, err := New(Options{Listen: o.Listen, TLS: id, Resolve: b.resolve, InFlight: o.InFlight, Version: o.Version})
	if err != nil {
		return err
	}
	told := make(chan string, 1024)
	for op, h := range testOps(told) {
		m.Handle(op, h)
	}
	if err := m.Start(); err != nil {
		return err
	}
	defer m.Stop()
	m.Complete()
	fmt.Fprintln(out, "listening", m.Addr())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for {
		select {
		case s := <-told:
			fmt.Fprintln(out, s)
		case s, ok := <-lines:
			if !ok {
				return nil
			}
			switch f := strings.Fields(s); f[0] {
			case "peer":
				b.set(f[1], f[2])
				fmt.Fprintln(out, "ok")
			case "ask":
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				a, err := m.Ask(ctx, f[1], &Request{Op: f[2], Key: f[3], Shard: -1})
				cancel()
				fmt.Fprintln(out, "answer", len(a.Body), err)
			}
		}
	}
}

// within returns a context that ends a test that hangs.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// ask asks until the node answers, as a caller with retries would.
func askUntil(t testing.TB, m *Mesh, node string) {
	t.Helper()
	ctx := within(t, patience)
	for {
		_, err := m.Ask(ctx, node, &Request{Op: "echo", Shard: -1})
		if err == nil {
			return
		}
		require.NoError(t, ctx.Err(), "last: %v", err)
		require.True(t, fault.KindOf(err).Retryable(), "%v", err)
		tick(ctx)
	}
}

func tick(ctx context.Context) {
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
