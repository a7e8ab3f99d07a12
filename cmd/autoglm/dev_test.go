package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestDev runs the command as a user does: three nodes, one killed and started again, Ctrl-C.
func TestDev(t *testing.T) {
	bin, dir := built(t, "autoglm"), filepath.Join(t.TempDir(), "cluster")
	said, err := os.Create(filepath.Join(t.TempDir(), "dev.log"))
	require.NoError(t, err)
	defer said.Close()
	cmd := exec.Command(bin, "dev", "--nodes", "3", "--data-dir", dir, "--engine", "echo", "--http-port", "0", "--cluster-port", "0", "--shards", "2")
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	r := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, "Ctrl-C stops all nodes."); {
		line, err = r.ReadString('\n')
		if err != nil {
			log, _ := os.ReadFile(said.Name())
			t.Fatalf("%v\n%s", err, log)
		}
	}
	f, err := dev.ReadFile(dir)
	require.NoError(t, err)
	require.Len(t, f.Nodes, 3)
	require.NoError(t, syscall.Kill(f.Nodes[1].PID, syscall.SIGKILL))

	run := func(args ...string) []byte {
		t.Helper()
		var errs strings.Builder
		c := exec.Command(bin, append(append([]string{"dev"}, args...), "--data-dir", dir, "-o", "json")...)
		c.Stderr = &errs
		b, err := c.Output()
		require.NoError(t, err, "%s", errs.String())
		return b
	}
	var nodes []dev.Node
	for nodes = nil; len(nodes) == 0 || nodes[1].State != dev.Down; { // until the supervisor has noticed
		require.NoError(t, json.Unmarshal(run("status"), &nodes))
	}
	require.Equal(t, "was killed (signal 9)", nodes[1].Reason)
	run("start", "node-2")
	require.NoError(t, json.Unmarshal(run("status"), &nodes))
	for i, n := range nodes {
		require.Equal(t, dev.Ready, n.State, "%s: %s", n.Name, n.Reason)
		require.Equal(t, f.Nodes[i].HTTP, n.HTTP)
	}

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, r) // to its end
	require.NoError(t, cmd.Wait(), "Ctrl-C is how it ends in order")
	for _, n := range nodes {
		require.ErrorIs(t, syscall.Kill(n.PID, 0), syscall.ESRCH, "%s lives on", n.Name)
	}
	log, err := os.ReadFile(said.Name())
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(log), "was stopped"), "%s", log)
}

// A cluster outlives whoever read what it said, as in `autoglm dev | head`.
func TestDevOutlivesItsReader(t *testing.T) {
	bin, dir := built(t, "autoglm"), filepath.Join(t.TempDir(), "cluster")
	cmd := exec.Command(bin, "dev", "--nodes", "1", "--data-dir", dir, "--engine", "echo", "--http-port", "0", "--cluster-port", "0", "--shards", "2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = w, w // also what the nodes say
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	require.NoError(t, w.Close())
	require.NoError(t, r.Close())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for ready := false; !ready; {
		select {
		case err := <-ended:
			t.Fatalf("it ended with its reader: %v", err)
		default:
		}
		f, err := dev.ReadFile(dir)
		ready = err == nil && len(f.Nodes) == 1 && f.Nodes[0].State == dev.Ready
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	var exit *exec.ExitError
	if err := <-ended; errors.As(err, &exit) {
		require.Equal(t, cli.ExitInterrupted, exit.ExitCode(), "Ctrl-C came before it was done with starting: %v", err)
	} else {
		require.NoError(t, err, "Ctrl-C is how it ends in order")
	}
}

// Who loses one of two nodes loses the cluster: nobody is told to try that.
func TestDevHints(t *testing.T) {
	var nodes []dev.Node
	for i, v := range []struct{ kill, warns bool }{{false, false}, {false, true}, {true, false}, {true, false}} {
		nodes = append(nodes, dev.Node{Name: "n", URL: "http://n" + string(rune('1'+i)), PID: 7})
		require.Equal(t, v.kill, strings.Contains(devHints(nodes, "d"), "kill -9 7"), "%d nodes", len(nodes))
		require.Equal(t, v.warns, devWarning(len(nodes)) != "", "%d nodes", len(nodes))
	}
	require.Contains(t, devHints(nodes, "d"), "AUTOGLM_SERVER=http://n1,http://n2,http://n3,http://n4 ")
}

func TestOnlyAnEmptyNodeIsForgotten(t *testing.T) {
	v := &wire.Cluster{Shards: []wire.Shard{
		{Replicas: []wire.Replica{{Node: "node-1"}, {Node: "node-2"}}}, {Replicas: []wire.Replica{{Node: "node-2"}}}}}
	require.NoError(t, holdsNone(v, "node-3"))
	err := holdsNone(v, "node-2")
	require.Equal(t, fault.Refused, fault.KindOf(err))
	require.ErrorContains(t, err, "replicas of 2 shards")
	require.ErrorContains(t, err, "cluster drain node-2")
}
