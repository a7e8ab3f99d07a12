package dev

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const patience = 30 * time.Second // for processes on a busy machine

func TestAClusterStartsDiesAndComesBack(t *testing.T) {
	dir := t.TempDir()
	c, said := open(t, options(dir, 3, nil))
	ctx := within(t, 4*patience)
	require.NoError(t, c.Start(ctx))
	nodes := c.Nodes()
	require.Len(t, nodes, 3)
	f, err := ReadFile(dir)
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), f.PID)
	require.Equal(t, nodes, f.Nodes, "dev.json is what the supervisor knows")
	for i, n := range nodes {
		require.Equal(t, Ready, n.State)
		require.NotZero(t, n.PID)
		require.DirExists(t, n.Identity)
		args := argsOf(t, n)
		require.Contains(t, args, "--bootstrap-expect 3")
		require.Contains(t, args, "--data-dir "+n.DataDir+" --identity "+n.Identity+" --set access.keys=off --http "+n.HTTP+" --cluster-listen "+n.Cluster)
		require.Contains(t, args, "--engine echo")
		for j, other := range nodes {
			require.Equal(t, i != j, strings.Contains(args, "--join") && strings.Contains(strings.Fields(args[strings.Index(args, "--join"):])[1], other.Cluster))
		}
	}

	// A second dev is refused while this one has the folder.
	_, err = Open(options(dir, 3, nil))
	requireKind(t, fault.Conflict, err, "runs a cluster there", "Ctrl-C")

	// A killed node stays down, for everybody to see why.
	gone, err := c.Gone("node-2")
	require.NoError(t, err)
	require.NoError(t, c.Signal("node-2", syscall.SIGKILL))
	<-gone
	f, err = ReadFile(dir)
	require.NoError(t, err)
	n := f.Nodes[1]
	require.Equal(t, Down, n.State)
	require.Zero(t, n.PID)
	require.Equal(t, "was killed (signal 9)", n.Reason)
	require.Contains(t, said.String(), "node-2 was killed (signal 9); start it again with: autoglm dev start node-2 --data-dir "+dir)

	k, err := Dial(dir)
	require.NoError(t, err)
	n, err = k.Start(ctx, "node-2", patience)
	require.NoError(t, err)
	require.Equal(t, Ready, n.State)
	require.Equal(t, nodes[1].HTTP, n.HTTP)
	require.NotEqual(t, nodes[1].PID, n.PID)
	_, err = k.Start(ctx, "node-2", patience)
	requireKind(t, fault.Conflict, err, "runs already")

	n, err = k.Restart(ctx, "node-1", patience)
	require.NoError(t, err)
	require.Equal(t, Ready, n.State)
	require.NotEqual(t, nodes[0].PID, n.PID)

	n, err = k.Stop(ctx, "node-3", patience, false)
	require.NoError(t, err)
	require.Equal(t, Down, n.State)
	require.Equal(t, "was stopped", n.Reason)
	_, err = k.Stop(ctx, "node-3", patience, false)
	requireKind(t, fault.Conflict, err, "down already")
	_, err = k.Stop(ctx, "node-7", patience, false)
	requireKind(t, fault.NotFound, err, "use node-1 to node-3")
	_, err = k.Stop(ctx, "../x", patience, false)
	requireKind(t, fault.Invalid, err)

	n, err = k.Add(ctx, patience)
	require.NoError(t, err)
	require.Equal(t, "node-4", n.Name)
	require.NotContains(t, argsOf(t, n), "--bootstrap-expect", "it enters a cluster that exists")
	states, err := k.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, []State{Ready, Ready, Down, Ready}, []State{states[0].State, states[1].State, states[2].State, states[3].State})

	c.Close(ctx)
	_, err = k.Status(ctx)
	requireKind(t, fault.Unavailable, err, "start it with")
	_, err = Dial(dir)
	requireKind(t, fault.Unavailable, err, "it was stopped")
	log, err := os.ReadFile(nodes[1].Log)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(log), "I am good"), "one life after the other")
	require.Contains(t, said.String(), "node-1 | I am good\n")

	// The next dev has the same nodes at the same addresses.
	was := c.Nodes()
	c, _ = open(t, options(dir, 0, nil))
	require.NoError(t, c.Start(ctx))
	for i, n := range c.Nodes() {
		require.Equal(t, was[i].HTTP, n.HTTP)
		require.Equal(t, was[i].Cluster, n.Cluster)
		require.Equal(t, Ready, n.State)
	}
	c.Close(ctx)
	_, err = Open(options(dir, 2, nil))
	requireKind(t, fault.Refused, err, "has 4 nodes", "dev stop NAME")
}

func TestANodeThatCannotStartSaysWhy(t *testing.T) {
	c, said := open(t, options(t.TempDir(), 3, map[string]string{"node-2": "broken", "node-3": "never"}))
	err := c.Start(within(t, patience))
	requireKind(t, fault.Unavailable, err, "node-2: ended (exit status 3) before it was ready", "I am broken")
	require.Contains(t, said.String(), "node-2 ended (exit status 3); start it again")
}

func TestNotReadyInTime(t *testing.T) {
	c, _ := open(t, options(t.TempDir(), 1, map[string]string{"node-1": "never"}))
	requireKind(t, fault.Timeout, c.Start(within(t, 500*time.Millisecond)), "not ready in time")
	st := c.Status(t.Context())
	require.Equal(t, Starting, st[0].State)
	require.NotEmpty(t, st[0].Reason)
	c.Close(t.Context())
	require.Equal(t, Down, c.Nodes()[0].State)
}

func TestStopKillsWhoDoesNotListen(t *testing.T) {
	o := options(t.TempDir(), 2, map[string]string{"node-1": "stubborn", "node-2": "stubborn"})
	o.StopMax = 100 * time.Millisecond
	c, said := open(t, o)
	ctx := within(t, patience)
	require.NoError(t, c.Start(ctx))
	require.NoError(t, c.StopNode(ctx, "node-1"))
	require.Contains(t, said.String(), "node-1 is killed: it took longer than 100ms")
	require.NotContains(t, said.String(), "start it again")

	// A second Ctrl-C does not wait for StopMax.
	c.o.StopMax = time.Hour
	hurry, now := context.WithCancel(ctx)
	now()
	c.Close(hurry)
	require.Contains(t, said.String(), "node-2 is killed: it was not waited for")
	c.Close(ctx) // once more does nothing
	requireKind(t, fault.Unavailable, c.StartNode(ctx, "node-1"), "being stopped")
}

func TestClosingEndsTheWaitForReadiness(t *testing.T) {
	dir := t.TempDir()
	c, _ := open(t, options(dir, 1, map[string]string{"node-1": "never"}))
	started := make(chan error, 1)
	go func() { started <- c.Start(context.WithoutCancel(t.Context())) }()
	deadline := within(t, patience)
	for f, err := ReadFile(dir); err != nil || f.Nodes[0].PID == 0; f, err = ReadFile(dir) {
		require.NoError(t, deadline.Err())
	}
	c.Close(deadline)
	require.Error(t, <-started)
}

func TestPortsInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	o := options(t.TempDir(), 1, nil)
	o.HTTPPort = taken
	_, err = Open(o)
	requireKind(t, fault.Conflict, err, "node-1: cannot listen on "+l.Addr().String(), "address already in use", "--http-port")
	o.HTTPPort, o.ClusterPort = 0, taken-2 // the last of the three
	_, err = Open(o)
	requireKind(t, fault.Conflict, err, "--cluster-port")
	o.ClusterPort = 0
	c, err := Open(o)
	require.NoError(t, err, "the folder is free after a refusal")
	c.Close(t.Context())
}

func TestMissingProgram(t *testing.T) {
	o := options(t.TempDir(), 1, nil)
	o.Command = func(_ string, args []string) *exec.Cmd { return exec.Command("/nowhere/autoglm", args...) }
	c, _ := open(t, o)
	requireKind(t, fault.NotFound, c.Start(t.Context()), "/nowhere/autoglm cannot be started")
	require.Equal(t, Down, c.Nodes()[0].State)
}

// A folder too deep for a socket's path gets its socket elsewhere, and everybody finds it.
func TestDeepFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", socketPathMax))
	c, _ := open(t, options(dir, 1, nil))
	k, err := Dial(dir)
	require.NoError(t, err)
	require.LessOrEqual(t, len(k.path), socketPathMax)
	st, err := os.Stat(k.path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	nodes, err := k.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, Down, nodes[0].State)
	c.Close(t.Context())
	require.NoDirExists(t, filepath.Dir(k.path))
	t.Setenv("TMPDIR", dir)
	_, err = Open(options(dir, 1, nil))
	requireKind(t, fault.Invalid, err, "TMPDIR")
}

func TestNoDevThere(t *testing.T) {
	_, err := Dial(t.TempDir())
	requireKind(t, fault.NotFound, err, "autoglm dev --data-dir")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, fileName), []byte("{"), 0o600))
	_, err = Dial(dir)
	requireKind(t, fault.Corrupt, err)
}

// A supervisor that is killed takes its nodes with it, and leaves a folder that the next one can use.
func TestKilledSupervisor(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills the children")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), fakeEnv+"=supervisor")
	cmd.SysProcAttr = childAttr()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready <nil>\n", line)
	f, err := ReadFile(dir)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	var held []io.Reader
	for _, n := range f.Nodes {
		res, err := client.Get(n.URL + "/hold")
		require.NoError(t, err)
		defer res.Body.Close()
		held = append(held, res.Body)
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"
	for _, body := range held {
		_, err = io.Copy(io.Discard, body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the node ended with its supervisor")
	}

	k, err := Dial(dir)
	require.NoError(t, err, "its file says that it runs")
	_, err = k.Status(t.Context())
	requireKind(t, fault.Unavailable, err, "no `autoglm dev` runs there")
	c, _ := open(t, options(dir, 0, nil))
	require.Equal(t, f.Nodes[0].HTTP, c.Nodes()[0].HTTP)
}
