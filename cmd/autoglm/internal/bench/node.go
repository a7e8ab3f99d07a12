package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

const (
	pollEvery = 20 * time.Millisecond // between looks at a node that is not there yet
	stopMax   = time.Minute           // for a node to end after SIGTERM, then it is killed
	logTail   = 2 << 10               // bytes of a node's log shown when it fails
)

// node is an autoglm node as a child process. Its data directory outlives it, so that it can be started again.
type node struct {
	binary  string
	dir     string   // holds data/ and node.log
	engine  []string // flags of serve that say which engine
	addr    string   // host:port
	control *http.Client
	peers   *local // set: it stands for all nodes of a cluster, and addr is the first one's

	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended and was waited for
}

// newNode prepares a node in dir, a new folder.
func newNode(binary, dir string, engine ...string) (*node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench.node: %w", err)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return &node{binary: binary, dir: dir, engine: engine, addr: addr, control: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}, nil
}

// freeAddr finds a loopback port that nobody has now. Somebody may take it before the node does; the node then says so.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("bench.node: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start runs the node and returns how long it took until it was ready.
func (n *node) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(filepath.Join(n.dir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("bench.node: %w", err)
	}
	defer log.Close() // the child has its own
	args := append([]string{"serve", "--data-dir", filepath.Join(n.dir, "data"), "--http", n.addr, "--log-level", "warn"}, n.engine...)
	n.cmd = exec.Command(n.binary, args...)
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.SysProcAttr = log, log, childAttr()
	began := time.Now()
	if n.gone, err = launch(n.cmd); err != nil {
		return 0, fmt.Errorf("bench.node: %w", err)
	}
	for {
		if n.ready(ctx) {
			return time.Since(began), nil
		}
		select {
		case <-n.gone:
			return 0, fmt.Errorf("bench.node: the node ended before it was ready (%v)\n%s", n.cmd.ProcessState, n.log())
		case <-ctx.Done():
			n.kill()
			return 0, fmt.Errorf("bench.node: the node was not ready in time: %w\n%s", context.Cause(ctx), n.log())
		case <-time.After(pollEvery):
		}
	}
}

// launch starts cmd on a thread that lives as long as the child does: the kernel kills the child when the thread that
// started it ends.
func launch(cmd *exec.Cmd) (gone chan struct{}, err error) {
	started := make(chan error, 1)
	gone = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
		}
	}()
	return gone, <-started
}

func (n *node) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := n.control.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
	return res.StatusCode == http.StatusOK
}

// stop ends the node as an operator would, and returns how long that took. It is safe to call twice, and before start.
func (n *node) stop() time.Duration {
	if !n.running() {
		return 0
	}
	began := time.Now()
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-n.gone:
	case <-time.After(stopMax):
		n.kill()
	}
	n.control.CloseIdleConnections()
	return time.Since(began)
}

// kill ends the node as a power cut would, as far as processes go.
func (n *node) kill() {
	if !n.running() {
		return
	}
	_ = n.cmd.Process.Kill() // fails only when it has ended
	<-n.gone
	n.control.CloseIdleConnections()
}

func (n *node) running() bool {
	if n.peers != nil {
		return n.peers.ended() == ""
	}
	if n.gone == nil || n.cmd.Process == nil {
		return false
	}
	select {
	case <-n.gone:
		return false
	default:
		return true
	}
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// pids are the processes to be measured: the node's, or those of the nodes of a cluster.
func (n *node) pids() []int {
	if n.peers != nil {
		return n.peers.pids()
	}
	return []int{n.pid()}
}

// at is where connection i goes: to the nodes of a cluster in turn.
func (n *node) at(i int) string {
	if n.peers == nil {
		return n.addr
	}
	addrs := n.peers.addrs()
	return addrs[i%len(addrs)]
}

// death says how the node ended, when it did.
func (n *node) death() string {
	if n.peers != nil {
		return n.peers.ended()
	}
	return n.cmd.ProcessState.String()
}

// log returns the end of what the node said.
func (n *node) log() string {
	if n.peers != nil {
		return n.peers.log()
	}
	b, err := os.ReadFile(filepath.Join(n.dir, "node.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-logTail):]))
}

// get fetches a JSON document of the API into v.
func (n *node) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+path, nil)
	if err != nil {
		return fmt.Errorf("bench.get %s: %w", path, err)
	}
	res, err := n.control.Do(req)
	if err != nil {
		return fmt.Errorf("bench.get %s: %w", path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return fmt.Errorf("bench.get %s: %w", path, err)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("bench.get %s: %s: %s", path, res.Status, cut(b))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("bench.get %s: %w", path, err)
	}
	return nil
}

// status asks the node how it is.
func (n *node) status(ctx context.Context) (st wire.Status, err error) {
	err = n.get(ctx, "/v1/status", &st)
	return st, err
}

// until looks at the node's status every pollEvery until done says so.
func (n *node) until(ctx context.Context, done func(*wire.Status) bool) error {
	for {
		st, err := n.status(ctx)
		if err != nil {
			return err
		}
		if done(&st) {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-n.gone:
			return fmt.Errorf("bench.node: the node ended (%v)\n%s", n.cmd.ProcessState, n.log())
		case <-ctx.Done():
			return fmt.Errorf("bench.node: tasks are %v: %w", st.Tasks, context.Cause(ctx))
		}
	}
}

func cut(b []byte) string { return strings.TrimSpace(string(b[:min(len(b), 300)])) }
